/**
 * Changes entries by compare-and-swap until it is done, certainly not done, or time is up.
 *
 * The difficulty is the answer that was lost: the change may have happened, or may still happen later. Reading cannot
 * settle that, because a change that is not there now may arrive the moment after. What settles it is another
 * compare-and-swap on the same conditions: it either succeeds, and then the condition of the lost one can never hold
 * again, or it is refused because one of its entries has another revision by now, which has the same consequence. So after an
 * unknown outcome exactly the same change is sent again, and nothing else, until one of the two is known.
 *
 * One case is left to the caller: a lost creation (condition 0) could arrive after somebody has removed the entry
 * again. Volume keys are never used twice, and what such a creation leaves behind is marked `creating`, which whoever
 * finds it undoes.
 */
import { XosanError, hasCode } from '../core/errors.ts'
import { type Clock, pause } from '../core/ports/clock.ts'
import {
  type Change,
  type Condition,
  type Coordinator,
  type Entry,
  type TransactResult,
} from '../core/ports/coordinator.ts'
import { type Random } from '../core/ports/random.ts'
import { type Millis, millis } from '../core/units.ts'

export interface UpdateContext {
  readonly coordinator: Coordinator
  readonly clock: Clock
  readonly random: Random
}

/** What the entry shall become. */
export interface Proposal {
  /** Null removes it. */
  readonly value: string | null
  /** Changes of other keys in the same transaction. */
  readonly alongside?: readonly Change[]
}

const PAUSE_MS_MIN = 5
const PAUSE_MS_MAX = 500

/**
 * Changes an entry, again and again until the change is made or is no longer wanted.
 *
 * @param decide is given the entry as it is (null: missing), and says what to make of it; 'unchanged' when nothing is
 *   left to do, which must include that the change has been made already: by somebody else, or by this very call,
 *   whose answer was lost. Called once for each version that was met; what it throws ends the update, with nothing
 *   changed.
 * @param deadline reading of the clock after which no further attempt begins
 * @throws XosanError COORDINATOR_OUTCOME_UNKNOWN when the deadline comes before the outcome is settled: the change may
 *   have happened or may still happen. COORDINATOR_UNAVAILABLE, DEADLINE_EXCEEDED when it comes and nothing was changed
 */
export async function update(
  context: UpdateContext,
  key: string,
  decide: (current: Entry | null) => Proposal | 'unchanged',
  deadline: Millis
): Promise<void> {
  const patience = new Patience(context, deadline)
  let entry = await readPatiently(context.coordinator, key, patience)
  for (let attempt = 0; ; attempt++) {
    const proposal = decide(entry)
    if (proposal === 'unchanged') return
    // Somebody else was faster; a short random pause lets one of several contenders through.
    if (attempt > 0) await patience.pause(patience.overtaken(key))
    const { value, alongside = [] } = proposal
    const { committed, current } = await settle(
      context.coordinator,
      [{ key, revision: entry?.revision ?? 0 }],
      [{ key, value }, ...alongside],
      patience
    )
    if (committed) return
    entry = current.find(one => one.key === key) ?? null
  }
}

/**
 * Transacts until the outcome is certain.
 *
 * @param deadline reading of the clock after which no further attempt begins
 * @returns as `Coordinator.transact`; when it was refused after an answer was lost, the entries in it tell whether the
 *   lost one was made
 * @throws XosanError as `update`
 */
export async function transactUntilKnown(
  context: UpdateContext,
  conditions: readonly Condition[],
  changes: readonly Change[],
  deadline: Millis
): Promise<TransactResult> {
  return settle(context.coordinator, conditions, changes, new Patience(context, deadline))
}

async function settle(
  coordinator: Coordinator,
  conditions: readonly Condition[],
  changes: readonly Change[],
  patience: Patience
): Promise<TransactResult> {
  let unknown: XosanError | null = null
  for (;;) {
    try {
      return await coordinator.transact(conditions, changes)
    } catch (error) {
      // Once an answer was lost, no later failure makes the outcome certain.
      if (hasCode(error, 'COORDINATOR_OUTCOME_UNKNOWN')) unknown = error
      else if (!hasCode(error, 'COORDINATOR_UNAVAILABLE')) throw unknown ?? error
      await patience.pause(unknown ?? error)
    }
  }
}

/** Reading changes nothing, so it may be repeated at will while the coordinator is unavailable. */
async function readPatiently(
  coordinator: Coordinator,
  key: string,
  patience: Patience
): Promise<Entry | null> {
  for (;;) {
    try {
      return (await coordinator.read(key)).entry
    } catch (error) {
      if (!hasCode(error, 'COORDINATOR_UNAVAILABLE')) throw error
      await patience.pause(error)
    }
  }
}

/** Pauses that grow, with a random part, until the deadline. */
class Patience {
  readonly #context: UpdateContext
  readonly #deadline: Millis
  readonly #givenMs: number
  #pauseMs = PAUSE_MS_MIN

  constructor(context: UpdateContext, deadline: Millis) {
    this.#context = context
    this.#deadline = deadline
    this.#givenMs = Math.max(deadline - context.clock.now(), 0)
  }

  /** What to say when the deadline comes while others are always faster. */
  overtaken(key: string): XosanError {
    const what = `changing ${key}, which others keep changing,`
    return new XosanError('DEADLINE_EXCEEDED', { what, deadlineMs: this.#givenMs })
  }

  /** @throws the given error instead, when the deadline would come first */
  async pause(atDeadline: XosanError): Promise<void> {
    const { clock, random } = this.#context
    const durationMs = this.#pauseMs * (0.5 + random.fraction())
    if (clock.now() + durationMs >= this.#deadline) throw atDeadline
    this.#pauseMs = Math.min(this.#pauseMs * 2, PAUSE_MS_MAX)
    await pause(clock, millis(durationMs))
  }
}
