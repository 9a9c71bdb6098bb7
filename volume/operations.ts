import { type Operation } from '../core/mirror/volume-record.ts'
import { type Random } from '../core/ports/random.ts'
import { type HostId } from '../core/units.ts'

/**
 * The half-done operations that this run of xosand is at. An operation's id says which run began it, so that after a
 * crash the next run sees that nobody is at it any more.
 */
export class Operations {
  readonly #host: HostId
  readonly #random: Random
  readonly #run: string
  readonly #underWay = new Set<string>()

  constructor(host: HostId, random: Random) {
    this.#host = host
    this.#random = random
    this.#run = random.uuid()
  }

  /** Runs work under a new operation, which counts as under way until the work has ended. */
  async run<T>(kind: Operation['kind'], work: (operation: Operation) => Promise<T>): Promise<T> {
    const operation: Operation = { kind, host: this.#host, id: `${this.#run}/${this.#random.uuid()}` }
    this.#underWay.add(operation.id)
    try {
      return await work(operation)
    } finally {
      this.#underWay.delete(operation.id)
    }
  }

  isUnderWay(id: string): boolean {
    return this.#underWay.has(id)
  }
}
