import type Database from 'better-sqlite3'
import { type Entry } from '../core/ports/coordinator.ts'
import { endOfPrefix } from '../cluster/coordinator-limits.ts'

/** A record that this version cannot read. */
export interface RecordProblem {
  readonly key: string
  readonly reason: string
}

/** Every record of the coordinator, as text; also those that this version cannot read. */
export class Records {
  readonly #get: Database.Statement<[string], Entry>
  readonly #list: Database.Statement<[string, string], Entry>
  readonly #each: Database.Statement<[string, string], [key: string, value: string, revision: number]>
  readonly #put: Database.Statement<[string, string, number, string | null]>
  readonly #remove: Database.Statement<[string]>
  readonly #problems: Database.Statement<[string, string], RecordProblem>

  constructor(database: Database.Database) {
    this.#get = database.prepare('SELECT key, value, revision FROM records WHERE key = ?')
    const ofPrefix = 'SELECT key, value, revision FROM records WHERE key >= ? AND key < ? ORDER BY key'
    this.#list = database.prepare(ofPrefix)
    this.#each = database
      .prepare<[string, string], [key: string, value: string, revision: number]>(ofPrefix)
      .raw()
    this.#put = database.prepare(
      `INSERT INTO records (key, value, revision, problem) VALUES (?, ?, ?, ?)
       ON CONFLICT (key) DO UPDATE
       SET value = excluded.value, revision = excluded.revision, problem = excluded.problem`
    )
    this.#remove = database.prepare('DELETE FROM records WHERE key = ?')
    this.#problems = database.prepare(
      `SELECT key, problem AS reason FROM records
       WHERE problem IS NOT NULL AND key >= ? AND key < ? ORDER BY key`
    )
  }

  get(key: string): Entry | null {
    return this.#get.get(key) ?? null
  }

  /** Records of a prefix, sorted by key. */
  list(prefix: string): Entry[] {
    return this.#list.all(prefix, endOfPrefix(prefix))
  }

  /**
   * Shows the records of a prefix one after the other, sorted by key, without ever holding all of them.
   * @param show must not change the catalogue
   */
  forEach(prefix: string, show: (key: string, value: string, revision: number) => void): void {
    for (const [key, value, revision] of this.#each.iterate(prefix, endOfPrefix(prefix))) {
      show(key, value, revision)
    }
  }

  /** Records of a prefix that this version cannot read, and why. */
  problems(prefix: string): RecordProblem[] {
    return this.#problems.all(prefix, endOfPrefix(prefix))
  }

  put({ key, value, revision }: Entry, problem: string | null): void {
    this.#put.run(key, value, revision, problem)
  }

  remove(key: string): void {
    this.#remove.run(key)
  }
}
