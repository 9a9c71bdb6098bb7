/**
 * The catalogue's database: SQLite itself, compiled to WebAssembly (sql.js), in memory, behind the part of
 * better-sqlite3 that the catalogue uses. The native module exists for one version of Node at a time, and one seed must
 * be one universe on all of them; the SQL that runs is the production's own.
 *
 * What SQLite promises is modelled by keeping the database as long as its host: a transaction happens as a whole, in
 * one event, and is durable when it returns (the catalogue asks for `synchronous = FULL`). That the real files keep
 * this promise is tested with real files (`test/unit/catalogue`, `test/integration/cluster`).
 */
import type Database from 'better-sqlite3'
import initSqlJs, { type BindParams, type Database as WasmDatabase, type Statement } from 'sql.js'
import { MIGRATIONS } from '../../catalogue/schema/migrations.ts'

const sqlite = await initSqlJs()

/** What a row is given as. */
type Shape = 'objects' | 'arrays' | 'first column'

class WasmStatement {
  readonly #statement: Statement
  readonly #columns: readonly string[]
  #shape: Shape = 'objects'

  constructor(statement: Statement) {
    this.#statement = statement
    this.#columns = statement.getColumnNames()
  }

  pluck(): this {
    this.#shape = 'first column'
    return this
  }

  raw(): this {
    this.#shape = 'arrays'
    return this
  }

  run(...values: unknown[]): void {
    this.#statement.run(values as BindParams)
  }

  get(...values: unknown[]): unknown {
    this.#statement.bind(values as BindParams)
    const row = this.#statement.step() ? this.#row() : undefined
    this.#statement.reset()
    return row
  }

  all(...values: unknown[]): unknown[] {
    const rows: unknown[] = []
    this.#statement.bind(values as BindParams)
    while (this.#statement.step()) rows.push(this.#row())
    this.#statement.reset()
    return rows
  }

  iterate(...values: unknown[]): Iterable<unknown> {
    return this.all(...values)
  }

  #row(): unknown {
    const values = this.#statement.get()
    if (this.#shape === 'arrays') return values
    if (this.#shape === 'first column') return values[0]
    return Object.fromEntries(this.#columns.map((name, index) => [name, values[index]]))
  }
}

/** The database of one host's catalogue, with its tables. It outlives processes and power cuts. */
export class SimulatedDatabase {
  readonly #wasm: WasmDatabase
  /** Compiled once, since every process of the host asks for the same. */
  readonly #statements = new Map<string, Statement>()

  constructor() {
    this.#wasm = new sqlite.Database()
    for (const migration of MIGRATIONS) migration.apply(this.asOpened())
  }

  /** As a process has it that opened it. */
  asOpened(): Database.Database {
    const opened = {
      exec: (sql: string) => void this.#wasm.run(sql),
      prepare: (sql: string) => new WasmStatement(this.#prepared(sql)),
      transaction: (action: () => unknown) => ({ immediate: () => this.#inTransaction(action) }),
      close: () => undefined,
    }
    // Nothing else of better-sqlite3 is used by the catalogue once it is open.
    return opened as unknown as Database.Database
  }

  /** Frees its memory, which is not the garbage collector's. */
  free(): void {
    this.#wasm.close()
  }

  #prepared(sql: string): Statement {
    let statement = this.#statements.get(sql)
    if (statement === undefined) {
      statement = this.#wasm.prepare(sql)
      this.#statements.set(sql, statement)
    }
    return statement
  }

  #inTransaction(action: () => unknown): unknown {
    this.#prepared('BEGIN IMMEDIATE').run()
    try {
      const result = action()
      this.#prepared('COMMIT').run()
      return result
    } catch (error) {
      this.#prepared('ROLLBACK').run()
      throw error
    }
  }
}
