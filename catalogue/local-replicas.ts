import type Database from 'better-sqlite3'
import { type ReplicaId, type SrId, type StoreId, type VolumeKey } from '../core/units.ts'

/** A replica whose files are on this host. */
export interface LocalReplica {
  readonly replica: ReplicaId
  readonly sr: SrId
  readonly volume: VolumeKey
  readonly store: StoreId
}

/**
 * The replicas that this host has made. An entry is written before the files are and removed after they are gone, so
 * after any crash every file of ours has one. It is a register, not a right: files are deleted only on a tombstone.
 */
export class LocalReplicas {
  readonly #list: Database.Statement<[], LocalReplica>
  readonly #put: Database.Statement<[ReplicaId, SrId, VolumeKey, StoreId]>
  readonly #remove: Database.Statement<[ReplicaId]>

  constructor(database: Database.Database) {
    this.#list = database.prepare(
      'SELECT replica, sr, volume, store FROM local_replicas ORDER BY sr, volume, replica'
    )
    this.#put = database.prepare(
      'INSERT OR REPLACE INTO local_replicas (replica, sr, volume, store) VALUES (?, ?, ?, ?)'
    )
    this.#remove = database.prepare('DELETE FROM local_replicas WHERE replica = ?')
  }

  list(): LocalReplica[] {
    return this.#list.all()
  }

  /** Durable when it returns. */
  remember({ replica, sr, volume, store }: LocalReplica): void {
    this.#put.run(replica, sr, volume, store)
  }

  /** Durable when it returns; does nothing when there is no such entry. */
  forget(replica: ReplicaId): void {
    this.#remove.run(replica)
  }
}
