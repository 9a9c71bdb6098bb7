/**
 * The file of the embedded coordinator and the statements on it. Everything here is synchronous and takes one
 * attempt; a database that another process is writing throws SQLITE_BUSY at once.
 *
 * `history` holds the last changes for watches, numbered by the revision that made them. Only the newest
 * `historyRevisions` are kept; `compacted` tells up to where they are gone.
 */
import { closeSync, fsyncSync, mkdirSync, openSync } from 'node:fs'
import { dirname } from 'node:path'
import Database from 'better-sqlite3'
import { XosanError, reasonOf } from '../../core/errors.ts'
import {
  type Change,
  type Condition,
  type Entry,
  type TransactResult,
  type WatchEvent,
} from '../../core/ports/coordinator.ts'
import { endOfPrefix } from '../coordinator-limits.ts'

const FORMAT = 1
/** 'XoCo', so that `file` and we tell this database from any other. */
const APPLICATION_ID = 0x586f436f

const SCHEMA = `
  CREATE TABLE store (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    revision INTEGER NOT NULL,
    compacted INTEGER NOT NULL
  ) STRICT;
  INSERT INTO store (id, revision, compacted) VALUES (1, 0, 0);
  CREATE TABLE entries (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL,
    revision INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE history (
    revision INTEGER NOT NULL,
    key TEXT NOT NULL,
    value TEXT,
    PRIMARY KEY (revision, key)
  ) STRICT, WITHOUT ROWID;
`

/** A commit failed half-way: whether it will be there after a crash of this process or host is not known. */
export class CommitFailedError extends Error {}

export interface HistoryEvent extends WatchEvent {
  readonly revision: number
}

type Attempted<T> = { readonly busy: true } | { readonly busy: false; readonly value: T }

/** Makes one attempt; a database that another process holds is told apart from every other error. */
export function attempt<T>(action: () => T): Attempted<T> {
  try {
    return { busy: false, value: action() }
  } catch (error) {
    // SQLITE_BUSY has variants (BUSY_RECOVERY, BUSY_SNAPSHOT): all mean that another process is at it.
    if (error instanceof Database.SqliteError && error.code.startsWith('SQLITE_BUSY')) {
      return { busy: true }
    }
    throw error
  }
}

/** Makes the file and its directory, readable by their owner only, when they are missing. */
export function makeDatabaseFile(path: string): void {
  const directory = dirname(path)
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  // SQLite gives its -wal and -shm files the mode of the database.
  closeSync(openSync(path, 'a', 0o600))
  const handle = openSync(directory, 'r')
  try {
    fsyncSync(handle)
  } finally {
    closeSync(handle)
  }
}

export class EmbeddedDatabase {
  readonly #database: Database.Database
  readonly #historyRevisions: number
  readonly #begin: Database.Statement
  readonly #commit: Database.Statement
  readonly #store: Database.Statement<[], { revision: number; compacted: number }>
  readonly #setStore: Database.Statement<[number, number]>
  readonly #read: Database.Statement<[string], Entry>
  readonly #list: Database.Statement<[string, string], Entry>
  readonly #put: Database.Statement<[string, string, number]>
  readonly #remove: Database.Statement<[string]>
  readonly #remember: Database.Statement<[number, string, string | null]>
  readonly #forget: Database.Statement<[number]>
  readonly #history: Database.Statement<[number, string, string, number], HistoryEvent>

