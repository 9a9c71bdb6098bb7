/**
 * The replication brain of one volume on its primary: what happens to each request of the guest.
 *
 * Events come in as calls; what is to be done comes out of `takeEffects`. The situation in one paragraph: a change
 * goes to every connected replica at once and is acknowledged when every replica that the record counts as
 * in-sync has answered. A replica that fails holds the changes it has not answered until it is connected again
 * (then it gets them again) or the record says that it is not in-sync (then nobody waits for it). A read goes to one
 * in-sync replica. Both are told to the client only while every other in-sync replica owes this primary a promise,
 * because then no other host can have the volume: a read may be old otherwise, and a change one of two writers'.
 * Whatever cannot go on now is held, never failed.
 */
import {
  type ByteLength,
  type ByteOffset,
  type Epoch,
  type Millis,
  type RegionIndex,
  type ReplicaId,
} from '../units.ts'
import { endRegion, firstRegion } from '../units.ts'
import { ACKNOWLEDGEMENT, type Standing } from './acknowledgement.ts'
import { type Effect, MirrorRequest, type RequestShape } from './mirror-request.ts'
import { type Refusal, Refusals } from './refusals.ts'
import { type RegionSet } from './region-set.ts'
import { RequestOrder } from './request-order.ts'

/** How the primary stands to one replica. */
interface Link {
  readonly replica: ReplicaId
  readonly local: boolean
  standing: Standing
  mayBeRead: boolean
  /** A session is open. */
  connected: boolean
  promiseUntil: Millis
}

export interface LinkStanding {
  readonly replica: ReplicaId
  /** `in-sync` when the record counts it so in either version while a change of it is unsettled. */
  readonly standing: Standing
  /** In-sync in both versions, and not merely about to become so. */
  readonly mayBeRead: boolean
}

export class MirrorState {
  readonly #links = new Map<ReplicaId, Link>()
  readonly #order = new RequestOrder<MirrorRequest>()
  /** Started and not finished, by number. */
  readonly #running = new Map<number, MirrorRequest>()
  /** Changes that everybody who counts had answered when they were put here. */
  readonly #answered = new Set<MirrorRequest>()
  /** Requests that may run as far as the order goes but must wait for something else. */
  #held: MirrorRequest[] = []
  #effects: Effect[] = []
  /** Changes stay with the replica that refused them; reads are put aside, and ordered anew when they are tried again. */
  readonly #refusals = new Refusals<MirrorRequest>()
  #serving = false
  #lastNumber = 0
  #unreconciled: RegionSet | null = null
  /** Number of the last request when the last acknowledged change that may be un-flushed was acknowledged. */
  #lastUnflushed = 0
  /** Every change acknowledged at a number up to this one is durable. */
  #flushedUpTo = 0
  /** No change that is not flushed was acknowledged under an epoch below this one. */
  #unflushedSince = 0 as Epoch
  #flushMustFail = false
  #onlyDurable = false

  /** What is to be done, in order; empty afterwards. To be called after every event. */
  takeEffects(now: Millis): Effect[] {
    this.#acknowledgeAnswered(now)
    const effects = this.#effects
    if (effects.length > 0) this.#effects = []
    return effects
  }

  /** How many requests are under way on replicas. */
  get runningCount(): number {
    return this.#running.size
  }

  /** How many requests wait for something other than a replica's answer. */
  get heldCount(): number {
    return this.#held.length
  }

  /** How many changes everybody has answered who counts, and only a promise keeps from being acknowledged. */
  get withheldCount(): number {
    return this.#answered.size
  }

  /** How many requests some replica has refused and is asked for again. */
  get refusedCount(): number {
    return this.#refusals.count
  }

  /** What a replica has refused, or all of them have. */
  refusals(replica?: ReplicaId): Refusal<MirrorRequest>[] {
    return replica === undefined ? this.#refusals.all() : this.#refusals.of(replica)
  }

  /** Whether a read was refused and nobody is asked for it now. */
  isAside(request: MirrorRequest): boolean {
    return this.#refusals.isAside(request)
  }

  get serving(): boolean {
    return this.#serving
  }

  /** Whether an acknowledged change may not be durable everywhere. */
  get unflushed(): boolean {
    return this.#lastUnflushed > this.#flushedUpTo
  }

  // -- links ----------------------------------------------------------------------------------------------------

