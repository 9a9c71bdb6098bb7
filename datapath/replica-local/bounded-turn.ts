import { XosanError } from '../../core/errors.ts'
import { type Clock, type Timer } from '../../core/ports/clock.ts'
import { type Millis, type VolumeKey } from '../../core/units.ts'

/** An action that waits for its turn. */
interface Waiting {
  readonly what: string
  readonly start: () => Promise<void>
}

/**
 * Runs actions on one replica, one after the other, for callers that do not wait for ever.
 *
 * An action may wait for a disk that never answers, and holds the turn for as long. Who comes then is told so in time,
 * and leaves the queue: it has to ask again, so there are never more actions waiting than callers. An action that has
 * begun goes on to its end whether or not its caller still waits.
 */
export class BoundedTurn {
  readonly #clock: Clock
  readonly #volume: VolumeKey
  #queue: Waiting[] = []
  #current: { what: string; readonly since: Millis } | null = null

  /** @param volume whose replica it is, for messages */
  constructor(clock: Clock, volume: VolumeKey) {
    this.#clock = clock
    this.#volume = volume
  }

  /** What has the turn and for how long, in words for an administrator; null when nothing has. */
  get doing(): string | null {
    if (this.#current === null) return null
    const seconds = Math.floor((this.#clock.now() - this.#current.since) / 1000)
    return seconds < 2 ? this.#current.what : `${this.#current.what}, for ${seconds} s now`
  }

  /** The action that has the turn says what it has come to. */
  reached(what: string): void {
    if (this.#current !== null) this.#current.what = what
  }

  /**
   * Runs an action after those that were asked for before.
   * @param what the action does, as an administrator would say it
   * @param patienceMs how long the caller waits, for the turn and for the action together; for ever if not given
   * @throws REPLICA_BUSY when that time is over
   */
  async run<Result>(what: string, action: () => Promise<Result>, patienceMs?: Millis): Promise<Result> {
    return new Promise<Result>((resolve, reject) => {
      let timer: Timer | null = null
      const start = async (): Promise<void> =>
        action()
          .then(resolve, reject)
          .finally(() => timer?.cancel())
      const waiting: Waiting = { what, start }
      if (patienceMs !== undefined) {
        timer = this.#clock.after(patienceMs, () => {
          this.#queue = this.#queue.filter(other => other !== waiting)
          reject(this.#busy())
        })
      }
      this.#queue.push(waiting)
      if (this.#current === null) void this.#work()
    })
  }

  async #work(): Promise<void> {
    for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
      this.#current = { what: next.what, since: this.#clock.now() }
      await next.start()
    }
    this.#current = null
  }

  #busy(): XosanError {
    return new XosanError('REPLICA_BUSY', { volume: this.#volume, reason: this.doing ?? 'it is being used' })
  }
}
