/** What the SMAPIv3 calls need of this host, of the other hosts and of what all agree on. Wired in `daemon/`. */
import { type VolumeInfo, type VolumeState } from '../core/mirror/volume-record.ts'
import { type Clock } from '../core/ports/clock.ts'
import { type Coordinator } from '../core/ports/coordinator.ts'
import { type Random } from '../core/ports/random.ts'
import { type HostId, type ReplicaId, type SrId, type StoreId, type VolumeKey } from '../core/units.ts'
import { type HostRecord, type SrRecord, type StoreRecord, type TombstoneRecord } from '../cluster/records.ts'
import { type DatapathMethod, type DatapathParams, type DatapathResult } from '../rpc/datapath-api.ts'
import { type PeerMethod, type PeerParams, type PeerResult } from '../rpc/peer-api.ts'
import { type Operations } from './operations.ts'
import { type References } from './references.ts'
import { type Deadline } from './deadline.ts'
import { type KeyedQueue } from './keyed-queue.ts'

export interface StoredVolume {
  readonly sr: SrId
  readonly key: VolumeKey
  readonly state: VolumeState
  readonly info: VolumeInfo
}

/** A replica that is not in-sync, by its volume and its host. */
export interface StaleReplica {
  readonly sr: SrId
  readonly key: VolumeKey
  readonly host: HostId
}

/**
 * The copy of all metadata that this host keeps. It may lag behind the coordinator by some milliseconds; a method
 * throws RECORD_INVALID rather than leave out a record that cannot be read.
 */
export interface Metadata {
  volume(sr: SrId, key: VolumeKey): StoredVolume | null
  volumes(sr: SrId): readonly StoredVolume[]
  /**
   * What is made of each volume, without holding all of them in memory; those for which it is null are left out.
   * @param make must not change the copy
   */
  mapVolumes<Result>(sr: SrId, make: (volume: StoredVolume) => Result | null): readonly Result[]
  /** With those whose record cannot be read. */
  countVolumes(sr: SrId): number
  /**
   * Replicas that are not in-sync, of closed volumes of which a host has one that is. Those whose record cannot be
   * read are left out.
   */
  staleReplicas(besideOneOn: HostId): readonly StaleReplica[]
  /** Volumes in the middle of an operation. Those whose record cannot be read are left out. */
  halfDoneVolumes(): readonly { readonly sr: SrId; readonly key: VolumeKey }[]
  sr(sr: SrId): SrRecord | null
  srs(): readonly SrRecord[]
  /** SRs in the middle of an operation. Those whose record cannot be read are left out. */
  halfDoneSrs(): readonly SrRecord[]
  hosts(): readonly HostRecord[]
  stores(sr: SrId): readonly StoreRecord[]
  tombstones(host: HostId): readonly { readonly sr: SrId; readonly record: TombstoneRecord }[]
  /** The coordinator's revision up to which the copy is complete. */
  readonly reached: number
  /** Waits until it is complete up to a revision. @throws XosanError DEADLINE_EXCEEDED, COORDINATOR_UNAVAILABLE */
  waitFor(revision: number, deadlineMs: number): Promise<void>
  /** Waits until it holds everything that had been agreed on when it was called. @throws as `waitFor` */
  synchronise(deadlineMs: number): Promise<void>
}

/** One host, this one or another. All calls end with DEADLINE_EXCEEDED or PEER_UNREACHABLE at the latest. */
export interface HostAgent {
  /** Calls xosand of that host. */
  peer<M extends PeerMethod>(method: M, params: PeerParams<M>, deadlineMs: number): Promise<PeerResult<M>>
  /** Calls the datapath process of that host which owns the volume. */
  replica<M extends ReplicaMethod>(
    method: M,
    params: DatapathParams<M>,
    deadlineMs: number
  ): Promise<DatapathResult<M>>
}

