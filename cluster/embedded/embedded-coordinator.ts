/**
 * The coordinator of one machine: the port of `core/ports/coordinator.ts` on one SQLite file that any number of
 * processes share. It is for the demo, the lab and tests, where a process may be stopped with SIGSTOP at any
 * instruction, also while it holds the file's write lock. So no call ever waits inside SQLite: one attempt is made,
 * and when the file is busy the next one comes from a timer, until the call time is over. The process stays
 * responsive, and the call ends with COORDINATOR_UNAVAILABLE, which is then certain: the transaction never began.
 *
 * Syncing a commit does block the event loop for as long as the disk takes. That is the price of having no second
 * thread here; nothing that serves real guests uses this implementation.
 */
import { XosanError, reasonOf } from '../../core/errors.ts'
import { type Clock, type Timer } from '../../core/ports/clock.ts'
import {
  type Change,
  type Condition,
  type Coordinator,
  type TransactResult,
  type Watch,
  type WatchListener,
} from '../../core/ports/coordinator.ts'
import { type Random } from '../../core/ports/random.ts'
import { type Millis, millis } from '../../core/units.ts'
import { checkKey, checkPrefix, checkTransaction } from '../coordinator-limits.ts'
import { Bell } from './bell.ts'
import { CommitFailedError, EmbeddedDatabase, attempt, makeDatabaseFile } from './database.ts'
import { WatchPoll } from './watch-poll.ts'

export interface EmbeddedOptions {
  /** The database file; it and its directory are made when missing. */
  readonly path: string
  readonly clock: Clock
  readonly random: Random
  /** After this long a call ends by itself. */
  readonly callTimeMs?: Millis
  /** How often a client with watches looks for changes that it has not heard of. */
  readonly pollIntervalMs?: Millis
  /** How many revisions a watch may lag behind before it fails with COORDINATOR_COMPACTED. */
  readonly historyRevisions?: number
}

/** Long enough for a busy disk; half as long would report a slow fsync as a lost coordinator. */
const CALL_TIME_MS = millis(5_000)
/** For what the bell misses. A lab has some fifteen processes, and each look wakes one up. */
const POLL_INTERVAL_MS = millis(250)
/** When the bell cannot be heard: slower would show in the time that an activation takes. */
const POLL_INTERVAL_DEAF_MS = millis(20)
/** At 1 KiB a change this is 10 MiB; a follower that is away for longer reads everything anew, which is quick. */
const HISTORY_REVISIONS = 10_000
/** Two attempts are this far apart at most: about the time that one commit takes. */
const RETRY_DELAY_MS_MAX = 10

/**
 * Opens the coordinator, making it when it is missing.
 * @throws COORDINATOR_UNAVAILABLE when the file stays locked for the call time, or cannot be opened
 * @throws DATABASE_DAMAGED, DATABASE_FOREIGN
 */
export async function openEmbeddedCoordinator(options: EmbeddedOptions): Promise<Coordinator> {
  const { path, clock, random } = options
  const retry = new Retry(clock, random, options.callTimeMs ?? CALL_TIME_MS)
  const database = await retry.run(() => {
    makeDatabaseFile(path)
    return new EmbeddedDatabase(path, options.historyRevisions ?? HISTORY_REVISIONS)
  })
  try {
    return new EmbeddedCoordinator(database, retry, options)
  } catch (cause) {
    database.close()
    throw new XosanError('COORDINATOR_UNAVAILABLE', { reason: reasonOf(cause) }, { cause })
  }
}

class EmbeddedCoordinator implements Coordinator {
  readonly #database: EmbeddedDatabase
  readonly #retry: Retry
  readonly #bell: Bell
  readonly #poll: WatchPoll

  constructor(database: EmbeddedDatabase, retry: Retry, options: EmbeddedOptions) {
    this.#database = database
    this.#retry = retry
    this.#bell = new Bell(`${options.path}-bell`, () => this.#poll.soon())
    const intervalMs = this.#bell.works ? POLL_INTERVAL_MS : POLL_INTERVAL_DEAF_MS
    this.#poll = new WatchPoll(database, options.clock, options.pollIntervalMs ?? intervalMs)
  }

  async read(key: string): ReturnType<Coordinator['read']> {
    checkKey(key)
    return this.#retry.run(() => this.#database.read(key))
  }

  async list(prefix: string): ReturnType<Coordinator['list']> {
    checkPrefix(prefix)
    return this.#retry.run(() => this.#database.list(prefix))
  }

  async transact(conditions: readonly Condition[], changes: readonly Change[]): Promise<TransactResult> {
    checkTransaction(conditions, changes)
    return this.#retry.run(() => {
      const done = this.#database.transact(conditions, changes)
      if (done.committed) {
        this.#bell.ring()
        this.#poll.soon()
      }
      return done
    })
  }

  watch(prefix: string, afterRevision: number, listener: WatchListener): Watch {
    checkPrefix(prefix)
    return this.#poll.add(prefix, afterRevision, listener)
  }

  async close(): Promise<void> {
    if (this.#retry.close()) {
      this.#bell.close()
      this.#poll.close()
      this.#database.close()
    }
  }
}

/** Repeats an attempt while the database is busy, without ever blocking. */
class Retry {
  readonly #clock: Clock
  readonly #random: Random
  readonly #callTimeMs: Millis
  readonly #waiting = new Set<() => void>()
  #closed = false

  constructor(clock: Clock, random: Random, callTimeMs: Millis) {
    this.#clock = clock
    this.#random = random
    this.#callTimeMs = callTimeMs
  }

  async run<T>(action: () => T): Promise<T> {
    const deadline = this.#clock.now() + this.#callTimeMs
    for (;;) {
      if (this.#closed) {
        throw new XosanError('COORDINATOR_UNAVAILABLE', { reason: 'this client is closed' })
      }
      const attempted = attemptOrExplain(action)
      if (!attempted.busy) {
        return attempted.value
      }
      if (this.#clock.now() >= deadline) {
        throw new XosanError('COORDINATOR_UNAVAILABLE', {
          reason: `another process kept it locked for ${this.#callTimeMs} ms`,
        })
      }
      await this.#pause()
    }
  }

  /** Ends all calls that wait. @returns false when it was closed already */
  close(): boolean {
    const first = !this.#closed
    this.#closed = true
    for (const wake of this.#waiting) {
      wake()
    }
    return first
  }

  /** Random, so that processes that lost together do not all come back together. */
  async #pause(): Promise<void> {
    await new Promise<void>(resolve => {
      let timer: Timer | undefined = undefined
      const wake = (): void => {
        this.#waiting.delete(wake)
        timer?.cancel()
        resolve()
      }
      this.#waiting.add(wake)
      timer = this.#clock.after(millis(1 + this.#random.fraction() * RETRY_DELAY_MS_MAX), wake)
    })
  }
}

function attemptOrExplain<T>(action: () => T): ReturnType<typeof attempt<T>> {
  try {
    return attempt(action)
  } catch (error) {
    if (error instanceof XosanError) {
      throw error
    }
    const code =
      error instanceof CommitFailedError ? 'COORDINATOR_OUTCOME_UNKNOWN' : 'COORDINATOR_UNAVAILABLE'
    throw new XosanError(code, { reason: reasonOf(error) }, { cause: error })
  }
}
