import { type Clock } from '../../core/ports/clock.ts'
import { type Millis } from '../../core/units.ts'

/** Something to wait for that happens again and again. */
export class Signal {
  #waiters = new Set<() => void>()

  /** Resolves at the next `notify`. */
  async next(): Promise<void> {
    return new Promise(resolve => this.#waiters.add(resolve))
  }

  /** Resolves at the next `notify`, or after a time; then nothing of it stays here. */
  async nextWithin(clock: Clock, ms: Millis): Promise<void> {
    return new Promise(resolve => {
      const done = (): void => {
        timer.cancel()
        this.#waiters.delete(done)
        resolve()
      }
      const timer = clock.after(ms, done)
      this.#waiters.add(done)
    })
  }

  notify(): void {
    const waiters = this.#waiters
    this.#waiters = new Set()
    for (const waiter of waiters) waiter()
  }
}

/** Runs actions one after the other. */
export class Mutex {
  #tail: Promise<unknown> = Promise.resolve()

  async run<Result>(action: () => Promise<Result>): Promise<Result> {
    const result = this.#tail.then(action)
    this.#tail = result.catch(() => undefined)
    return result
  }
}
