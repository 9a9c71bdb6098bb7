import { type Clock, type Timer } from '../../core/ports/clock.ts'
import { type Millis } from '../../core/units.ts'

/** Things that are done again and again, until all of them are stopped. */
export class Recurring {
  readonly #clock: Clock
  readonly #timers = new Set<Timer>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  every(intervalMs: Millis, action: () => void): void {
    const timer = this.#clock.after(intervalMs, () => {
      this.#timers.delete(timer)
      // First: the action may stop it.
      this.every(intervalMs, action)
      action()
    })
    this.#timers.add(timer)
  }

  stop(): void {
    for (const timer of this.#timers) timer.cancel()
    this.#timers.clear()
  }
}
