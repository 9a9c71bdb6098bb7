import { type Clock, type Timer } from '../../core/ports/clock.ts'
import { type Millis, millis } from '../../core/units.ts'

/** Time as it passes, of which a test can skip what it would only wait for. */
export class HurriedClock implements Clock {
  #skippedMs = 0
  readonly #timers = new Set<() => void>()

  now(): Millis {
    return millis(performance.now() + this.#skippedMs)
  }

  after(delayMs: Millis, action: () => void): Timer {
    const due = this.now() + delayMs
    let timeout: NodeJS.Timeout
    const arm = (): void => {
      clearTimeout(timeout)
      timeout = setTimeout(fire, Math.max(Math.ceil(due - this.now()), 0))
    }
    const fire = (): void => {
      if (this.now() < due) {
        arm()
        return
      }
      this.#timers.delete(arm)
      action()
    }
    timeout = setTimeout(fire, Math.max(Math.ceil(delayMs), 0))
    this.#timers.add(arm)
    return {
      cancel: () => {
        clearTimeout(timeout)
        this.#timers.delete(arm)
      },
    }
  }

  /** @param durationMs that passes at once */
  skip(durationMs: number): void {
    this.#skippedMs += durationMs
    for (const arm of [...this.#timers]) arm()
  }
}
