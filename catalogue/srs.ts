import type Database from 'better-sqlite3'
import { srKey } from '../cluster/keys.ts'
import { type SrRecord, parseSrRecord } from '../cluster/records.ts'
import { type SrId } from '../core/units.ts'
import { type Records } from './records.ts'

export interface CataloguedSr {
  readonly record: SrRecord
  /** For a compare-and-swap of the record. */
  readonly revision: number
}

export class Srs {
  readonly #records: Records
  readonly #list: Database.Statement<[], SrId>
  readonly #put: Database.Statement<[SrId]>
  readonly #remove: Database.Statement<[SrId]>

  constructor(database: Database.Database, records: Records) {
    this.#records = records
    this.#list = database.prepare<[], SrId>('SELECT sr FROM srs ORDER BY sr').pluck()
    this.#put = database.prepare('INSERT INTO srs (sr) VALUES (?)')
    this.#remove = database.prepare('DELETE FROM srs WHERE sr = ?')
  }

  /** @throws RECORD_INVALID when there is one that this version cannot read */
  get(sr: SrId): CataloguedSr | null {
    const entry = this.#records.get(srKey(sr))
    return entry === null ? null : { record: parseSrRecord(entry.key, entry.value), revision: entry.revision }
  }

  /** Ids of all SRs, also of those whose record cannot be read. */
  list(): SrId[] {
    return this.#list.all()
  }

  put(sr: SrId): void {
    this.#put.run(sr)
  }

  remove(sr: SrId): void {
    this.#remove.run(sr)
  }
}
