import type Database from 'better-sqlite3'
import { tombstoneKey } from '../cluster/keys.ts'
import { type TombstoneRecord, parseTombstoneRecord } from '../cluster/records.ts'
import { type HostId, type ReplicaId, type SrId } from '../core/units.ts'
import { type Records } from './records.ts'

export interface CataloguedTombstone {
  readonly sr: SrId
  readonly record: TombstoneRecord
  /** For the compare-and-swap that removes it. */
  readonly revision: number
}

/** Which replicas may be deleted. One that cannot be read allows nothing. */
export class Tombstones {
  readonly #records: Records
  readonly #ofHost: Database.Statement<[HostId], { sr: SrId; replica: ReplicaId }>
  readonly #put: Database.Statement<[SrId, ReplicaId, HostId]>
  readonly #remove: Database.Statement<[SrId, ReplicaId]>

  constructor(database: Database.Database, records: Records) {
    this.#records = records
    this.#ofHost = database.prepare('SELECT sr, replica FROM tombstones WHERE host = ? ORDER BY sr, replica')
    this.#put = database.prepare('INSERT INTO tombstones (sr, replica, host) VALUES (?, ?, ?)')
    this.#remove = database.prepare('DELETE FROM tombstones WHERE sr = ? AND replica = ?')
  }

  /** Replicas whose files a host may delete. */
  ofHost(host: HostId): CataloguedTombstone[] {
    return this.#ofHost.all(host).map(({ sr, replica }) => {
      const { key, value, revision } = this.#records.get(tombstoneKey(sr, replica))!
      return { sr, record: parseTombstoneRecord(key, value), revision }
    })
  }

  put(sr: SrId, { replica, host }: TombstoneRecord): void {
    this.#put.run(sr, replica, host)
  }

  remove(sr: SrId, replica: ReplicaId): void {
    this.#remove.run(sr, replica)
  }
}
