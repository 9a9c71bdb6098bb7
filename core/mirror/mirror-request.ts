/** What a primary is asked, and what is to be done about it. */
import { type ByteLength, type ByteOffset, type RegionIndex, type ReplicaId } from '../units.ts'
import { type Access } from './request-order.ts'

export type RequestKind = 'read' | 'write' | 'zero' | 'trim' | 'flush' | 'lock'

/** What a guest (or the copy engine, for `lock`) asks. */
export interface RequestShape {
  readonly kind: RequestKind
  readonly offset: ByteOffset
  readonly length: ByteLength
  /** The change is durable on every in-sync replica before it is acknowledged. */
  readonly durable: boolean
}

/** One request under way. Drivers may hang their own data on it by its identity. */
export class MirrorRequest {
  readonly number: number
  readonly shape: RequestShape
  readonly offset: number
  readonly length: number
  readonly access: Access
  /** Replicas that were asked and have not answered. */
  readonly pending = new Set<ReplicaId>()
  acknowledged = false

  constructor(number: number, shape: RequestShape) {
    this.number = number
    this.shape = shape
    this.offset = shape.offset
    this.length = shape.length
    this.access = shape.kind === 'read' || shape.kind === 'lock' ? shape.kind : 'change'
  }
}

export type Effect =
  /** Send a change or a flush to a replica's open session. */
  | { readonly do: 'send'; readonly request: MirrorRequest; readonly replica: ReplicaId }
  | { readonly do: 'read'; readonly request: MirrorRequest; readonly replica: ReplicaId }
  /** Tell the client; a lock is granted. The request may still be under way on replicas nobody relies on. */
  | { readonly do: 'acknowledge'; readonly request: MirrorRequest }
  /** Tell the client that writes it had not flushed are lost: once, for a flush. */
  | { readonly do: 'fail-flush'; readonly request: MirrorRequest }
  /** Tell the client that no replica can read what it asked for. */
  | { readonly do: 'fail-read'; readonly request: MirrorRequest }
  /** No replica needs the request's data any more. */
  | { readonly do: 'finished'; readonly request: MirrorRequest }
  /** A read waits until this region is the same and durable on every in-sync replica. */
  | { readonly do: 'reconcile'; readonly region: RegionIndex }
