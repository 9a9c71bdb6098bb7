/**
 * The coordinator of the simulator: the contract of `core/ports/coordinator.ts` in memory, with every trouble that the
 * contract allows, and nothing else.
 *
 * A call travels in three steps: to the store, its effect there, and the answer back. A hook decides for each call how
 * long the steps take and whether it fails, so a scenario can lose exactly the answer that it wants to lose. A
 * partition cuts one client off: calls that have not reached the store do nothing; calls whose effect has happened
 * but whose answer has not arrived end with an unknown outcome.
 *
 * Deterministic: the same calls, hooks and clock give the same answers at the same times.
 */
import { checkKey, checkPrefix, checkTransaction } from '../../cluster/coordinator-limits.ts'
import { XosanError } from '../../core/errors.ts'
import { type Clock, type Timer } from '../../core/ports/clock.ts'
import {
  type Change,
  type Condition,
  type Coordinator,
  type Entry,
  type TransactResult,
  type Watch,
  type WatchEvent,
  type WatchListener,
} from '../../core/ports/coordinator.ts'
import { type Millis, millis } from '../../core/units.ts'

/** What the hook is told about a call. */
export interface SimulatedCall {
  readonly client: string
  readonly verb: 'read' | 'list' | 'transact'
  /** Key of a read, prefix of a list, changed keys of a transaction. */
  readonly keys: readonly string[]
}

/** What becomes of a call. Times are in milliseconds; steps that take none still end after the caller's turn. */
export type Fate =
  | {
      /** It has its effect `beforeMs` after the call, and its answer arrives `afterMs` later. */
      readonly kind: 'answer'
      readonly beforeMs: Millis
      readonly afterMs: Millis
    }
  | {
      /** It certainly does nothing; the caller is told `afterMs` after the call. */
      readonly kind: 'unavailable'
      readonly afterMs: Millis
    }
  | {
      /**
       * The caller is told `afterMs` after the call that the outcome is unknown (reads: that the coordinator is
       * unavailable). The effect happens `effectMs` after the call, which may be later than that; null: never.
       */
      readonly kind: 'unknown'
      readonly afterMs: Millis
      readonly effectMs: Millis | null
    }

export interface SimulatedCoordinatorOptions {
  readonly clock: Clock
  /** Decides the fate of each call; without it every call is answered at once. */
  readonly decide?: (call: SimulatedCall) => Fate
  /** How long after a change a client's watches hear of it; without it at once. */
  readonly watchDelayMs?: (client: string) => Millis
  /** After this long a call of a client that is cut off ends. */
  readonly callTimeMs?: Millis
  /** How many revisions a watch may lag behind. */
  readonly historyRevisions?: number
  /** Told of every change at the moment of its effect, for checkers and logs. */
  readonly observe?: (revision: number, client: string, changes: readonly Change[]) => void
}

interface Batch {
  readonly revision: number
  readonly events: readonly WatchEvent[]
}

const AT_ONCE: Fate = { kind: 'answer', beforeMs: millis(0), afterMs: millis(0) }
const CALL_TIME_MS = millis(5_000)
const HISTORY_REVISIONS = 100_000

export class SimulatedCoordinator {
  readonly clock: Clock
  readonly decide: (call: SimulatedCall) => Fate
  readonly watchDelayMs: (client: string) => Millis
  readonly callTimeMs: Millis
  readonly #observe: (revision: number, client: string, changes: readonly Change[]) => void
  readonly #historyRevisions: number
  readonly #entries = new Map<string, Entry>()
  #history: Batch[] = []
  #compacted = 0
  #revision = 0
  readonly #cutOff = new Set<string>()
  readonly #clients = new Set<SimulatedClient>()

  constructor(options: SimulatedCoordinatorOptions) {
    this.clock = options.clock
    this.decide = options.decide ?? (() => AT_ONCE)
    this.watchDelayMs = options.watchDelayMs ?? (() => millis(0))
    this.callTimeMs = options.callTimeMs ?? CALL_TIME_MS
    this.#historyRevisions = options.historyRevisions ?? HISTORY_REVISIONS
    this.#observe = options.observe ?? (() => undefined)
  }

  /**
   * A client of this store.
   * @param name what hooks and partitions know it by; several clients may share one
   * @param deliver how answers and watch reports enter the client's process: a paused process runs the action when
   * it goes on, a dead one never
   */
  client(name: string, deliver: (action: () => void) => void = action => action()): Coordinator {
    const client = new SimulatedClient(this, name, deliver)
    this.#clients.add(client)
    return client
  }