  /**
   * Opens the file that `makeDatabaseFile` has made, and lays it out when it is empty.
   * @param historyRevisions how many revisions a watch may lag behind
   * @throws SQLITE_BUSY (see `attempt`) while another process opens it for the first time
   * @throws DATABASE_DAMAGED, DATABASE_FOREIGN
   */
  constructor(path: string, historyRevisions: number) {
    this.#historyRevisions = historyRevisions
    const database = new Database(path, { fileMustExist: true, timeout: 0 })
    try {
      prepareFile(database, path)
      this.#begin = database.prepare('BEGIN IMMEDIATE')
      this.#commit = database.prepare('COMMIT')
      this.#store = database.prepare('SELECT revision, compacted FROM store')
      this.#setStore = database.prepare('UPDATE store SET revision = ?, compacted = ?')
      this.#read = database.prepare('SELECT key, value, revision FROM entries WHERE key = ?')
      this.#list = database.prepare(
        'SELECT key, value, revision FROM entries WHERE key >= ? AND key < ? ORDER BY key'
      )
      this.#put = database.prepare(
        `INSERT INTO entries (key, value, revision) VALUES (?, ?, ?)
         ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = excluded.revision`
      )
      this.#remove = database.prepare('DELETE FROM entries WHERE key = ?')
      this.#remember = database.prepare('INSERT INTO history (revision, key, value) VALUES (?, ?, ?)')
      this.#forget = database.prepare('DELETE FROM history WHERE revision <= ?')
      this.#history = database.prepare(
        `SELECT revision, key, value FROM history
         WHERE revision > ? AND key >= ? AND key < ? AND revision <= ? ORDER BY revision, key`
      )
    } catch (error) {
      database.close()
      throw clearer(error, path)
    }
    this.#database = database
  }

  /** The store's revision, and the one up to which history is gone. */
  position(): { readonly revision: number; readonly compacted: number } {
    return this.#store.get()!
  }

  read(key: string): { entry: Entry | null; revision: number } {
    return this.#snapshot(() => ({
      entry: this.#read.get(key) ?? null,
      revision: this.position().revision,
    }))
  }

  list(prefix: string): { entries: Entry[]; revision: number } {
    return this.#snapshot(() => ({
      entries: this.#list.all(prefix, endOfPrefix(prefix)),
      revision: this.position().revision,
    }))
  }

  /**
   * Events of a prefix after a revision, in order, and the store's revision to which they lead.
   * @returns null when history after that revision is no longer complete
   */
  eventsAfter(prefix: string, after: number): { events: HistoryEvent[]; revision: number } | null {
    return this.#snapshot(() => {
      const { revision, compacted } = this.position()
      if (after < compacted) {
        return null
      }
      return { events: this.#history.all(after, prefix, endOfPrefix(prefix), revision), revision }
    })
  }

  /** @throws CommitFailedError when the outcome is unknown; after any other error nothing has happened */
  transact(conditions: readonly Condition[], changes: readonly Change[]): TransactResult {
    // IMMEDIATE: the right to write is taken before the conditions are read, so that they still hold at COMMIT.
    this.#begin.run()
    let result: TransactResult
    try {
      result = this.#apply(conditions, changes)
    } catch (error) {
      this.#rollback()
      throw error
    }
    try {
      this.#commit.run()
    } catch (cause) {
      // The frames may be in the log with their commit mark although syncing them failed: if this host crashes before
      // anybody writes over them, recovery would apply them.
      this.#rollback()
      throw new CommitFailedError(reasonOf(cause), { cause })
    }
    return result
  }

  close(): void {
    this.#database.close()
  }

  #apply(conditions: readonly Condition[], changes: readonly Change[]): TransactResult {
    const { revision, compacted } = this.position()
    const current = new Map(conditions.map(({ key }) => [key, this.#read.get(key)]))
    if (conditions.some(condition => (current.get(condition.key)?.revision ?? 0) !== condition.revision)) {
      return {
        committed: false,
        revision,
        current: [...current.values()].filter(entry => entry !== undefined),
      }
    }
    const next = revision + 1
    let changed = false
    for (const { key, value } of changes) {
      if (value !== null) {
        this.#put.run(key, value, next)
      } else if (this.#remove.run(key).changes === 0) {
        continue
      }
      this.#remember.run(next, key, value)
      changed = true
    }
    if (!changed) {
      return { committed: true, revision, current: [] }
    }
    const floor = Math.max(compacted, next - this.#historyRevisions)
    this.#forget.run(floor)
    this.#setStore.run(next, floor)
    return { committed: true, revision: next, current: [] }
  }

  #rollback(): void {
    if (this.#database.inTransaction) {
      this.#database.exec('ROLLBACK')
    }
  }

  #snapshot<T>(action: () => T): T {
    return this.#database.transaction(action).deferred()
  }
}

function prepareFile(database: Database.Database, path: string): void {
  refuseForeign(database, path)
  // Readers never wait for a writer, which matters when the writer is a stopped process.
  database.pragma('journal_mode = WAL')
  // An answer that a caller acts on must survive a power cut; NORMAL would sync only at checkpoints.
  database.pragma('synchronous = FULL')
  if (database.pragma('application_id', { simple: true }) === APPLICATION_ID) {
    return
  }
  const lay = database.transaction(() => {
    // Another process may have laid it out since we looked.
    if (database.pragma('application_id', { simple: true }) !== APPLICATION_ID) {
      database.exec(SCHEMA)
      database.pragma(`application_id = ${APPLICATION_ID}`)
      database.pragma(`user_version = ${FORMAT}`)
    }
  })
  lay.immediate()
}

/** Checked before anything is written, so that a wrong path does no harm. */
function refuseForeign(database: Database.Database, path: string): void {
  const application = database.pragma('application_id', { simple: true })
  const format = database.pragma('user_version', { simple: true })
  const tables = database.prepare('SELECT count(*) FROM sqlite_schema').pluck().get()
  const empty = application === 0 && format === 0 && tables === 0
  if (!empty && application !== APPLICATION_ID) {
    throw new XosanError('DATABASE_FOREIGN', { path, reason: 'it is not the database of a coordinator' })
  }
  if (!empty && format !== FORMAT) {
    throw new XosanError('DATABASE_FOREIGN', {
      path,
      reason: `its format is ${String(format)}, this version knows ${FORMAT}`,
    })
  }
}

/** Turns SQLite's words for a damaged file into ours, and leaves other errors as they are. */
function clearer(error: unknown, path: string): unknown {
  if (error instanceof Database.SqliteError && /^SQLITE_(CORRUPT|NOTADB)/.test(error.code)) {
    return new XosanError('DATABASE_DAMAGED', { path, reason: error.message }, { cause: error })
  }
  return error
}
