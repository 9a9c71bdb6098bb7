/**
 * Carries the guest's requests: hands them to the state, does what it decides, and tells the client what came of it.
 */
import { hasCode, XosanError } from '../../core/errors.ts'
import { type Effect, type MirrorRequest, type RequestShape } from '../../core/mirror/mirror-request.ts'
import { type ByteLength, type ByteOffset, type RegionIndex } from '../../core/units.ts'
import { type MirrorContext } from './mirror-context.ts'
import { type ReplicaLink } from './replica-link.ts'
import { type ReplicaSession } from './replica-peer.ts'

/** What requests other than reads result in. */
const NOTHING = new Uint8Array()

/** What the guest did so long ago says that it is still at it, in milliseconds. */
const JUST_NOW_MS = 20

type CarriedShape = RequestShape & { readonly keepAllocated?: boolean }

interface Carried {
  readonly shape: CarriedShape
  /** Bytes to write, or the buffer to fill. */
  data: Uint8Array | null
  /** A read was sent, and has the buffer. */
  sent: boolean
  readonly resolve: (data: Uint8Array) => void
  /** Null for a lock, which never fails. */
  readonly reject: ((error: Error) => void) | null
}

/** What becomes of a request that waits for more than an answer. */
export interface CarrierOwner {
  /** A read waits for a region to be reconciled. */
  hurry(region: RegionIndex): void
  /** A replica has refused something, or another one has done what it refused. */
  weighRefusals(): void
}

export class RequestCarrier {
  readonly #context: MirrorContext
  readonly #owner: CarrierOwner
  readonly #carried = new Map<MirrorRequest, Carried>()
  #guestRequests = 0
  #draining = false
  /** When the guest last read at once. */
  #readAtOnceAt = -Infinity

  constructor(context: MirrorContext, owner: CarrierOwner) {
    this.#context = context
    this.#owner = owner
  }

  /** True while the guest waits for an answer, or has just got one without a wait. */
  get guestBusy(): boolean {
    return this.#guestRequests > 0 || this.#context.options.clock.now() - this.#readAtOnceAt < JUST_NOW_MS
  }

  /** Nobody else can have the volume at this moment. */
  get promisesHold(): boolean {
    const { state, options } = this.#context
    return state.promisesHold(options.clock.now())
  }

  /** Reads; waits while it cannot go on. @returns the bytes, as a BlockDevice does: in the buffer or in another one */
  async read(offset: ByteOffset, into: Uint8Array): Promise<Uint8Array> {
    if (into.length === 0) return into
    return this.#submit({ kind: 'read', offset, length: into.length as ByteLength, durable: false }, into)
  }

  /** Reads if nothing has to be waited for, as `BlockDevice.readAtOnce`. */
  readAtOnce(offset: ByteOffset, into: Uint8Array): boolean {
    const { state, links, options } = this.#context
    const replica = state.readableAtOnce(offset, into.length as ByteLength)
    if (replica === null || links.get(replica)?.session?.readAtOnce?.(offset, into) !== true) return false
    // Asked after the read: before it, the process may have been stopped for any time.
    const now = options.clock.now()
    this.#readAtOnceAt = now
    return state.promisesHold(now)
  }

  /** @param data the bytes of a write, which must not change before it is acknowledged */
  async change(
    kind: 'write' | 'zero' | 'trim',
    change: { offset: ByteOffset; length: ByteLength; durable: boolean; keepAllocated?: boolean },
    data: Uint8Array | null
  ): Promise<void> {
    if (change.length > 0) await this.#submit({ kind, ...change }, data)
  }

  /** @throws WRITES_LOST, once, when every host that held un-flushed writes lost power */
  async flush(): Promise<void> {
    const nowhere = { offset: 0 as ByteOffset, length: 0 as ByteLength }
    await this.#submit({ kind: 'flush', ...nowhere, durable: true }, null)
  }

