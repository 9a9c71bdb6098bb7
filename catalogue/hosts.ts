import { HOSTS_PREFIX, hostKey } from '../cluster/keys.ts'
import { type HostRecord, parseHostRecord } from '../cluster/records.ts'
import { type HostId } from '../core/units.ts'
import { readableRecords } from './readable.ts'
import { type Records } from './records.ts'

/** The hosts of the pool. */
export class Hosts {
  readonly #records: Records

  constructor(records: Records) {
    this.#records = records
  }

  /** @throws RECORD_INVALID when there is one that this version cannot read */
  get(host: HostId): HostRecord | null {
    const entry = this.#records.get(hostKey(host))
    return entry === null ? null : parseHostRecord(entry.key, entry.value)
  }

  /** Hosts whose record can be read; one that cannot is a host that nothing can be asked of. */
  list(): HostRecord[] {
    return readableRecords(this.#records, HOSTS_PREFIX, parseHostRecord)
  }
}
