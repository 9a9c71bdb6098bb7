/** Takes the write lock of a database, changes it without committing, prints a line and keeps the lock. */
import Database from 'better-sqlite3'

const database = new Database(process.argv[2])
database.exec("BEGIN IMMEDIATE; INSERT INTO entries (key, value, revision) VALUES ('never', 'committed', 1)")
process.stdout.write('ready\n')
setInterval(() => database.inTransaction, 1_000)