  /** @returns the buffer that was read into */
  async #submit(shape: CarriedShape, data: Uint8Array | null): Promise<Uint8Array> {
    const { state, clearing } = this.#context
    return new Promise((resolve, reject) => {
      this.#guestRequests++
      const request = state.submit(shape)
      // The client may use its buffer again once it is answered, while a replica that nobody waits for still needs
      // the bytes.
      const lasting =
        data !== null && shape.kind === 'write' && this.#anyUnawaited() ? Uint8Array.from(data) : data
      this.#carried.set(request, { shape, data: lasting, sent: false, resolve, reject })
      if (request.access === 'change' && shape.kind !== 'flush') clearing.written(shape.offset, shape.length)
      this.drain()
    })
  }

  /** Keeps changes away from a range. Resolves with the way to let them in again. */
  async lock(offset: ByteOffset, length: ByteLength): Promise<() => void> {
    return new Promise(resolve => {
      const shape = { kind: 'lock', offset, length, durable: false } as const
      const request = this.#context.state.submit(shape)
      const unlock = (): void => {
        this.#context.state.unlock(request)
        this.drain()
        this.#context.changed.notify()
      }
      const granted = (): void => resolve(unlock)
      const carried = { shape, data: null, sent: false, resolve: granted, reject: null }
      this.#carried.set(request, carried)
      this.drain()
    })
  }

  /** Does everything that the state has decided. */
  drain(): void {
    // What is done below may decide more; the loop takes it up in order.
    if (this.#draining) return
    this.#draining = true
    const { state, options } = this.#context
    const take = (): Effect[] => state.takeEffects(options.clock.now())
    for (let effects = take(); effects.length > 0; effects = take()) {
      for (const effect of effects) {
        switch (effect.do) {
          case 'send':
          case 'read':
            this.#ask(effect)
            break
          case 'acknowledge':
            this.#answer(effect.request, null)
            break
          case 'fail-flush':
            this.#answer(
              effect.request,
              new XosanError('WRITES_LOST', { volume: this.#context.options.volume })
            )
            this.#carried.delete(effect.request)
            break
          case 'fail-read':
            this.#answer(effect.request, unreadable(effect.request))
            this.#carried.delete(effect.request)
            break
          case 'finished':
            this.#carried.delete(effect.request)
            break
          case 'reconcile':
            this.#owner.hurry(effect.region)
            break
        }
      }
    }
    this.#draining = false
  }

  #anyUnawaited(): boolean {
    for (const link of this.#context.links.values()) if (link.rebuilding || link.promoted) return true
    return false
  }

  #answer(request: MirrorRequest, error: XosanError | null): void {
    const carried = this.#carried.get(request)!
    if (request.shape.kind !== 'lock') this.#guestRequests--
    if (error === null) carried.resolve(carried.data ?? NOTHING)
    else carried.reject?.(error)
  }

  /** Sends a request, or what has become of it, to a replica. */
  #ask({ do: what, request, replica }: Effect & { do: 'send' | 'read' }): void {
    const link = this.#context.links.get(replica)
    const session = link?.session
    // Without a session nobody is asked: with the next one the state says all of it again.
    if (link === undefined || session == null) return
    const carried = this.#carried.get(request)!
    const done = what === 'read' ? this.#read(carried, session) : this.#send(carried, link, session)
    done.then(
      () => this.#answered(request, link, session, null),
      (error: unknown) => this.#answered(request, link, session, error)
    )
  }

  #send({ shape, data }: Carried, link: ReplicaLink, session: ReplicaSession): Promise<void> {
    const { kind, offset, length, durable, keepAllocated = false } = shape
    if (kind === 'flush') return session.flush()
    const range = { offset, durable, sequence: link.nextSequence() }
    if (kind === 'write') return session.write({ ...range, data: data! })
    if (kind === 'zero') return session.zero({ ...range, length, keepAllocated })
    return session.trim({ ...range, length })
  }

  #read(carried: Carried, session: ReplicaSession): Promise<Uint8Array> {
    // One that was sent before and is tried again may have been given up: a call to a disk that hangs keeps its buffer,
    // and fills it when the client, or whoever has it next, believes in what it holds.
    if (carried.sent) carried.data = Buffer.allocUnsafe(carried.data!.length)
    carried.sent = true
    return session.read(carried.shape.offset, carried.data!)
  }

  /** @param error null when the replica has done it */
  #answered(request: MirrorRequest, link: ReplicaLink, session: ReplicaSession, error: unknown): void {
    // An answer of a session that is over says nothing any more: the request was sent again.
    if (link.session !== session) return
    const { state, changed, options } = this.#context
    const { replica } = link.record
    if (error === null) {
      state.answered(request, replica, options.clock.now())
      if (state.refusedCount > 0) this.#owner.weighRefusals()
    } else if (isRefusal(error) && request.shape.kind !== 'flush' && this.#context.mustAcknowledge(link)) {
      // Of the request alone: a replica that has failed as a whole ends its session.
      link.refusal = error
      state.refused(request, replica, options.clock.now())
      this.#owner.weighRefusals()
    } else {
      link.reject(session, error)
      return
    }
    this.drain()
    changed.notify()
  }
}

/** A disk that is full, or that fails in this one place. */
const isRefusal = (error: unknown): error is XosanError =>
  hasCode(error, 'NO_SPACE') || hasCode(error, 'DISK_FAILED')

const unreadable = ({ offset, length }: MirrorRequest): XosanError =>
  new XosanError('UNREADABLE', { offset, end: offset + length })
