/**
 * Keeps the catalogue a copy of the coordinator: one complete list, then the watch, from where the last transaction on
 * the catalogue ended. Every trouble has one cure, which is to start again from that position: nothing is remembered
 * beside the catalogue, so a crash at any instruction is the same as any other interruption.
 *
 * A coordinator that was emptied, replaced or set back would, if followed, make every host throw away the metadata
 * that the SR could be rebuilt from. So a coordinator has an identity, a record that its first follower makes; the
 * catalogue remembers it and follows no other, and none whose revision is lower than one it has seen.
 */
import { IDENTITY_KEY } from '../cluster/keys.ts'
import { XosanError, hasCode, reasonOf } from '../core/errors.ts'
import { type Clock, type Timer } from '../core/ports/clock.ts'
import { type Coordinator, type Watch } from '../core/ports/coordinator.ts'
import { type Random } from '../core/ports/random.ts'
import { type Millis, millis } from '../core/units.ts'
import { type Applied, type Catalogue, type RevisionBatch } from './catalogue.ts'
import { type RecordProblem } from './records.ts'

export interface FollowerOptions {
  readonly catalogue: Catalogue
  readonly coordinator: Coordinator
  readonly clock: Clock
  readonly random: Random
  /** Told of a record that this version cannot read, each time it changes. */
  readonly unreadable: (problem: RecordProblem) => void
  /** Told when following is interrupted, with the reason, and with null when it goes on. */
  readonly interrupted: (error: Error | null) => void
}

/** A transaction on the catalogue. */
export interface CatalogueChange {
  readonly revision: number
  /** Keys of the coordinator whose entries changed; `parseKey` tells what they name. */
  readonly keys: readonly string[]
}

interface Waiter {
  readonly revision: number
  readonly settle: (error: Error | null) => void
}

/** First and longest pause before another attempt; each has a random part so that hosts do not come back together. */
const PAUSE_MS_MIN = 50
const PAUSE_MS_MAX = 5_000

export class CatalogueFollower {
  readonly #options: FollowerOptions
  readonly #listeners = new Set<(change: CatalogueChange) => void>()
  readonly #waiters = new Set<Waiter>()
  /** Set while the coordinator is known to be ours; what it told is then up to `#reached`. */
  #following = false
  #reached: number
  #trouble: Error | null = null
  #listAgain = false
  #closed = false
  #stop: () => void = () => undefined
  #running: Promise<void> | null = null

  constructor(options: FollowerOptions) {
    this.#options = options
    this.#reached = options.catalogue.position().revision
  }

  /** Revision of the coordinator up to which the catalogue is complete. */
  get reached(): number {
    return this.#reached
  }

  /** Why the catalogue is not being kept up to date; null while it is, and before the first attempt has ended. */
  get trouble(): Error | null {
    return this.#trouble
  }

  /** Begins to follow, and goes on through every interruption until `close`. */
  start(): void {
    this.#running ??= this.#run()
  }

  /** Ends following; whoever waits is told COORDINATOR_UNAVAILABLE. The coordinator and catalogue stay open. */
  async close(): Promise<void> {
    this.#closed = true
    this.#stop()
    this.#fail(new XosanError('COORDINATOR_UNAVAILABLE', { reason: 'the follower is closed' }))
    await this.#running
  }

  /**
   * Waits until the catalogue holds everything up to a revision.
   * @param deadline reading of the clock
   * @throws DEADLINE_EXCEEDED, COORDINATOR_FOREIGN, COORDINATOR_UNAVAILABLE when closed
   */
  async waitFor(revision: number, deadline: Millis): Promise<void> {
    if (this.#closed) {
      throw new XosanError('COORDINATOR_UNAVAILABLE', { reason: 'the follower is closed' })
    }
    if (hasCode(this.#trouble, 'COORDINATOR_FOREIGN')) {
      throw this.#trouble
    }
    if (this.#following && this.#reached >= revision) {
      return
    }
    const { clock } = this.#options
    const waitMs = millis(Math.max(deadline - clock.now(), 0))
    await new Promise<void>((resolve, reject) => {
      const waiter: Waiter = {
        revision,
        settle: error => {
          timer.cancel()
          this.#waiters.delete(waiter)
          if (error === null) {
            resolve()
          } else {
            reject(error)
          }
        },
      }
      const timer = clock.after(waitMs, () => {
        const what = `following the coordinator from revision ${this.#reached} to ${revision}`
        waiter.settle(new XosanError('DEADLINE_EXCEEDED', { what, deadlineMs: waitMs }))
      })
      this.#waiters.add(waiter)
    })
  }

  /**
   * Waits until the catalogue holds everything that had happened in the coordinator before this call: what an answer
   * needs that xapi acts on destructively.
   * @param deadline reading of the clock
   * @throws as `waitFor`, and COORDINATOR_UNAVAILABLE when the coordinator cannot be asked
   */
  async synchronise(deadline: Millis): Promise<void> {
    const { catalogue, coordinator } = this.#options
    const { entry, revision } = await coordinator.read(IDENTITY_KEY)
    const { identity } = catalogue.position()
    if (identity !== null) {
      checkIdentity(identity, entry?.value)
    }
    await this.waitFor(revision, deadline)
  }

  /** Tells a listener of every change, after it is durable in the catalogue. @returns ends it */
  subscribe(listener: (change: CatalogueChange) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  async #run(): Promise<void> {
    let pauseMs = PAUSE_MS_MIN
    while (this.#isOpen()) {
      try {
        await this.#begin()
        pauseMs = PAUSE_MS_MIN
        if (this.#isOpen()) {
          this.#resumed()
          await this.#watch()
        }
      } catch (error) {
        this.#interrupted(error instanceof Error ? error : new Error(reasonOf(error)))
      }
      if (this.#isOpen()) {
        await this.#pause(pauseMs)
        pauseMs = Math.min(pauseMs * 2, PAUSE_MS_MAX)
      }
    }
  }

  #isOpen(): boolean {
    return !this.#closed
  }