  /** Cuts the clients of a name off, or connects them again. */
  setReachable(name: string, reachable: boolean): void {
    if (reachable) {
      this.#cutOff.delete(name)
      this.#wakeWatches()
    } else {
      this.#cutOff.add(name)
    }
  }

  isReachable(name: string): boolean {
    return !this.#cutOff.has(name)
  }

  /** Everything as it is now, sorted by key; for checkers, which nothing cuts off. */
  list(prefix: string): { readonly entries: readonly Entry[]; readonly revision: number } {
    const entries = [...this.#entries.values()].filter(({ key }) => key.startsWith(prefix))
    return { entries: entries.sort((a, b) => (a.key < b.key ? -1 : 1)), revision: this.#revision }
  }

  /** One entry as it is now. */
  read(key: string): { readonly entry: Entry | null; readonly revision: number } {
    return { entry: this.#entries.get(key) ?? null, revision: this.#revision }
  }

  /** Applies a transaction now. */
  transact(client: string, conditions: readonly Condition[], changes: readonly Change[]): TransactResult {
    const refused = conditions.some(
      ({ key, revision }) => (this.#entries.get(key)?.revision ?? 0) !== revision
    )
    if (refused) {
      const keys = new Set(conditions.map(({ key }) => key))
      const current = [...keys].map(key => this.#entries.get(key)).filter(entry => entry !== undefined)
      return { committed: false, revision: this.#revision, current }
    }
    const effective = changes.filter(({ key, value }) => value !== null || this.#entries.has(key))
    if (effective.length > 0) {
      this.#apply(client, effective)
    }
    return { committed: true, revision: this.#revision, current: [] }
  }

  /** Batches of a prefix after a revision; null when that history is gone. */
  batchesAfter(prefix: string, after: number): { batches: readonly Batch[]; revision: number } | null {
    if (after < this.#compacted) {
      return null
    }
    // Every revision has its batch, so the place of one follows from its number.
    const start = Math.max(after - (this.#revision - this.#history.length), 0)
    const batches = this.#history
      .slice(start)
      .map(({ revision, events }) => ({
        revision,
        events: events.filter(({ key }) => key.startsWith(prefix)),
      }))
      .filter(({ events }) => events.length > 0)
    return { batches, revision: this.#revision }
  }

  /** Forgets a client that was closed. */
  forget(client: SimulatedClient): void {
    this.#clients.delete(client)
  }

  #apply(client: string, changes: readonly Change[]): void {
    const revision = ++this.#revision
    for (const { key, value } of changes) {
      if (value === null) {
        this.#entries.delete(key)
      } else {
        this.#entries.set(key, { key, value, revision })
      }
    }
    this.#history.push({ revision, events: changes })
    this.#compacted = Math.max(this.#compacted, revision - this.#historyRevisions)
    if (this.#history[0]!.revision <= this.#compacted) {
      this.#history = this.#history.filter(batch => batch.revision > this.#compacted)
    }
    this.#observe(revision, client, changes)
    this.#wakeWatches()
  }

  #wakeWatches(): void {
    for (const client of this.#clients) {
      client.wakeWatches()
    }
  }
}

class SimulatedClient implements Coordinator {
  readonly #store: SimulatedCoordinator
  readonly #name: string
  readonly #deliver: (action: () => void) => void
  readonly #watches = new Set<SimulatedWatch>()
  #closed = false

  constructor(store: SimulatedCoordinator, name: string, deliver: (action: () => void) => void) {
    this.#store = store
    this.#name = name
    this.#deliver = deliver
  }

  async read(key: string): ReturnType<Coordinator['read']> {
    checkKey(key)
    return this.#call('read', [key], () => this.#store.read(key))
  }

  async list(prefix: string): ReturnType<Coordinator['list']> {
    checkPrefix(prefix)
    return this.#call('list', [prefix], () => this.#store.list(prefix))
  }

  async transact(conditions: readonly Condition[], changes: readonly Change[]): Promise<TransactResult> {
    checkTransaction(conditions, changes)
    const keys = changes.map(({ key }) => key)
    return this.#call('transact', keys, () => this.#store.transact(this.#name, conditions, changes))
  }

  watch(prefix: string, afterRevision: number, listener: WatchListener): Watch {
    checkPrefix(prefix)
    const watch = new SimulatedWatch(this.#store, this.#name, this.#deliver, prefix, afterRevision, listener)
    this.#watches.add(watch)
    watch.wake()
    return {
      close: () => {
        watch.close()
        this.#watches.delete(watch)
      },
    }
  }

  wakeWatches(): void {
    for (const watch of this.#watches) {
      watch.wake()
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#store.forget(this)
    for (const watch of this.#watches) {
      watch.close()
    }
    this.#watches.clear()
  }

  async #call<T>(verb: SimulatedCall['verb'], keys: readonly string[], effect: () => T): Promise<T> {
    if (this.#closed) {
      throw unavailable('this client is closed')
    }
    const { clock, callTimeMs } = this.#store
    const decided = this.#store.decide({ client: this.#name, verb, keys })
    const fate: Fate = this.#store.isReachable(this.#name)
      ? decided
      : { kind: 'unavailable', afterMs: callTimeMs }
    return new Promise<T>((resolve, reject) => {
      const answerAfter = (delayMs: Millis, action: () => void): void => {
        clock.after(delayMs, () => this.#deliver(action))
      }
      const lose = (delayMs: Millis, mayHaveHappened: boolean): void =>
        answerAfter(delayMs, () =>
          reject(mayHaveHappened && verb === 'transact' ? unknown() : unavailable('it was lost on the way'))
        )

      switch (fate.kind) {
        case 'unavailable':
          lose(fate.afterMs, false)
          return
        case 'unknown':
          lose(fate.afterMs, true)
          if (fate.effectMs !== null) {
            clock.after(fate.effectMs, effect)
          }
          return
        case 'answer':
          clock.after(fate.beforeMs, () => {
            const rest = millis(Math.max(callTimeMs - fate.beforeMs, 0))
            if (!this.#store.isReachable(this.#name)) {
              lose(rest, false)
              return
            }
            const answer = effect()
            clock.after(fate.afterMs, () => {
              if (this.#store.isReachable(this.#name)) {
                this.#deliver(() => resolve(answer))
              } else {
                lose(millis(Math.max(rest - fate.afterMs, 0)), true)
              }
            })
          })
          return
      }
    })
  }
}

class SimulatedWatch {
  readonly #store: SimulatedCoordinator
  readonly #client: string
  readonly #deliver: (action: () => void) => void
  readonly #prefix: string
  readonly #listener: WatchListener
  /** Up to which revision the client's process has been told. */
  #reached: number
  #timer: Timer | null = null
  #delivering = false
  #closed = false

  constructor(
    store: SimulatedCoordinator,
    client: string,
    deliver: (action: () => void) => void,
    prefix: string,
    after: number,
    listener: WatchListener
  ) {
    this.#store = store
    this.#client = client
    this.#deliver = deliver
    this.#prefix = prefix
    this.#reached = after
    this.#listener = listener
  }

  /** Something changed: reports it after the client's delay, unless a report is under way already. */
  wake(): void {
    if (this.#closed || this.#timer !== null || this.#delivering) {
      return
    }
    this.#timer = this.#store.clock.after(this.#store.watchDelayMs(this.#client), () => {
      this.#timer = null
      // A client that is cut off is woken when it is connected again.
      if (this.#store.isReachable(this.#client)) {
        this.#send()
      }
    })
  }

  close(): void {
    this.#closed = true
    this.#timer?.cancel()
  }

  /** What is sent is fixed here: a process that was paused meanwhile learns nothing newer than what had reached it. */
  #send(): void {
    const found = this.#store.batchesAfter(this.#prefix, this.#reached)
    if (found?.revision === this.#reached) {
      return
    }
    this.#delivering = true
    this.#deliver(() => {
      this.#delivering = false
      if (!this.#closed) {
        this.#report(found)
        this.wake()
      }
    })
  }

  #report(found: ReturnType<SimulatedCoordinator['batchesAfter']>): void {
    if (found === null) {
      this.#closed = true
      this.#listener.failed(new XosanError('COORDINATOR_COMPACTED', { revision: this.#reached }))
      return
    }
    const progress = { revision: found.revision, events: [] }
    for (const { revision, events } of [...found.batches, progress]) {
      if (!this.#closed && this.#reached < revision) {
        this.#reached = revision
        this.#listener.changed(revision, events)
      }
    }
  }
}

const unavailable = (reason: string): XosanError => new XosanError('COORDINATOR_UNAVAILABLE', { reason })
const unknown = (): XosanError =>
  new XosanError('COORDINATOR_OUTCOME_UNKNOWN', { reason: 'the answer was lost' })
