import { type SrRecord } from '../../cluster/records.ts'
import { reasonOf } from '../../core/errors.ts'
import { type Clock, type Timer } from '../../core/ports/clock.ts'
import { type HostId, millis } from '../../core/units.ts'
import { type Log } from '../log.ts'

interface ResumptionOptions {
  readonly self: HostId
  readonly clock: Clock
  readonly log: Log
  /** What is known of the SR; null for none. */
  readonly record: () => Pick<SrRecord, 'succession'> | null
  /** Goes on with the succession that this host has begun, when it is its turn. */
  readonly resume: () => Promise<void>
  /** As an administrator knows a host. */
  readonly nameOf: (host: HostId) => string
}

const AGAIN_MS_MIN = 30_000
/** An attempt that fails half-way has restarted members of etcd. */
const AGAIN_MS_MAX = 15 * 60_000

/**
 * Goes on by itself with a succession that this host has begun and that was broken off. Until it is over nobody joins, no
 * certificate is renewed, and the authority of a removed host is trusted.
 */
export class SuccessionResumption {
  readonly #options: ResumptionOptions
  #againMs = AGAIN_MS_MIN
  #timer: Timer | null = null
  #closed = false

  constructor(options: ResumptionOptions) {
    this.#options = options
  }

  /** Begins to look now and then, until `close`. */
  start(): void {
    if (this.#closed) return
    this.#timer = this.#options.clock.after(millis(this.#againMs), () => void this.#look())
  }

  close(): void {
    this.#closed = true
    this.#timer?.cancel()
  }

  /** What an administrator should know, on every host. */
  get warnings(): readonly string[] {
    const { self, record, nameOf } = this.#options
    const begun = record()?.succession
    if (begun === undefined) return []
    const by = nameOf(begun.by)
    const removed = begun.removed.map(nameOf).join(', ')
    return [
      `Host ${by} takes the place of the one that held the authority. Removed by that: ${removed}. Until it is over the ` +
        'authority of that host is trusted, nobody joins, and no certificate is renewed. ' +
        (begun.by === self ? 'This host' : `Host ${by}`) +
        ' goes on with it by itself as soon as every other host answers; a host that is lost for good has to be removed as ' +
        'well (`xosan host remove`).',
    ]
  }

  /** Never rejects. */
  async #look(): Promise<void> {
    const { self, record, resume, log } = this.#options
    if (record()?.succession?.by === self) {
      try {
        await resume()
        this.#againMs = AGAIN_MS_MIN
      } catch (error) {
        this.#againMs = Math.min(2 * this.#againMs, AGAIN_MS_MAX)
        log.warn('this host could not go on to take the place of the one that held the authority', {
          reason: reasonOf(error),
        })
      }
    }
    this.start()
  }
}
