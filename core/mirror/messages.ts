/**
 * What a primary and a replica say to each other beside the reads and writes themselves. Between hosts these
 * travel as JSON-RPC between datapath processes; within one process as calls; in the simulator as its messages.
 * `docs/internals/mirror-protocol.md` tells the whole conversation.
 */
import {
  type BootId,
  type ByteLength,
  type Epoch,
  type HostId,
  type Incarnation,
  type LayerId,
  type Millis,
  type ReplicaId,
  type Sequence,
  type SessionNumber,
  type SrId,
  type StoreId,
  type VolumeKey,
} from '../units.ts'

/** Which process of which boot of a host speaks; part of every answer. */
export interface ProcessIdentity {
  readonly host: HostId
  readonly boot: BootId
  readonly incarnation: Incarnation
}

/** Names one replica so exactly that another copy in its place is noticed. */
export interface ReplicaAddress {
  readonly sr: SrId
  readonly volume: VolumeKey
  readonly replica: ReplicaId
  readonly store: StoreId
  readonly layers: readonly LayerId[]
  /** Virtual size in bytes; a replica that is smaller grows when it is opened. */
  readonly size: ByteLength
}

/** Why a volume is open: a guest's activation may supersede maintenance at once. */
export type Purpose = 'guest' | 'maintenance'

/** Asks a replica never again to serve an epoch below this one. */
export interface AcceptRequest {
  readonly address: ReplicaAddress
  readonly epoch: Epoch
  readonly asker: ProcessIdentity
  readonly purpose: Purpose
  /** Whether the record counts this replica as in-sync; else it is opened to be rebuilt. */
  readonly inSync: boolean
  /**
   * Promises for epochs up to this one are void: the record says that the volume was closed at it, or that its
   * primary was an earlier process of the asker's own host.
   */
  readonly voidUpTo: Epoch
}

export type AcceptAnswer =
  | {
      readonly kind: 'accepted'
      readonly identity: ProcessIdentity
      /**
       * The epoch at which it may have lost un-flushed writes (the host booted, or a sync failed), while it was not
       * reconciled since; null when it has lost nothing. Of two that have lost, the one that did so at the lower
       * epoch holds what was written under the higher one.
       */
      readonly lostAt: Epoch | null
    }
  | {
      /** It owes a promise to a live primary. */
      readonly kind: 'promised'
      readonly identity: ProcessIdentity
      readonly holder: HostId | null
      readonly epoch: Epoch
      /** Time until the promise ends if nothing more is heard, in milliseconds. */
      readonly remainingMs: Millis
    }
  /** It is about to accept, which takes longer than an answer may. Whoever asks again joins what is under way. */
  | { readonly kind: 'preparing'; readonly identity: ProcessIdentity; readonly reason: string }
  | { readonly kind: 'higher-epoch'; readonly identity: ProcessIdentity; readonly epoch: Epoch }
  /** No such replica here: id, store or stored epoch missing or different. */
  | { readonly kind: 'gone'; readonly identity: ProcessIdentity; readonly reason: string }
  /** Its disk fails. */
  | { readonly kind: 'failed'; readonly identity: ProcessIdentity; readonly reason: string }

/** Tells a replica that the record now names the asker at this epoch; from here a promise is owed. */
export interface ConfirmRequest {
  readonly address: ReplicaAddress
  readonly epoch: Epoch
  readonly asker: ProcessIdentity
  readonly purpose: Purpose
}

/** Raises the epoch of the holder's own open sessions after a change of membership, without closing them. */
export interface RaiseRequest {
  readonly address: ReplicaAddress
  readonly from: Epoch
  readonly to: Epoch
  readonly asker: ProcessIdentity
  /** As the record has it at the new epoch. */
  readonly inSync: boolean
}

export type EpochAnswer =
  | {
      readonly kind: 'ok'
      readonly identity: ProcessIdentity
      /** How often this process has taken an epoch away from the asker; see HeartbeatAnswer. */
      readonly takenAway: number
      /** As in AcceptAnswer. One that the asker does not know of is a loss under its own eyes. */
      readonly lostAt: Epoch | null
    }
  | { readonly kind: 'refused'; readonly identity: ProcessIdentity; readonly accepted: Epoch }
  | { readonly kind: 'gone'; readonly identity: ProcessIdentity; readonly reason: string }
  | { readonly kind: 'failed'; readonly identity: ProcessIdentity; readonly reason: string }

/** Names one ordered stream of changes from one primary to one replica. */
export interface SessionName {
  readonly address: ReplicaAddress
  readonly epoch: Epoch
  readonly session: SessionNumber
}

/** Between two datapath processes, not per volume. */
export interface Heartbeat {
  readonly from: ProcessIdentity
  /** `answer` of the last answer that `from` has received; 0 before the first. */
  readonly echo: number
}

export interface HeartbeatAnswer {
  readonly identity: ProcessIdentity
  /** Number of this answer, rising. */
  readonly answer: number
  /** False when the echo was missing or old: then no promise was renewed. */
  readonly renewed: boolean
  /** Rises each time this process has accepted an epoch away from the asker. */
  readonly takenAway: number
}

/** Tells a replica which write intents need not be kept, in order with the session's changes. */
export interface ClearRequest {
  readonly name: SessionName
  /** Changes of this session up to this number are flushed; a region changed by a later one keeps its bit. */
  readonly upTo: Sequence
  /** Sorted ranges of regions, the end not included. */
  readonly regions: readonly { readonly first: number; readonly end: number }[]
  /** Every region is the same everywhere and durable: what a power cut has lost here no longer matters. */
  readonly reconciled: boolean
}

/** Last word of a primary that closes the volume: everything is flushed. */
export interface FinishRequest {
  readonly name: SessionName
  readonly asker: ProcessIdentity
  /** All intents may be cleared: every configured replica holds the same bytes, durably. */
  readonly clearIntents: boolean
}
