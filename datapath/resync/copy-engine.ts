/**
 * Makes replicas the same, region by region: after a takeover the in-sync ones among themselves (reconcile), and a
 * replica that was away with them (resync). One engine, because both copy from a source to targets under a lock
 * that keeps the guest's writes away from the region for the moment that it takes.
 */
import { hasCode } from '../../core/errors.ts'
import { DEFAULT_BATCHES, type MirrorBatches } from '../../core/mirror/batches.ts'
import { type CopyTarget, type CopyTask, type ResyncPlan } from '../../core/mirror/resync-plan.ts'
import { type Clock, pause } from '../../core/ports/clock.ts'
import {
  type ByteLength,
  type ByteOffset,
  type Millis,
  REGION_BYTES,
  type RegionIndex,
  type ReplicaId,
} from '../../core/units.ts'
import { type Extent } from '../block-device.ts'
import { type ReplicaLink } from '../mirror/replica-link.ts'
import { type ReplicaSession } from '../mirror/replica-peer.ts'
import { digestsOf } from '../replica-local/block-digests.ts'
import { Comparison, type Piece } from './comparison.ts'

export interface CopyHost {
  readonly clock: Clock
  /** True while the guest has requests under way: then the copy leaves it room. */
  readonly guestBusy: boolean
  /** Keeps changes away from a range. Resolves with the way to let them in again. */
  lock(offset: ByteOffset, length: ByteLength): Promise<() => void>
  /** The replica whose bytes count, connected; null while there is none. */
  source(): ReplicaLink | null
  link(replica: ReplicaId): ReplicaLink | undefined
  mustAcknowledge(link: ReplicaLink): boolean
  isUnreconciled(region: RegionIndex): boolean
  /** The source answered that it cannot read a region. */
  sourceRefused(source: ReplicaLink, session: ReplicaSession, region: RegionIndex, error: unknown): void
  /** A region was copied to those who lacked it. */
  copied(region: RegionIndex): void
}

/**
 * Regions at once while the guest rests. Each takes two round trips, for what the target lacks and for what it is sent,
 * so that few would leave the link idle; together they are 1 MiB that a guest who begins to work may have to wait for.
 */
const TASKS_AT_ONCE = 16
/** While the guest works, one region at a time, with this pause after each, in milliseconds. */
const GUEST_PAUSE_MS = 2 as Millis
/** After a copy that failed, in milliseconds. */
const FAILURE_PAUSE_MS = 50 as Millis
/** After the source could not read a region: its disk may try for seconds each time, and the guest needs it too. */
const UNREADABLE_PAUSE_MS = 500 as Millis

/** The source cannot read what is to be copied. */
class Unreadable extends Error {}

/** What a session took that is not certain to be durable. */
interface Unflushed {
  /** Copied since the last flush began. */
  bytes: number
  flushing: boolean
}

export class CopyEngine {
  readonly #plan: ResyncPlan
  readonly #host: CopyHost
  readonly #batches: MirrorBatches
  readonly #comparison = new Comparison()
  /** For the sessions of replicas that are being rebuilt; those in-sync are flushed by who waits for the copy. */
  readonly #unflushed = new WeakMap<ReplicaSession, Unflushed>()
  #running = 0
  #stopped = false

  constructor(plan: ResyncPlan, host: CopyHost, batches = DEFAULT_BATCHES) {
    this.#plan = plan
    this.#batches = batches
    this.#host = host
  }

