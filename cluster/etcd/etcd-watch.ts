/**
 * One watch, over as many streams as it takes, each from the last revision that was delivered.
 *
 * Three things are done otherwise than etcd's own clients do them, because versions in use (3.4.23 is Debian 12's)
 * need it:
 *
 * - The stream watches the whole store, and the prefix is picked out here. So the revision that was reached is that of
 *   the last event, and never rests on a progress notification, which could overtake events (etcd issue 15220).
 *   The store is small and changes some times a second.
 * - It starts at the revision that was reached, not after it, and what is known already is dropped. A watch that
 *   starts exactly at the revision of a compaction is served, but without the removals of that revision (issue 18089);
 *   asked for the one before, etcd says that it is compacted.
 * - Silence is not trusted: a stream whose other end stands still, or is cut off, looks the same as one without
 *   news. Progress is asked for every so often, as a sign of life only.
 *
 * Memory is bounded by one revision: a batch is given to the listener as soon as the next one begins, and while the
 * listener works nothing more is taken from the connection than gRPC has already read.
 */
import { XosanError } from '../../core/errors.ts'
import { type Clock, type Timer } from '../../core/ports/clock.ts'
import { type Watch, type WatchEvent, type WatchListener } from '../../core/ports/coordinator.ts'
import { type Millis, millis } from '../../core/units.ts'
import { type MemberLink, type WatchStream } from './member-link.ts'
import { type Members } from './members.ts'
import { type WatchReply, watchReply } from './replies.ts'

export interface EtcdWatchOptions {
  readonly members: Members
  readonly clock: Clock
  /** What keys in etcd must begin with to be told of, and what is cut off of them. */
  readonly prefix: string
  readonly namespace: string
  readonly afterRevision: number
  readonly pingMs: Millis
  readonly listener: WatchListener
  /** The store's revision, from a quorum. */
  readonly revisionNow: () => Promise<number>
  readonly ended: () => void
}

/** Pings that may stay without an answer, or without the events that must be there, before another member is asked. */
const PINGS_MAX = 3
const PAUSE_MS_MIN = 20
const PAUSE_MS_MAX = 1_000
/** How long one search for a member goes on before it begins anew. */
const CHOOSE_MS = 5_000
const EVERYTHING = Buffer.of(0)

export class EtcdWatch implements Watch {
  readonly #options: EtcdWatchOptions
  #reached: number
  #stream: WatchStream | null = null
  #closed = false
  #pauseMs = PAUSE_MS_MIN

  constructor(options: EtcdWatchOptions) {
    this.#options = options
    this.#reached = options.afterRevision
    void this.#run()
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#stream?.cancel()
    this.#options.ended()
  }

  #isOpen(): boolean {
    return !this.#closed && !this.#options.members.closed
  }

  async #run(): Promise<void> {
    const { members, clock } = this.#options
    while (this.#isOpen()) {
      try {
        const link = await members.choose(millis(clock.now() + CHOOSE_MS))
        if (!this.#isOpen()) return
        await this.#follow(link)
      } catch {
        // Whatever it was, the cure is the same: from where we are, with another member.
      }
      if (!this.#isOpen()) return
      await members.pause(this.#pauseMs)
      this.#pauseMs = Math.min(2 * this.#pauseMs, PAUSE_MS_MAX)
    }
  }

  /** Follows one stream until it ends, for whatever reason. */
  async #follow(link: MemberLink): Promise<void> {
    const { members, clock, pingMs } = this.#options
    const stream = link.watch()
    this.#stream = stream
    const batch = new OpenBatch((revision, events) => this.#deliver(revision, events))
    let unanswered = 0
    let behind = 0
    let known = 0
    let reachedBefore = this.#reached
    let timer: Timer | null = null

    const ping = (): void => {
      timer = clock.after(pingMs, ping)
      behind = this.#reached < known && this.#reached === reachedBefore ? behind + 1 : 0
      if (unanswered >= PINGS_MAX || behind >= PINGS_MAX) {
        stream.cancel()
        return
      }
      known = members.revision
      reachedBefore = this.#reached
      unanswered += 1
      stream.write({ progress_request: {} })
    }

    await new Promise<void>(resolve => {
      stream.on('data', (raw: unknown) => {
        // What was read before a stream was given up still comes, and belongs to nobody.
        if (this.#stream !== stream || this.#closed) return
        unanswered = 0
        this.#pauseMs = PAUSE_MS_MIN
        if (!this.#take(raw, link, batch)) stream.cancel()
      })
      stream.on('error', () => undefined)
      stream.on('status', () => resolve())
      stream.write({
        create_request: {
          key: EVERYTHING,
          range_end: EVERYTHING,
          // Revision 1 is the empty store.
          start_revision: Math.max(this.#reached, 1),
          fragment: true,
        },
      })
      ping()
    })
    ;(timer as Timer | null)?.cancel()
    this.#stream = null
    if (this.#isOpen()) link.doubt()
  }

  /** @returns false when the stream is of no use any more */
  #take(raw: unknown, link: MemberLink, batch: OpenBatch): boolean {
    const parsed = watchReply.safeParse(raw)
    if (!parsed.success) return false
    const reply = parsed.data
    try {
      this.#options.members.heard(reply, link.name)
    } catch {
      return false
    }
    if (reply.compact_revision > 0) {
      this.#fail(new XosanError('COORDINATOR_COMPACTED', { revision: this.#reached }))
      return false
    }
    if (reply.canceled) return false
    if (reply.created && reply.header.revision < this.#reached) void this.#checkNotSetBack()
    batch.add(reply)
    return true
  }

  /**
   * The member has less than we have seen. It may lag, and then it will catch up; but if the store itself was set back,
   * this watch would wait in silence, and then skip what is new.
   */
  async #checkNotSetBack(): Promise<void> {
    try {
      const revision = await this.#options.revisionNow()
      if (revision < this.#reached && this.#isOpen()) {
        this.#fail(new XosanError('COORDINATOR_COMPACTED', { revision: this.#reached }))
      }
    } catch {
      // Not to be had now: asked again with the next stream.
    }
  }

  #deliver(revision: number, events: readonly WatchEvent[]): void {
    if (this.#closed || revision <= this.#reached) return
    this.#reached = revision
    const { prefix, namespace, listener } = this.#options
    listener.changed(
      revision,
      events
        .filter(({ key }) => key.startsWith(prefix))
        .map(({ key, value }) => ({ key: key.slice(namespace.length), value }))
    )
  }

  #fail(error: Error): void {
    if (this.#closed) return
    this.close()
    this.#options.listener.failed(error)
  }
}

/** Puts the events of one revision together, which may come in several fragments of an answer. */
class OpenBatch {
  readonly #deliver: (revision: number, events: readonly WatchEvent[]) => void
  #revision = 0
  #events: WatchEvent[] = []

  constructor(deliver: (revision: number, events: readonly WatchEvent[]) => void) {
    this.#deliver = deliver
  }

  add({ events, fragment }: WatchReply): void {
    for (const { type, kv } of events) {
      if (kv.mod_revision !== this.#revision) this.#flush()
      this.#revision = kv.mod_revision
      this.#events.push({
        key: kv.key.toString('latin1'),
        value: type === 'PUT' ? kv.value.toString() : null,
      })
    }
    // etcd never divides a revision between answers, only between fragments of one.
    if (!fragment) this.#flush()
  }

  #flush(): void {
    if (this.#events.length === 0) return
    const events = this.#events
    this.#events = []
    this.#deliver(this.#revision, events)
  }
}
