import { XosanError } from '../core/errors.ts'
import { type Clock } from '../core/ports/clock.ts'
import { type Millis, millis } from '../core/units.ts'

/** The moment by which a call must have an answer, handed down through everything that it waits for. */
export class Deadline {
  readonly #clock: Clock
  readonly #what: string
  readonly #totalMs: number
  /** Reading of the clock. */
  readonly at: Millis

  /** @param what names the call in the error @param totalMs from now, in milliseconds */
  constructor(clock: Clock, what: string, totalMs: number) {
    this.#clock = clock
    this.#what = what
    this.#totalMs = totalMs
    this.at = millis(clock.now() + totalMs)
  }

  /**
   * Time left in milliseconds, at least 1.
   *
   * @param atMost what one step may take of it
   * @throws XosanError DEADLINE_EXCEEDED when none is left
   */
  remainingMs(atMost = Number.POSITIVE_INFINITY): number {
    const remaining = this.at - this.#clock.now()
    if (remaining < 1) throw this.exceeded()
    return Math.min(remaining, atMost)
  }

  /** Ends the waiting, not what is waited for. @throws XosanError DEADLINE_EXCEEDED when the time is over first */
  async race<T>(work: Promise<T>): Promise<T> {
    // Whether it fails no longer matters once the time is over.
    work.catch(() => undefined)
    let expire: (error: XosanError) => void = () => undefined
    const expired = new Promise<never>((_, reject) => {
      expire = reject
    })
    const timer = this.#clock.after(millis(this.remainingMs()), () => expire(this.exceeded()))
    try {
      return await Promise.race([work, expired])
    } finally {
      timer.cancel()
    }
  }

  exceeded(): XosanError {
    return new XosanError('DEADLINE_EXCEEDED', { what: this.#what, deadlineMs: this.#totalMs })
  }
}
