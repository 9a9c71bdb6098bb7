import { type Clock } from '../../core/ports/clock.ts'
import { type Millis } from '../../core/units.ts'

/** Something to wait for that happens again and again. */
export class Signal {
  #waiters: (() => void)[] = []

  /** Resolves at the next `notify`. */
  async next(): Promise<void> {
    return new Promise(resolve => this.#waiters.push(resolve))
  }

  notify(): void {
    const waiters = this.#waiters
    this.#waiters = []
    for (const waiter of waiters) waiter()
  }
}

/** Resolves after a delay. */
export const pause = async (clock: Clock, ms: Millis): Promise<void> =>
  new Promise(resolve => clock.after(ms, resolve))

/** Runs actions one after the other. */
export class Mutex {
  #tail: Promise<unknown> = Promise.resolve()

  async run<Result>(action: () => Promise<Result>): Promise<Result> {
    const result = this.#tail.then(action)
    this.#tail = result.catch(() => undefined)
    return result
  }
}
