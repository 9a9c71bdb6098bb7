/**
 * Counts operations under way, so that somebody can wait for the end of all that had begun before, whatever begins
 * meanwhile. Each wait starts a new generation; it ends when no operation of an older one is left.
 */
export class Operations {
  #generation = 0
  readonly #underWay = new Map<number, number>()
  #waiters: { readonly before: number; readonly resolve: () => void }[] = []

  /** Counts an operation in. @returns what to pass to `end` */
  begin(): number {
    const generation = this.#generation
    this.#underWay.set(generation, (this.#underWay.get(generation) ?? 0) + 1)
    return generation
  }

  end(generation: number): void {
    const left = this.#underWay.get(generation)! - 1
    if (left > 0) {
      this.#underWay.set(generation, left)
      return
    }
    this.#underWay.delete(generation)
    const done = this.#waiters.filter(({ before }) => !this.#anyBefore(before))
    this.#waiters = this.#waiters.filter(({ before }) => this.#anyBefore(before))
    for (const { resolve } of done) resolve()
  }

  /** Resolves when every operation that has begun before the call has ended. */
  async drained(): Promise<void> {
    this.#generation += 1
    const before = this.#generation
    if (!this.#anyBefore(before)) return
    await new Promise<void>(resolve => this.#waiters.push({ before, resolve }))
  }

  #anyBefore(before: number): boolean {
    for (const generation of this.#underWay.keys()) if (generation < before) return true
    return false
  }
}