  /** Adds a replica, stale until the standings say otherwise; again when the volume was opened again. */
  addLink(replica: ReplicaId, local: boolean): void {
    const promiseUntil = (local ? Number.POSITIVE_INFINITY : -1) as Millis
    const link = { standing: 'stale', mayBeRead: false, connected: false } as const
    this.#links.set(replica, { replica, local, promiseUntil, ...link })
    // What it answered before the volume was opened again it may have lost with its host's power since.
    for (const request of this.#running.values()) {
      if (request.access === 'change' && !request.acknowledged) request.pending.add(replica)
    }
  }

  /** Forgets all links but these: the record may name others since the volume was last opened. */
  keepLinks(replicas: ReadonlySet<ReplicaId>): void {
    for (const replica of [...this.#links.keys()]) if (!replicas.has(replica)) this.removeLink(replica)
  }

  removeLink(replica: ReplicaId): void {
    this.setStandings([{ replica, standing: 'stale', mayBeRead: false }])
    this.#links.delete(replica)
  }

  /**
   * Says how the record counts the replicas. All at once: between two of them a change could look acknowledged that
   * is not.
   */
  setStandings(standings: readonly LinkStanding[]): void {
    for (const { replica, standing, mayBeRead } of standings) {
      const link = this.#link(replica)
      link.standing = standing
      link.mayBeRead = mayBeRead
      if (standing === 'stale') this.#waitNoMoreFor(replica)
    }
    for (const request of [...this.#running.values()]) this.#settle(request)
    this.#retryHeld()
  }

  /** A session to the replica is open: it gets what it has not answered again, in order. */
  connected(replica: ReplicaId): void {
    const link = this.#link(replica)
    link.connected = true
    for (const request of this.#running.values()) {
      if (request.access === 'change' && request.pending.has(replica))
        this.#effects.push({ do: 'send', request, replica })
    }
    this.#retryHeld()
  }

  /** The session to the replica is lost: what it has not answered is open, on every count. */
  disconnected(replica: ReplicaId): void {
    const link = this.#link(replica)
    link.connected = false
    for (const request of [...this.#running.values()]) {
      if (!request.pending.has(replica)) continue
      // With the next session it is asked anew.
      this.#refusals.delete(request, replica)
      if (request.access === 'read' || ACKNOWLEDGEMENT[link.standing].failed !== 'take out') {
        this.#release(request, replica)
        this.#settle(request)
      }
    }
    this.#retryHeld()
  }

  /** The replica owes a promise until this moment. */
  promised(replica: ReplicaId, until: Millis): void {
    const link = this.#links.get(replica)
    if (link === undefined || link.local || until <= link.promiseUntil) return
    link.promiseUntil = until
    this.#retryHeld()
  }

  /** Whether every other in-sync replica owes this primary a promise now, so that what it reads is the latest. */
  promisesHold(now: Millis): boolean {
    for (const link of this.#links.values()) {
      if (link.standing === 'in-sync' && now >= link.promiseUntil) return false
    }
    return true
  }

  /** Whether one replica owes this primary a promise now, or is not asked for one. */
  promiseHolds(replica: ReplicaId, now: Millis): boolean {
    const link = this.#link(replica)
    return link.standing !== 'in-sync' || now < link.promiseUntil
  }

  /** Whether a replica has answered everything that was sent to it up to a request number. */
  caughtUp(replica: ReplicaId, upTo: number): boolean {
    for (const request of this.#running.values()) {
      if (request.number <= upTo && request.pending.has(replica)) return false
    }
    return true
  }

  /** Whether a change of a range is under way or waiting. */
  changing(offset: number, length: number): boolean {
    return this.#order.changing(offset, length)
  }

  get lastNumber(): number {
    return this.#lastNumber
  }

  // -- serving ----------------------------------------------------------------------------------------------------

  /** From here requests run. @param unreconciled regions that may differ between replicas; kept and emptied */
  serve(unreconciled: RegionSet): void {
    this.#serving = true
    this.#unreconciled = unreconciled
    this.#retryHeld()
  }

  /** From here new requests are held; those under way go on. */
  hold(): void {
    this.#serving = false
  }

  /** A region is the same and durable on every in-sync replica. */
  reconciled(region: RegionIndex): void {
    if (this.#unreconciled?.delete(region) === true) this.#retryHeld()
  }

  /**
   * While true, no change is acknowledged that may not be durable: what was acknowledged before can then be made
   * durable once and for all.
   */
  acknowledgeOnlyDurable(only: boolean): void {
    this.#onlyDurable = only
    if (!only) for (const request of [...this.#running.values()]) this.#settle(request)
  }

  /** The guest may have had changes acknowledged that are not known here. */
  assumeUnflushed(): void {
    this.#lastUnflushed = this.#lastNumber + 1
  }

  /**
   * The volume was opened. If every replica that was found lost changes that were acknowledged and not flushed, the next
   * flush says so, or one that is under way.
   * @param losses for each replica the epoch at which it lost un-flushed changes; null for one that did not. What came under
   * later epochs it has
   */
  opened(epoch: Epoch, losses: readonly (Epoch | null)[]): void {
    if (!this.unflushed) {
      this.#unflushedSince = epoch
      return
    }
    if (!losses.every(at => at !== null && at >= this.#unflushedSince)) return
    this.#flushMustFail = true
    for (const request of [...this.#running.values()]) {
      if (request.shape.kind !== 'flush' || request.acknowledged) continue
      request.pending.clear()
      this.#hold(request)
    }
  }

  // -- requests ---------------------------------------------------------------------------------------------------

  submit(shape: RequestShape): MirrorRequest {
    const request = new MirrorRequest(++this.#lastNumber, shape)
    if (shape.kind === 'flush') this.#start(request)
    else if (this.#order.submit(request)) this.#start(request)
    return request
  }

  /**
   * Who may be asked for a read at once, without taking it for a request: the local replica, if nothing that the read would
   * have to wait for is there now. What it returns may be told if `promisesHold` then.
   */
  readableAtOnce(offset: ByteOffset, length: ByteLength): ReplicaId | null {
    if (!this.#serving || this.#order.changing(offset, length)) return null
    const end = endRegion(offset, length)
    for (let region = firstRegion(offset); region < end; region++) {
      if (this.#unreconciled?.has(region) === true) return null
    }
    const source = this.#readSource()
    return source?.local === true ? source.replica : null
  }

  /** A replica has done its part of a change, a flush or a read. */
  answered(request: MirrorRequest, replica: ReplicaId, now: Millis): void {
    if (!request.pending.delete(replica)) return
    if (request.access === 'read') this.#refusals.forget(request)
    else this.#refusals.delete(request, replica)
    if (request.access === 'change') {
      this.#settle(request)
    } else if (this.promisesHold(now) && this.#serving) {
      this.#effects.push({ do: 'acknowledge', request })
      this.#finish(request)
    } else {
      // The bytes may be old: another host may have taken the volume while this one was not looking.
      this.#hold(request)
    }
  }

  /** A replica cannot do its part of a read or a change, because its disk is full or fails. */
  refused(request: MirrorRequest, replica: ReplicaId, now: Millis): void {
    if (!request.pending.has(replica)) return
    this.#refusals.add(request, replica, now)
    if (request.access !== 'read') return
    // A write to the same place, which may mend what cannot be read, need not wait for it.
    request.pending.delete(replica)
    this.#running.delete(request.number)
    this.#refusals.putAside(request)
    for (const next of this.#order.finish(request)) this.#start(next)
  }

  /**
   * Asks again for what was refused. A disk may hang meanwhile: whoever has not answered is not asked once more, for of two
   * changes that it makes the second could come after what the first let follow.
   */
  retryRefused(): void {
    for (const request of this.#refusals.takeAside()) if (this.#order.submit(request)) this.#start(request)
    for (const { request, replica } of this.#refusals.all()) {
      const isSent = request.access === 'change' && this.#link(replica).connected
      if (!isSent || !request.pending.has(replica) || !this.#refusals.askAgain(request, replica)) continue
      this.#effects.push({ do: 'send', request, replica })
    }
  }

  /** Ends a read that nobody can do, while it is put aside: the client is told so. */
  failRead(request: MirrorRequest): void {
    this.#refusals.forget(request)
    this.#effects.push({ do: 'fail-read', request })
  }

  /** Ends a lock that was granted. */
  unlock(request: MirrorRequest): void {
    this.#finish(request)
  }

  #start(request: MirrorRequest): void {
    const { shape } = request
    if (shape.kind === 'lock') {
      this.#running.set(request.number, request)
      this.#effects.push({ do: 'acknowledge', request })
      return
    }
    if (!this.#serving) {
      this.#held.push(request)
      return
    }
    if (shape.kind === 'read') this.#startRead(request)
    else this.#startChange(request)
  }

  #startRead(request: MirrorRequest): void {
    const end = endRegion(request.offset, request.length)
    let reconciled = true
    for (let region = firstRegion(request.offset); region < end; region++) {
      if (this.#unreconciled?.has(region) === true) {
        reconciled = false
        this.#effects.push({ do: 'reconcile', region: region })
      }
    }
    const source = reconciled ? this.#readSource() : undefined
    if (source === undefined) {
      this.#held.push(request)
      return
    }
    this.#running.set(request.number, request)
    request.pending.add(source.replica)
    this.#effects.push({ do: 'read', request, replica: source.replica })
  }

  #readSource(): Link | undefined {
    let source: Link | undefined
    for (const link of this.#links.values()) {
      if (!link.mayBeRead || !link.connected) continue
      if (source === undefined || link.local) source = link
    }
    return source
  }

  #startChange(request: MirrorRequest): void {
    if (request.shape.kind === 'flush' && this.#flushMustFail) {
      this.#flushMustFail = false
      this.#flushedUpTo = this.#lastUnflushed
      this.#effects.push({ do: 'fail-flush', request })
      return
    }
    this.#running.set(request.number, request)
    for (const link of this.#links.values()) {
      const awaited = link.standing === 'in-sync'
      if (!awaited && (!link.connected || link.standing === 'stale')) continue
      request.pending.add(link.replica)
      if (link.connected) this.#effects.push({ do: 'send', request, replica: link.replica })
    }
    this.#settle(request)
  }

  /** A change may be acknowledged when nobody who counts is waited for, and ends when nobody at all is. */
  #settle(request: MirrorRequest): void {
    if (request.access !== 'change') return
    if (!request.acknowledged) {
      if (this.#isAnswered(request)) this.#answered.add(request)
    } else if (request.pending.size === 0) this.#finish(request)
  }

  #isAnswered({ pending, shape }: MirrorRequest): boolean {
    if (this.#onlyDurable && !shape.durable) return false
    // Nobody to wait for means nobody has it: only while the volume is being opened again.
    let isThere = false
    for (const { replica, standing } of this.#links.values()) {
      if (ACKNOWLEDGEMENT[standing]['none yet'] === 'enough') continue
      if (pending.has(replica)) return false
      isThere = true
    }
    return isThere
  }

  /** A primary that was stopped may find answers that came long ago: by now another host may have the volume. */
  #acknowledgeAnswered(now: Millis): void {
    if (this.#answered.size === 0 || !this.promisesHold(now)) return
    for (const request of this.#answered) {
      this.#answered.delete(request)
      // It may be waited for again since, or have been held.
      if (!this.#running.has(request.number) || !this.#isAnswered(request)) continue
      request.acknowledged = true
      if (request.shape.kind === 'flush') this.#flushedUpTo = Math.max(this.#flushedUpTo, request.number)
      else if (!request.shape.durable) this.#lastUnflushed = this.#lastNumber + 1
      this.#effects.push({ do: 'acknowledge', request })
      if (request.pending.size === 0) this.#finish(request)
    }
  }

  #finish(request: MirrorRequest): void {
    this.#running.delete(request.number)
    this.#effects.push({ do: 'finished', request })
    if (request.shape.kind === 'flush') return
    this.#refusals.forget(request)
    for (const next of this.#order.finish(request)) this.#start(next)
  }

  /** Changes go on without a replica, and reads that it was asked for go to another. */
  #waitNoMoreFor(replica: ReplicaId): void {
    for (const request of [...this.#running.values()]) {
      this.#refusals.delete(request, replica)
      this.#release(request, replica)
    }
  }

  /** A replica is not waited for any more; a read that it was asked for goes to another. */
  #release(request: MirrorRequest, replica: ReplicaId): void {
    if (request.pending.delete(replica) && request.access === 'read') this.#hold(request)
  }

  #hold(request: MirrorRequest): void {
    this.#running.delete(request.number)
    this.#held.push(request)
  }

  #retryHeld(): void {
    if (!this.#serving || this.#held.length === 0) return
    const held = this.#held
    this.#held = []
    for (const request of held) this.#start(request)
  }

  #link(replica: ReplicaId): Link {
    const link = this.#links.get(replica)
    if (link === undefined) throw new RangeError(`no link to replica ${replica}`)
    return link
  }
}
