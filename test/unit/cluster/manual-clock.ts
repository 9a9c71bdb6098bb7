import { setImmediate as turn } from 'node:timers/promises'
import { type Clock, type Timer } from '../../../core/ports/clock.ts'
import { type Millis, millis } from '../../../core/units.ts'

interface Pending {
  readonly due: number
  readonly action: () => void
}

/** A clock that stands still until a test moves it. */
export class ManualClock implements Clock {
  #now = 0
  readonly #pending = new Set<Pending>()

  now(): Millis {
    return millis(this.#now)
  }

  after(delayMs: Millis, action: () => void): Timer {
    const pending = { due: this.#now + delayMs, action }
    this.#pending.add(pending)
    return { cancel: () => this.#pending.delete(pending) }
  }

  /** Moves time, running what falls due in order, and lets promises settle after each step. */
  async advance(durationMs: number): Promise<void> {
    const end = this.#now + durationMs
    await turn()
    for (;;) {
      const next = this.#next(end)
      if (next === null) {
        break
      }
      this.#pending.delete(next)
      this.#now = next.due
      next.action()
      await turn()
    }
    this.#now = end
  }

  #next(end: number): Pending | null {
    let first: Pending | null = null
    for (const pending of this.#pending) {
      if (pending.due <= end && (first === null || pending.due < first.due)) {
        first = pending
      }
    }
    return first
  }
}
