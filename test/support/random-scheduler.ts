import { type SeededRandom } from '../simulator/seeded-random.ts'

/**
 * Lets waiting calls go on one at a time, in an order that a seed decides, and stops at a chosen step.
 */
export class RandomScheduler {
  readonly #random: SeededRandom
  #waiting: (() => void)[] = []
  #steps = 0

  constructor(random: SeededRandom) {
    this.#random = random
  }

  readonly delay = (): Promise<void> => new Promise(resolve => this.#waiting.push(resolve))

  /** Forgets all who wait, as the death of their process does. */
  forget(): void {
    this.#waiting = []
  }

  /**
   * Runs until the work has ended, or for a number of steps.
   * @returns whether the work has ended
   */
  async run(work: Promise<unknown>, stepsMax: number): Promise<boolean> {
    const outcome: { ended: boolean; failure?: unknown } = { ended: false }
    work.then(
      () => {
        outcome.ended = true
      },
      (failure: unknown) => {
        outcome.ended = true
        outcome.failure = failure
      }
    )
    const end = this.#steps + stepsMax
    for (;;) {
      // All promises that can settle without the disk settle before the next turn of the loop.
      await new Promise(resolve => setImmediate(resolve))
      if (outcome.failure !== undefined) throw outcome.failure as Error
      if (outcome.ended) return true
      if (this.#steps >= end) return false
      const [next] = this.#waiting.splice(this.#random.below(this.#waiting.length), 1)
      if (next === undefined) throw new Error('nobody waits for the disk, and the work has not ended')
      this.#steps += 1
      next()
    }
  }
}
