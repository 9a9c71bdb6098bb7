import { type z } from 'zod'
import { XosanError, reasonOf } from '../../core/errors.ts'
import { type Clock } from '../../core/ports/clock.ts'
import { type Millis, millis } from '../../core/units.ts'
import { EtcdCallError } from './call-error.ts'
import { type Members, unavailable } from './members.ts'
import { type Method } from './protocol.ts'
import { type Reply } from './replies.ts'

/**
 * One attempt, of the call time: a member that is lost together with the request is noticed while there is time to ask
 * another one, or to make an unknown outcome certain. Half as much would do so whenever a disk is slow.
 */
const ATTEMPT_SHARE = 0.4
/** No attempt begins when less than this share of the call time is left: it would likely end in doubt. */
const RESERVE_SHARE = 0.2
/** Between attempts that certainly did nothing. */
const RETRY_PAUSE_MS = 20

/** Calls to whichever member answers, each ended within the call time. */
export class Calls {
  readonly #members: Members
  readonly #clock: Clock
  readonly #callTimeMs: Millis

  constructor(members: Members, clock: Clock, callTimeMs: Millis) {
    this.#members = members
    this.#clock = clock
    this.#callTimeMs = callTimeMs
  }

  /** When a call that begins now has to end. */
  deadline(): Millis {
    return millis(this.#clock.now() + this.#callTimeMs)
  }

  /**
   * Asks one member after the other, as long as that is safe.
   * @param effect 'changes' when the request must not be made again unless it certainly did nothing
   * @throws COORDINATOR_UNAVAILABLE (its cause is the last failure), COORDINATOR_OUTCOME_UNKNOWN
   */
  async call<Schema extends z.ZodType<Reply>>(
    method: Method,
    schema: Schema,
    request: object,
    effect: 'reads' | 'changes',
    deadline = this.deadline()
  ): Promise<z.output<Schema>> {
    const latest = millis(deadline - RESERVE_SHARE * this.#callTimeMs)
    for (;;) {
      const link = await this.#members.choose(latest)
      const timeMs = Math.min(deadline - this.#clock.now(), ATTEMPT_SHARE * this.#callTimeMs)
      try {
        const reply = await link.call(method, schema, request, timeMs)
        this.#members.heard(reply, link.name)
        return reply
      } catch (error) {
        if (effect === 'changes' && !(error instanceof EtcdCallError && error.nothingDone)) {
          throw new XosanError('COORDINATOR_OUTCOME_UNKNOWN', { reason: reasonOf(error) }, { cause: error })
        }
        const refused = error instanceof EtcdCallError && error.refused
        if (refused || this.#members.closed || this.#clock.now() + RETRY_PAUSE_MS >= latest) {
          throw unavailable(reasonOf(error), error)
        }
        await this.#members.pause(RETRY_PAUSE_MS)
      }
    }
  }
}
