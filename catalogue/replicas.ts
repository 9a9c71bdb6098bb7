import type Database from 'better-sqlite3'
import { type VolumeState } from '../core/mirror/volume-record.ts'
import { type HostId, type ReplicaId, type SrId, type StoreId, type VolumeKey } from '../core/units.ts'

/** A replica that a volume's record names. */
export interface CataloguedReplica {
  readonly sr: SrId
  readonly volume: VolumeKey
  readonly replica: ReplicaId
  readonly host: HostId
  readonly store: StoreId
  readonly inSync: boolean
}

type ReplicaRow = Omit<CataloguedReplica, 'inSync'> & { readonly inSync: number }

const replicaOf = (row: ReplicaRow): CataloguedReplica => ({ ...row, inSync: row.inSync !== 0 })

/** Which replicas the records place on which host. */
export class Replicas {
  readonly #onHost: Database.Statement<[HostId], ReplicaRow>
  readonly #staleBesideOneOn: Database.Statement<[HostId], ReplicaRow>
  readonly #put: Database.Statement<[SrId, VolumeKey, ReplicaId, HostId, StoreId, number]>
  readonly #remove: Database.Statement<[SrId, VolumeKey]>

  constructor(database: Database.Database) {
    this.#onHost = database.prepare(
      `SELECT sr, volume, replica, host, store, in_sync AS inSync FROM replicas
       WHERE host = ? ORDER BY sr, volume, replica`
    )
    this.#staleBesideOneOn = database.prepare(
      `SELECT sr, volume, replica, host, store, in_sync AS inSync FROM replicas
       WHERE in_sync = 0
         AND EXISTS (SELECT 1 FROM volumes
                     WHERE volumes.sr = replicas.sr AND volumes.volume = replicas.volume
                       AND volumes.primary_host IS NULL)
         AND EXISTS (SELECT 1 FROM replicas AS own
                     WHERE own.sr = replicas.sr AND own.volume = replicas.volume
                       AND own.host = ? AND own.in_sync = 1)
       ORDER BY sr, volume, replica`
    )
    this.#put = database.prepare(
      'INSERT INTO replicas (sr, volume, replica, host, store, in_sync) VALUES (?, ?, ?, ?, ?, ?)'
    )
    this.#remove = database.prepare('DELETE FROM replicas WHERE sr = ? AND volume = ?')
  }

  /** Replicas that the records place on a host. Volumes that cannot be read are missing here. */
  onHost(host: HostId): CataloguedReplica[] {
    return this.#onHost.all(host).map(replicaOf)
  }

  /**
   * Replicas that are not in-sync, of closed volumes of which a host has one that is: what that host could bring up to
   * date. Volumes that cannot be read are missing here.
   */
  staleBesideOneOn(host: HostId): CataloguedReplica[] {
    return this.#staleBesideOneOn.all(host).map(replicaOf)
  }

  put(sr: SrId, volume: VolumeKey, state: VolumeState): void {
    for (const { replica, host, store, inSync } of state.mirrors.flat()) {
      this.#put.run(sr, volume, replica, host, store, inSync ? 1 : 0)
    }
  }

  remove(sr: SrId, volume: VolumeKey): void {
    this.#remove.run(sr, volume)
  }
}
