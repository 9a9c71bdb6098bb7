/**
 * The bytes that all connections of a server together may have under way.
 *
 * A connection that has nothing under way is always admitted, also beyond the limit. So a client that fills the budget
 * and then stops in the middle of a write, or reads no replies, slows the others down to one request at a time but
 * cannot stop them; and no time limit is needed, which could hit a guest that was merely paused.
 */
export class InFlightBudget {
  readonly #max: number
  #used = 0
  /** Connections to wake when there is room again, oldest first. */
  readonly #waiting = new Set<() => void>()

  /** @param max in bytes */
  constructor(max: number) {
    this.#max = max
  }

  /** Bytes under way. */
  get used(): number {
    return this.#used
  }

  /**
   * Takes room for a request.
   * @param idle true when the asker has nothing under way
   * @returns false when there is none: `wait` then tells when to ask again
   */
  tryAcquire(bytes: number, idle: boolean): boolean {
    if (!idle && this.#used + bytes > this.#max) return false
    this.#used += bytes
    return true
  }

  /** Calls back once when room may be there. */
  wait(wake: () => void): void {
    this.#waiting.add(wake)
  }

  /** The caller no longer waits. */
  forget(wake: () => void): void {
    this.#waiting.delete(wake)
  }

  release(bytes: number): void {
    this.#used -= bytes
    // Whoever finds no room puts itself back, behind the others; the copy ends this round nevertheless.
    if (this.#used >= this.#max || this.#waiting.size === 0) return
    const woken = [...this.#waiting]
    this.#waiting.clear()
    for (const wake of woken) wake()
  }
}
