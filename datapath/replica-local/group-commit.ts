/**
 * Lets many callers share one costly round, such as a sync: at most one round runs at a time, and all who come
 * while it runs share the next one. A caller's round always begins after its call, so it covers whatever the
 * caller did before. This is the group commit of databases.
 */
export class GroupCommit {
  readonly #round: () => Promise<void>
  #running: Promise<void> | undefined
  #waiting: Promise<void> | undefined

  /** @param round makes durable, or writes, everything that was asked for before it begins */
  constructor(round: () => Promise<void>) {
    this.#round = round
  }

  /** Resolves when a round that began after this call has ended; rejects when that round failed. */
  commit(): Promise<void> {
    if (this.#running === undefined) return this.#begin()
    const begin = (): Promise<void> => this.#begin()
    this.#waiting ??= this.#running.then(begin, begin)
    return this.#waiting
  }

  #begin(): Promise<void> {
    this.#waiting = undefined
    const round = this.#round().finally(() => {
      // While a round waits, it is the one to follow: a caller that comes right now must not start another.
      if (this.#waiting === undefined) this.#running = undefined
    })
    this.#running = round
    return round
  }
}
