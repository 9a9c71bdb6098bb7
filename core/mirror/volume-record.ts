import {
  type ByteLength,
  type Epoch,
  type HostId,
  type LayerId,
  type ReplicaId,
  type StoreId,
} from '../units.ts'

/** One host's copy of a volume, as the record knows it. */
export interface ReplicaRecord {
  readonly host: HostId
  readonly replica: ReplicaId
  readonly store: StoreId
  /** True while the replica holds every acknowledged write. */
  readonly inSync: boolean
}

/** A change of a volume that takes several steps; recorded before the first, removed with the last. */
export interface Operation {
  readonly kind: 'creating' | 'deleting'
  /** Who is at it; anybody may finish or undo it once that host is known not to. */
  readonly host: HostId
  readonly id: string
}

/**
 * The record that decides who may write a volume. It changes only by compare-and-swap, and nothing else decides.
 */
export interface VolumeState {
  /** Version of this record's layout. A reader that does not know it changes nothing. */
  readonly version: 1
  /** Virtual size in bytes. */
  readonly size: ByteLength
  /** Sharable volumes are written by several hosts through one primary. */
  readonly sharable: boolean
  /** Epoch of the current primary, or of the last one. */
  readonly epoch: Epoch
  /** Highest epoch given out so far, and to whom: one number is never given twice. */
  readonly reserved: { readonly epoch: Epoch; readonly host: HostId | null; readonly operation: string }
  /** The host that may serve the volume now; null after a clean close. */
  readonly primary: HostId | null
  /** Oldest first; the last one is written. */
  readonly layers: readonly LayerId[]
  /** One mirror per stripe; each is the set of replicas that hold the same bytes. */
  readonly mirrors: readonly (readonly ReplicaRecord[])[]
  readonly operation?: Operation
}

/** What xapi sets often and what cannot disturb the right to write. */
export interface VolumeInfo {
  readonly version: 1
  readonly name: string
  readonly description: string
  /** xapi's key-value pairs (`Volume.set`). */
  readonly keys: Readonly<Record<string, string>>
}

/** True when nobody ever opened the volume, so that it is certain to hold only zeros everywhere. */
export const isPristine = (state: VolumeState): boolean =>
  state.epoch === 0 && state.reserved.epoch === 0 && state.primary === null
