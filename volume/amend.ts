import { update, type Proposal } from '../cluster/update.ts'
import { hasCode, type XosanError } from '../core/errors.ts'
import { type Change, type Condition, type Entry, type TransactResult } from '../core/ports/coordinator.ts'
import { millis } from '../core/units.ts'
import { type VolumeContext } from './context.ts'
import { type Deadline } from './deadline.ts'

type AmendContext = Pick<VolumeContext, 'coordinator' | 'clock' | 'random'>

/**
 * Makes a change by compare-and-swap, again and again until it is made or is no longer wanted.
 *
 * @param decide is given the entry as it is now, and says what to make of it; 'unchanged' when nothing is left to do,
 *   which must include that the change has been made already, by whomever. It throws to give up.
 * @throws XosanError what `decide` throws, and as `update`
 */
export async function amend(
  { coordinator, clock, random }: AmendContext,
  key: string,
  decide: (current: Entry | null) => Proposal | 'unchanged',
  deadline: Deadline
): Promise<void> {
  // After a lost answer `decide` itself recognises what was made.
  const isMine = () => false
  await update(coordinator, key, decide, { clock, random, deadline: deadline.at, isMine })
}

/**
 * Transacts until the outcome is certain.
 *
 * When an answer was lost, the same transaction is made again. If that one is made, the lost one can no longer be:
 * its conditions no longer hold. If it is refused, the lost one was made or never will be; the entries in the result
 * tell which.
 */
export async function transactUntilKnown(
  context: AmendContext,
  conditions: readonly Condition[],
  changes: readonly Change[],
  deadline: Deadline
): Promise<TransactResult> {
  let unknown: XosanError | null = null
  for (;;) {
    try {
      return await deadline.race(context.coordinator.transact(conditions, changes))
    } catch (error) {
      // Once an answer was lost, no later failure makes the outcome certain.
      if (!hasCode(error, 'COORDINATOR_OUTCOME_UNKNOWN')) throw unknown ?? error
      unknown = error
    }
  }
}

/** Waits. @param durationMs in milliseconds */
export async function pause(context: Pick<AmendContext, 'clock'>, durationMs: number): Promise<void> {
  await new Promise<void>(resolve => {
    context.clock.after(millis(durationMs), resolve)
  })
}
