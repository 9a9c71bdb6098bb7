import { storeKey, storesPrefix } from '../cluster/keys.ts'
import { type StoreRecord, parseStoreRecord } from '../cluster/records.ts'
import { type HostId, type SrId } from '../core/units.ts'
import { readableRecords } from './readable.ts'
import { type Records } from './records.ts'

/** The stores of each SR, one per host. */
export class Stores {
  readonly #records: Records

  constructor(records: Records) {
    this.#records = records
  }

  /** @throws RECORD_INVALID when there is one that this version cannot read */
  get(sr: SrId, host: HostId): StoreRecord | null {
    const entry = this.#records.get(storeKey(sr, host))
    return entry === null ? null : parseStoreRecord(entry.key, entry.value)
  }

  /** Stores of an SR whose record can be read; on one that cannot nothing new is placed. */
  list(sr: SrId): StoreRecord[] {
    return readableRecords(this.#records, storesPrefix(sr), parseStoreRecord)
  }
}
