/** Runs tasks of one key one after the other, those of different keys at the same time. */
export class KeyedQueue<K> {
  readonly #last = new Map<K, Promise<unknown>>()

  /** Runs a task after all earlier ones of its key have ended, however they ended. */
  async run<T>(key: K, task: () => Promise<T>): Promise<T> {
    const before = this.#last.get(key) ?? Promise.resolve()
    const mine = before.then(task, task)
    this.#last.set(key, mine)
    try {
      return await mine
    } finally {
      if (this.#last.get(key) === mine) this.#last.delete(key)
    }
  }
}
