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

/** Runs actions one after the other. */
export class Mutex {
  #tail: Promise<unknown> = Promise.resolve()

  async run<Result>(action: () => Promise<Result>): Promise<Result> {
    const result = this.#tail.then(action)
    this.#tail = result.catch(() => undefined)
    return result
  }
}
