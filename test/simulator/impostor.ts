/**
 * A process that repeats in its own name what it overheard. Between hosts every peer is authenticated, and none that
 * works does this; but who may change a replica is decided there, and must not hang on what others refrain from. None of
 * these messages may be believed, as long as the replica knows whose the epoch is.
 */
import { type ConfirmRequest } from '../../core/mirror/messages.ts'
import { type BootId, type Epoch, type Incarnation } from '../../core/units.ts'
import { type DatapathNode } from '../../datapath/process/datapath-node.ts'
import { type SimulatedHost } from './simulated-host.ts'
import { type SeededRandom } from './world.ts'

/** How often something that was overheard is repeated. */
const CHANCE = 0.05

export class Impostor {
  readonly #random: SeededRandom
  readonly #problem: (text: string) => void

  constructor(random: SeededRandom, problem: (text: string) => void) {
    this.#random = random
    this.#problem = problem
  }

  /** A replica has just believed its primary, and knows that it did. */
  overheard(host: SimulatedHost, { replicas }: DatapathNode, request: ConfirmRequest): void {
    if (!this.#random.chance(CHANCE)) return
    const { address, epoch } = request
    const asker = {
      host: request.asker.host,
      boot: this.#random.uuid() as BootId,
      incarnation: this.#random.uuid() as Incarnation,
    }
    const answers = [
      replicas.confirm({ ...request, asker }),
      replicas.raise({ address, from: epoch, to: (epoch + 1) as Epoch, asker, inSync: true }),
      replicas.accept({ ...request, asker, inSync: true, voidUpTo: 0 as Epoch }),
    ]
    for (const answer of answers) void answer.then(({ kind }) => this.#check(host, kind), notAnswered)
  }

  #check({ name }: SimulatedHost, kind: string): void {
    if (kind === 'ok' || kind === 'accepted')
      this.#problem(`P3: ${name} believed a process that is not the primary`)
  }
}

/** Busy: then it believed nobody. */
const notAnswered = (): void => undefined