  /** Makes sure that the coordinator is ours, and lists it when the watch cannot go on from where we are. */
  async #begin(): Promise<void> {
    const { catalogue, coordinator } = this.#options
    const known = catalogue.position()
    const { entry, revision } = await coordinator.read(IDENTITY_KEY)
    const identity = entry?.value ?? (await this.#giveIdentity(known.identity))
    checkIdentity(known.identity, identity)
    if (revision < known.revision) {
      throw foreign(`it has gone back from revision ${known.revision} to ${revision}`)
    }
    if (known.identity !== null && !this.#listAgain) {
      return
    }
    const list = await coordinator.list('')
    checkIdentity(identity, list.entries.find(({ key }) => key === IDENTITY_KEY)?.value)
    const applied = catalogue.replaceAll(list.entries, { identity, revision: list.revision })
    this.#listAgain = false
    this.#took(applied, list.revision)
  }

  /** Names a coordinator that nobody has followed yet. One that we have followed has lost its name: not ours. */
  async #giveIdentity(known: string | null): Promise<string | undefined> {
    if (known !== null) {
      return undefined
    }
    const identity = this.#options.random.uuid()
    const { committed, current } = await this.#options.coordinator.transact(
      [{ key: IDENTITY_KEY, revision: 0 }],
      [{ key: IDENTITY_KEY, value: identity }]
    )
    return committed ? identity : current[0]?.value
  }

  /** Follows until something goes wrong, which it throws, or `close`. */
  async #watch(): Promise<void> {
    const { catalogue, clock, coordinator } = this.#options
    let queue: RevisionBatch[] = []
    let timer: Timer | null = null
    let watch: Watch | null = null
    try {
      await new Promise<void>((resolve, reject) => {
        this.#stop = resolve
        // What arrives in one turn of the loop is applied in one transaction: one sync for a burst of revisions.
        const drain = (): void => {
          timer = null
          const batches = queue
          queue = []
          const withEvents = batches.filter(({ events }) => events.length > 0)
          try {
            const applied = withEvents.length === 0 ? NOTHING : catalogue.apply(withEvents)
            this.#took(applied, batches.at(-1)!.revision)
          } catch (error) {
            reject(error instanceof Error ? error : new Error(reasonOf(error)))
          }
        }
        watch = coordinator.watch('', catalogue.position().revision, {
          changed: (revision, events) => {
            queue.push({ revision, events })
            timer ??= clock.after(millis(0), drain)
          },
          failed: error => {
            this.#listAgain ||= hasCode(error, 'COORDINATOR_COMPACTED')
            reject(error)
          },
        })
      })
    } finally {
      // TypeScript does not see that the executor has run.
      ;(watch as Watch | null)?.close()
      ;(timer as Timer | null)?.cancel()
    }
  }

  #took(applied: Applied, revision: number): void {
    this.#reached = Math.max(revision, this.#options.catalogue.position().revision)
    applied.problems.forEach(this.#options.unreadable)
    if (applied.keys.length > 0) {
      for (const listener of [...this.#listeners]) {
        listener({ revision: this.#reached, keys: applied.keys })
      }
    }
    this.#wake()
  }

  #resumed(): void {
    this.#following = true
    if (this.#trouble !== null) {
      this.#trouble = null
      this.#options.interrupted(null)
    }
    this.#wake()
  }

  #interrupted(error: Error): void {
    this.#following = false
    this.#reached = this.#options.catalogue.position().revision
    // Compaction is cured by the next list; the same reason again is no news.
    if (!hasCode(error, 'COORDINATOR_COMPACTED') && this.#trouble?.message !== error.message) {
      this.#trouble = error
      this.#options.interrupted(error)
    }
    if (hasCode(error, 'COORDINATOR_FOREIGN')) {
      this.#fail(error)
    }
  }

  #wake(): void {
    for (const waiter of [...this.#waiters]) {
      if (this.#following && this.#reached >= waiter.revision) {
        waiter.settle(null)
      }
    }
  }

  #fail(error: Error): void {
    for (const waiter of [...this.#waiters]) {
      waiter.settle(error)
    }
  }

  async #pause(durationMs: number): Promise<void> {
    const { clock, random } = this.#options
    await new Promise<void>(resolve => {
      const timer = clock.after(millis(durationMs * (0.5 + random.fraction())), resolve)
      this.#stop = () => {
        timer.cancel()
        resolve()
      }
    })
  }
}

const NOTHING: Applied = { keys: [], problems: [] }

/** @throws COORDINATOR_FOREIGN */
function checkIdentity(known: string | null, found: string | undefined): asserts found is string {
  if (found === undefined || (known !== null && found !== known)) {
    throw foreign(`its identity is ${found ?? 'gone'}, and should be ${known ?? 'there'}`)
  }
}

const foreign = (reason: string): XosanError => new XosanError('COORDINATOR_FOREIGN', { reason })
