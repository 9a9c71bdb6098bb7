/**
 * Opens the catalogue. A file that is damaged is set aside, never deleted, and a new one is started, which the
 * follower fills from the coordinator; what only the damaged file knew is the register of local replicas, which the
 * stores themselves can tell again. A file of a newer version is refused untouched.
 */
import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, renameSync, rmSync } from 'node:fs'
import { dirname } from 'node:path'
import Database from 'better-sqlite3'
import { XosanError } from '../core/errors.ts'
import { Catalogue } from './catalogue.ts'
import { MIGRATIONS, type Migration } from './schema/migrations.ts'

/** 'XoCa', so that no other database is taken for a catalogue. */
const APPLICATION_ID = 0x586f4361
/** A command line tool may be copying the file; longer waits would be a mistake somewhere. */
const BUSY_TIMEOUT_MS = 2_000
/** What SQLite leaves beside a database; without them the last transactions would be missing from it. */
const COMPANIONS = ['', '-wal', '-shm']

export interface OpenedCatalogue {
  readonly catalogue: Catalogue
  /** Set when the file was damaged: what was wrong, and where it was put. */
  readonly damaged: { readonly reason: string; readonly setAside: string } | null
}

/**
 * Opens, or makes, the catalogue of this host. Only one process may have it open for writing.
 * @param path the database file; its directory is made, with mode 0700, when missing
 * @param migrations replaced in tests
 * @throws DATABASE_FOREIGN when the file is of a newer version, or is no catalogue
 */
export function openCatalogue(path: string, migrations: readonly Migration[] = MIGRATIONS): OpenedCatalogue {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
  try {
    return { catalogue: new Catalogue(openDatabase(path, migrations)), damaged: null }
  } catch (error) {
    if (!(error instanceof DamagedError)) {
      throw error
    }
    const setAside = moveAside(path)
    const catalogue = new Catalogue(openDatabase(path, migrations))
    return { catalogue, damaged: { reason: error.message, setAside } }
  }
}

class DamagedError extends Error {}

function openDatabase(path: string, migrations: readonly Migration[]): Database.Database {
  closeSync(openSync(path, 'a', 0o600))
  const database = new Database(path, { timeout: BUSY_TIMEOUT_MS })
  try {
    checkOurs(database, path, migrations)
    checkIntegrity(database)
    // One writer and any number of readers that do not wait for each other.
    database.pragma('journal_mode = WAL')
    // NORMAL would sync only at checkpoints, hours apart when little changes: after a power cut of all hosts at once
    // this file may be the newest copy of the SR's metadata that there is.
    database.pragma('synchronous = FULL')
    migrate(database, path, migrations)
    return database
  } catch (error) {
    database.close()
    throw isDamage(error) ? new DamagedError(error.message, { cause: error }) : error
  }
}

const isDamage = (error: unknown): error is Error =>
  error instanceof DamagedError ||
  (error instanceof Database.SqliteError && /^SQLITE_(CORRUPT|NOTADB)/.test(error.code))

function checkOurs(database: Database.Database, path: string, migrations: readonly Migration[]): void {
  const application = database.pragma('application_id', { simple: true })
  const version = versionOf(database)
  const tables = database.prepare('SELECT count(*) FROM sqlite_schema').pluck().get()
  const empty = application === 0 && version === 0 && tables === 0
  if (!empty && application !== APPLICATION_ID) {
    throw new XosanError('DATABASE_FOREIGN', { path, reason: 'it is no catalogue' })
  }
  const newest = migrations.at(-1)?.version ?? 0
  if (version > newest) {
    throw new XosanError('DATABASE_FOREIGN', {
      path,
      reason: `its version is ${version}, the newest that this host knows is ${newest}`,
    })
  }
}

function checkIntegrity(database: Database.Database): void {
  const found = database.pragma('integrity_check(1)', { simple: true })
  if (found !== 'ok') {
    throw new DamagedError(String(found))
  }
}

function migrate(database: Database.Database, path: string, migrations: readonly Migration[]): void {
  const from = versionOf(database)
  const due = migrations.filter(({ version }) => version > from)
  if (due.length === 0) {
    return
  }
  if (from > 0) {
    backUp(database, `${path}.version-${from}`)
  }
  database
    .transaction(() => {
      database.pragma(`application_id = ${APPLICATION_ID}`)
      for (const migration of due) {
        migration.apply(database)
        database.pragma(`user_version = ${migration.version}`)
      }
    })
    .immediate()
}

/** Copies the whole database; the copy has its name only once it is complete and durable. */
function backUp(database: Database.Database, to: string): void {
  const partial = `${to}.partial`
  rmSync(partial, { force: true })
  closeSync(openSync(partial, 'a', 0o600))
  database.prepare('VACUUM INTO ?').run(partial)
  sync(partial)
  renameSync(partial, to)
  sync(dirname(to))
}

/** Moves a damaged database and its companions to a name that is free. @returns the name */
function moveAside(path: string): string {
  let number = 1
  while (existsSync(`${path}.damaged-${number}`)) {
    number++
  }
  const aside = `${path}.damaged-${number}`
  // The database last: if this is interrupted, the next opening finds it damaged again and goes on.
  for (const companion of [...COMPANIONS].reverse()) {
    if (existsSync(path + companion)) {
      renameSync(path + companion, aside + companion)
    }
  }
  sync(dirname(path))
  return aside
}

function sync(path: string): void {
  const handle = openSync(path, 'r')
  try {
    fsyncSync(handle)
  } finally {
    closeSync(handle)
  }
}

const versionOf = (database: Database.Database): number =>
  database.pragma('user_version', { simple: true }) as number
