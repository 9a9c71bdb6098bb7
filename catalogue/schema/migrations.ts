/**
 * How the catalogue's tables came to be, step by step. A step is never changed once released; a new need is a new
 * step at the end, with its own sentence about what it must never lose.
 */
import type Database from 'better-sqlite3'

export interface Migration {
  /** The schema's version after the step (`PRAGMA user_version`); one higher than the step before. */
  readonly version: number
  /** What the step must never lose; its test checks exactly this. */
  readonly neverLoses: string
  apply(database: Database.Database): void
}

const first: Migration = {
  version: 1,
  neverLoses: 'Nothing: there was no catalogue before.',
  apply(database) {
    database.exec(`
      -- Every record of the coordinator as its text was: the SR can be rebuilt from these alone. "problem" tells why
      -- this version cannot read one.
      CREATE TABLE records (
        key TEXT NOT NULL PRIMARY KEY,
        value TEXT NOT NULL,
        revision INTEGER NOT NULL,
        problem TEXT
      ) STRICT;
      CREATE INDEX records_with_problem ON records (key) WHERE problem IS NOT NULL;

      -- Which coordinator is followed and how far; one row, changed in one transaction with the records.
      CREATE TABLE position (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        identity TEXT,
        revision INTEGER NOT NULL,
        examined_as INTEGER NOT NULL
      ) STRICT;
      INSERT INTO position (id, identity, revision, examined_as) VALUES (1, NULL, 0, 0);

      -- The rest is found again from the records at any time, except local_replicas.
      CREATE TABLE volumes (
        sr TEXT NOT NULL,
        volume TEXT NOT NULL,
        primary_host TEXT,
        PRIMARY KEY (sr, volume)
      ) STRICT, WITHOUT ROWID;
      CREATE INDEX volumes_by_key ON volumes (volume);
      CREATE INDEX volumes_by_primary ON volumes (primary_host) WHERE primary_host IS NOT NULL;

      CREATE TABLE replicas (
        sr TEXT NOT NULL,
        volume TEXT NOT NULL,
        replica TEXT NOT NULL,
        host TEXT NOT NULL,
        store TEXT NOT NULL,
        in_sync INTEGER NOT NULL,
        PRIMARY KEY (sr, volume, replica)
      ) STRICT, WITHOUT ROWID;
      CREATE INDEX replicas_by_host ON replicas (host);

      CREATE TABLE srs (sr TEXT NOT NULL PRIMARY KEY) STRICT, WITHOUT ROWID;

      CREATE TABLE tombstones (
        sr TEXT NOT NULL,
        replica TEXT NOT NULL,
        host TEXT NOT NULL,
        PRIMARY KEY (sr, replica)
      ) STRICT, WITHOUT ROWID;
      CREATE INDEX tombstones_by_host ON tombstones (host);

      -- The replicas whose files this host has made and not yet deleted.
      CREATE TABLE local_replicas (
        replica TEXT NOT NULL PRIMARY KEY,
        sr TEXT NOT NULL,
        volume TEXT NOT NULL,
        store TEXT NOT NULL
      ) STRICT, WITHOUT ROWID;
    `)
  },
}

export const MIGRATIONS: readonly Migration[] = [first]
