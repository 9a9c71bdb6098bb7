import { type PeerPulse } from '../../core/mirror/promise.ts'
import {
  type AcceptAnswer,
  type AcceptRequest,
  type ClearRequest,
  type ConfirmRequest,
  type EpochAnswer,
  type FinishRequest,
  type RaiseRequest,
  type ReplicaAddress,
  type SessionName,
} from '../../core/mirror/messages.ts'
import { type RegionSet } from '../../core/mirror/region-set.ts'
import { type RegionIndex, type ReplicaId, type StoreId } from '../../core/units.ts'
import { type BlockDevice } from '../block-device.ts'

/** A replica that was made. */
export interface CreatedReplica {
  readonly store: StoreId
  readonly replica: ReplicaId
}

/** An open session: the ordered stream of one primary's changes to one replica. */
export interface ReplicaSession extends BlockDevice {
  /** Settles when the session has ended, for whatever reason, with the words for the log. Never rejects. */
  readonly closed: Promise<string>
  /** Ends the session at once; calls under way reject. */
  abort(reason: string): void
}

/**
 * The replicas of one host, as a primary speaks to them: in the same process, over the network, or through the
 * simulator. Every call ends by itself, with PEER_UNREACHABLE when no answer came; it may have been carried out.
 */
export interface ReplicaPeer {
  readonly local: boolean
  accept(request: AcceptRequest): Promise<AcceptAnswer>
  confirm(request: ConfirmRequest): Promise<EpochAnswer>
  raise(request: RaiseRequest): Promise<EpochAnswer>
  /** The regions whose write intent is set. */
  intents(name: SessionName): Promise<RegionSet>
  /**
   * Digests (`block-digests.ts`) of the blocks of a region as the replica reads it now.
   * @returns null when what it reads might not become durable with a flush
   */
  digests(name: SessionName, region: RegionIndex): Promise<Uint8Array | null>
  clear(request: ClearRequest): Promise<void>
  finish(request: FinishRequest): Promise<void>
  /**
   * Makes a replica. Idempotent for one replica id.
   * @param blank false for one that takes the place of a lost one: all its intents are set, so that it is copied in full
   * @param lost the replica that it takes the place of: its files are removed if it cannot be opened any more
   * @returns the id of the store that it is in, and of the replica: another one than asked for when one was left there
   * by an attempt that came to nothing
   */
  create(address: Omit<ReplicaAddress, 'store'>, blank: boolean, lost: ReplicaId): Promise<CreatedReplica>
  /** Opens a session. Resolves when every earlier session has ended and its I/O with it. */
  openSession(name: SessionName): Promise<ReplicaSession>
  /** What the heartbeats to this peer say. */
  readonly pulse: PeerPulse
  /** Calls the listener after each answered heartbeat. @returns the way to stop it */
  onPulse(listener: () => void): () => void
}
