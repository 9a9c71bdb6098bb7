/**
 * Finds changes for the watches of one client by asking for the store's revision: when the bell rings, and at a steady
 * pace for what the bell missed. One question serves all watches and is answered from shared memory in some
 * microseconds; most of what a look costs is waking the process up.
 */
import { XosanError } from '../../core/errors.ts'
import { type Clock, type Timer } from '../../core/ports/clock.ts'
import { type Watch, type WatchEvent, type WatchListener } from '../../core/ports/coordinator.ts'
import { type Millis, millis } from '../../core/units.ts'
import { type EmbeddedDatabase, attempt } from './database.ts'

interface OpenWatch {
  readonly prefix: string
  readonly listener: WatchListener
  /** Revision up to which everything has been told. */
  reached: number
  closed: boolean
}

export class WatchPoll {
  readonly #database: EmbeddedDatabase
  readonly #clock: Clock
  readonly #intervalMs: Millis
  readonly #watches = new Set<OpenWatch>()
  #timer: Timer | null = null
  #closed = false

  constructor(database: EmbeddedDatabase, clock: Clock, intervalMs: Millis) {
    this.#database = database
    this.#clock = clock
    this.#intervalMs = intervalMs
  }

  /** The listener is never called from within `add`. */
  add(prefix: string, afterRevision: number, listener: WatchListener): Watch {
    const watch: OpenWatch = { prefix, listener, reached: afterRevision, closed: false }
    this.#watches.add(watch)
    this.soon()
    return {
      close: () => {
        watch.closed = true
        this.#watches.delete(watch)
      },
    }
  }

  /** Looks at the next turn of the loop: something has changed, or there is a new watch. */
  soon(): void {
    this.#arm(millis(0))
  }

  close(): void {
    this.#closed = true
    this.#timer?.cancel()
    for (const watch of this.#watches) {
      watch.closed = true
    }
    this.#watches.clear()
  }

  #arm(delayMs: Millis): void {
    this.#timer?.cancel()
    this.#timer =
      this.#closed || this.#watches.size === 0 ? null : this.#clock.after(delayMs, () => this.#look())
  }

  #look(): void {
    // Armed first: a listener may close this client, or throw.
    this.#arm(this.#intervalMs)
    const position = this.#try(() => this.#database.position())
    if (position === null) {
      return
    }
    for (const watch of [...this.#watches]) {
      if (watch.reached < position.revision && !watch.closed) {
        this.#advance(watch)
      }
    }
  }

  #advance(watch: OpenWatch): void {
    const found = this.#try(() => ({ after: this.#database.eventsAfter(watch.prefix, watch.reached) }))
    if (found === null) {
      return
    }
    if (found.after === null) {
      watch.closed = true
      this.#watches.delete(watch)
      watch.listener.failed(new XosanError('COORDINATOR_COMPACTED', { revision: watch.reached }))
      return
    }
    for (const batch of batchesOf(found.after.events)) {
      this.#tell(watch, batch.revision, batch.events)
    }
    if (watch.reached < found.after.revision) {
      this.#tell(watch, found.after.revision, [])
    }
  }

  #tell(watch: OpenWatch, revision: number, events: readonly WatchEvent[]): void {
    if (!watch.closed) {
      watch.reached = revision
      watch.listener.changed(revision, events)
    }
  }

  /** @returns null when the database is busy or fails: the next poll tries again, as a watch goes on by itself */
  #try<T>(action: () => T): T | null {
    try {
      const attempted = attempt(action)
      return attempted.busy ? null : attempted.value
    } catch {
      return null
    }
  }
}

/** Groups events, which come in order, by their revision. */
function batchesOf(
  events: readonly (WatchEvent & { readonly revision: number })[]
): { revision: number; events: WatchEvent[] }[] {
  const batches: { revision: number; events: WatchEvent[] }[] = []
  for (const { revision, key, value } of events) {
    const last = batches.at(-1)
    if (last?.revision === revision) {
      last.events.push({ key, value })
    } else {
      batches.push({ revision, events: [{ key, value }] })
    }
  }
  return batches
}