export type ReplicaMethod = Extract<DatapathMethod, `replica.${string}`>
export type VolumeMethod = Extract<DatapathMethod, `volume.${string}`>

/** The datapath processes of this host; a volume's key selects the one that is asked. */
export interface LocalDatapath {
  call<M extends VolumeMethod | ReplicaMethod>(
    method: M,
    params: DatapathParams<M>,
    deadlineMs: number
  ): Promise<DatapathResult<M>>
}

/** Space that volumes take, as last measured; measuring goes on in the background. */
export interface Usage {
  /** Bytes, 0 when not yet measured. */
  physicalBytes(volume: StoredVolume): number
}

/** The stores on this host. */
export interface LocalStores {
  /**
   * Makes sure that the store of an SR is mounted and known to the datapath processes.
   *
   * @throws XosanError STORE_MISSING when its id is not found
   */
  ensure(record: StoreRecord, sr: SrId): Promise<void>
  /** The id of the store of an SR that lies below a directory (null: the default one); null when there is none. */
  idAt(sr: SrId, path: string | null): Promise<StoreId | null>
  space(sr: SrId, store: StoreId): Promise<{ readonly total: number; readonly free: number }>
}

/** What the hosts need before there can be an SR: to know each other, and a coordinator. */
export interface ClusterFormation {
  /** Whether this host can speak to others. */
  readonly entered: boolean
  /** Whether this host is in the cluster of an SR. */
  serves(sr: SrId): boolean
  /**
   * Makes the hosts of the pool the cluster of an SR.
   *
   * @returns null when they are already; else what takes it back, and what waits until the coordinator has all members
   *   that it shall have
   * @throws XosanError HOST_IN_ANOTHER_SR, VERSION_DIFFERENT, CLOCKS_DIFFER, PEER_UNREACHABLE; nothing is left then
   */
  form(sr: SrId, deadline: Deadline): Promise<{ undo(): Promise<void>; complete(): Promise<void> } | null>
  /**
   * Makes this host, which is in no cluster, a member of that of an SR.
   * @throws XosanError SR_NOT_FOUND when no host of the pool that answers is in it
   */
  joinExisting(sr: SrId, deadline: Deadline): Promise<void>
  /** Ends the cluster of an SR that is no more. Every host starts anew for that. */
  dissolve(sr: SrId): Promise<void>
}

export interface VolumeContext {
  readonly host: HostId
  /** Directory that keeps stores when the device-config names no `path`. */
  readonly defaultPath: string
  readonly version: string
  readonly cluster: ClusterFormation
  readonly coordinator: Coordinator
  readonly metadata: Metadata
  /** @throws XosanError PEER_UNREACHABLE when no host of that id is known */
  agent(host: HostId): HostAgent
  readonly datapath: LocalDatapath
  readonly stores: LocalStores
  readonly usage: Usage
  readonly references: References
  /** Orders the datapath calls of one volume on this host. */
  readonly datapathQueue: KeyedQueue<VolumeKey>
  readonly operations: Operations
  /** Replicas being made by this process: tombstones of theirs are not yet to be carried out. */
  readonly replicasInTheMaking: Set<ReplicaId>
  readonly clock: Clock
  readonly random: Random
  /** Tells the operator of something that did not fail the call. */
  warn(message: string, facts?: Readonly<Record<string, string | number | boolean>>): void
}

/** Waits until this host knows everything that had been agreed on when it was called. */
export async function catchUp(context: VolumeContext, deadline: Deadline): Promise<void> {
  await deadline.race(context.metadata.synchronise(deadline.remainingMs()))
}

/**
 * Waits, for a moment only, until this host knows a change that it has just made, so that the caller's next question
 * sees it. The change is made in any case.
 */
export async function settle(context: VolumeContext, deadline: Deadline): Promise<void> {
  try {
    await context.metadata.synchronise(deadline.remainingMs(2000))
  } catch {
    // The coordinator went away just after, or the time is over.
  }
}