  /** Starts what can be started; to be called when the plan or the replicas changed. */
  kick(): void {
    while (!this.#stopped && this.#running < (this.#host.guestBusy ? 1 : TASKS_AT_ONCE)) {
      if (this.#host.source() === null) return
      const task = this.#plan.next()
      if (task === null) return
      this.#running++
      void this.#run(task)
    }
  }

  /** Starts nothing any more. */
  stop(): void {
    this.#stopped = true
  }

  async #run(task: CopyTask): Promise<void> {
    let delay: Millis | null = null
    try {
      const { region } = task
      const targets = await this.#copy(region)
      this.#plan.done({ region, targets })
      this.#host.copied(region)
      if (this.#host.guestBusy) delay = GUEST_PAUSE_MS
    } catch (error) {
      // The session that failed says why, and its link acts on it; the region stays needed.
      this.#plan.failed(task)
      delay = error instanceof Unreadable ? UNREADABLE_PAUSE_MS : FAILURE_PAUSE_MS
    }
    if (delay !== null) await pause(this.#host.clock, delay)
    this.#running--
    this.kick()
  }

  /** @returns the targets that have the region now */
  async #copy(region: RegionIndex): Promise<readonly CopyTarget[]> {
    const host = this.#host
    const offset = (region * REGION_BYTES) as ByteOffset
    const unlock = await host.lock(offset, REGION_BYTES as ByteLength)
    try {
      // Only now: while the lock was waited for the source may have changed, and with it who lacks what.
      const source = host.source()
      const from = source?.session
      if (source === null || from == null) throw new Error('no source')
      const targets = this.#plan.targetsOf(region)
      const links = this.#connected(targets, source)
      const length = Math.min(REGION_BYTES, from.size - offset) as ByteLength
      // What a failed sync has dropped is in the source's page cache, and nowhere else: it is written again there, too.
      const rewrites = host.isUnreconciled(region) && source.lostAt !== null
      if (links.length > 0 || rewrites) {
        const ofSource = async <Result>(asked: Promise<Result>): Promise<Result> =>
          asked.catch((error: unknown) => {
            if (!hasCode(error, 'DISK_FAILED')) throw error
            host.sourceRefused(source, from, region, error)
            throw new Unreadable(error.message)
          })
        const extents = await ofSource(from.allocation(offset, length))
        const hasData = extents.some(({ zero }) => !zero)
        const [pieces, ...digests] = await Promise.all([
          ofSource(readPieces(from, offset, extents)),
          ...links.map(async target => (hasData ? this.#comparison.digestsAt(target, region, length) : null)),
        ])
        const isCompared = digests.some(theirs => theirs !== null)
        const own = pieces.map(({ bytes }) => (isCompared && bytes !== null ? digestsOf(bytes) : null))
        await Promise.all(
          links.map(async (target, index) => {
            const lacked = this.#comparison.lacked(target, pieces, own, digests[index]!)
            await this.#send(target, offset, lacked)
          })
        )
        if (rewrites) await this.#send(source, offset, pieces)
      }
      if (host.isUnreconciled(region)) {
        // What a read is about to see must not be undone by a power cut: durable first, the source's copy too.
        const relied = links.filter(target => host.mustAcknowledge(target))
        await Promise.all([source, ...relied].map(async link => link.flush()))
      }
      if (source !== host.source()) throw new Error('the source has changed')
      return targets
    } finally {
      unlock()
    }
  }

  /**
   * Flushes a replica that is being rebuilt now and then, beside the copies. It makes nothing durable that counts:
   * intents stay until the rebuild has succeeded. When the disk cannot keep up no more is copied to it until it has.
   */
  #sent(target: ReplicaLink, bytes: number): void {
    const { session, record } = target
    if (session === null || this.#host.mustAcknowledge(target)) return
    const unflushed = this.#unflushed.get(session) ?? { bytes: 0, flushing: false }
    this.#unflushed.set(session, unflushed)
    unflushed.bytes += bytes
    if (unflushed.bytes < this.#batches.copiedBytes) return
    if (unflushed.flushing) this.#plan.hold(record.replica)
    else void this.#flush(target, session, unflushed)
  }

  async #flush(target: ReplicaLink, session: ReplicaSession, unflushed: Unflushed): Promise<void> {
    unflushed.bytes = 0
    unflushed.flushing = true
    // One that cannot flush has lost its session by that; its rebuild begins anew, with a plan of its own.
    await target.flush().catch(() => undefined)
    unflushed.flushing = false
    if (target.session !== session) return
    this.#plan.resume(target.record.replica)
    this.kick()
  }

  #connected(targets: readonly CopyTarget[], source: ReplicaLink): ReplicaLink[] {
    const links: ReplicaLink[] = []
    for (const { replica } of targets) {
      const link = this.#host.link(replica)
      if (link === undefined || link === source) continue
      if (link.session !== null) links.push(link)
      else if (this.#host.mustAcknowledge(link)) throw new Error('an in-sync target is away')
    }
    return links
  }

  async #send(target: ReplicaLink, offset: ByteOffset, pieces: readonly Piece[]): Promise<void> {
    const { session } = target
    try {
      if (session === null) throw new Error('the target is away')
      const writes = pieces.map(async ({ at, length, bytes, hole }) => {
        const range = { offset: (offset + at) as ByteOffset, durable: false, sequence: target.nextSequence() }
        if (bytes === null) await session.zero({ ...range, length, keepAllocated: !hole })
        else await session.write({ ...range, data: bytes })
      })
      await Promise.all(writes)
    } catch (error) {
      if (session !== null) target.reject(session, error)
      // One that is being rebuilt starts again by itself; an in-sync one must have the region before it counts.
      if (this.#host.mustAcknowledge(target)) throw error
      return
    }
    const sent = pieces.reduce((sum, { length, hole }) => (hole ? sum : sum + length), 0)
    this.#sent(target, sent)
  }
}

/** The pieces of a region, with their bytes where these are not zeros. */
async function readPieces(
  session: ReplicaSession,
  offset: ByteOffset,
  extents: readonly Extent[]
): Promise<Piece[]> {
  let next = 0
  const pieces = extents.map(async ({ length, hole, zero }) => {
    const at = next
    next += length
    if (zero) return { at, length, hole, bytes: null }
    return {
      at,
      length,
      hole,
      bytes: await session.read((offset + at) as ByteOffset, Buffer.allocUnsafe(length)),
    }
  })
  return Promise.all(pieces)
}
