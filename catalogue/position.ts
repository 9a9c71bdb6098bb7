import type Database from 'better-sqlite3'

/** Which coordinator the catalogue is a copy of, and up to where. */
export interface FollowPosition {
  /** Null before the first list. */
  readonly identity: string | null
  /** Everything up to this revision is in the catalogue; 0 before the first list. */
  readonly revision: number
}

interface PositionRow extends FollowPosition {
  readonly examinedAs: number
}

export class Position {
  readonly #get: Database.Statement<[], PositionRow>
  readonly #set: Database.Statement<[string | null, number]>
  readonly #examined: Database.Statement<[number]>

  constructor(database: Database.Database) {
    this.#get = database.prepare('SELECT identity, revision, examined_as AS examinedAs FROM position')
    this.#set = database.prepare('UPDATE position SET identity = ?, revision = ?')
    this.#examined = database.prepare('UPDATE position SET examined_as = ?')
  }

  get(): FollowPosition {
    const { identity, revision } = this.#get.get()!
    return { identity, revision }
  }

  set({ identity, revision }: FollowPosition): void {
    this.#set.run(identity, revision)
  }

  /** By which rules the records were last examined. */
  examinedAs(): number {
    return this.#get.get()!.examinedAs
  }

  setExaminedAs(rules: number): void {
    this.#examined.run(rules)
  }
}
