import { hasCode, type XosanError } from '../core/errors.ts'
import { type Change, type Condition, type Entry, type TransactResult } from '../core/ports/coordinator.ts'
import { millis } from '../core/units.ts'
import { type VolumeContext } from './context.ts'
import { type Deadline } from './deadline.ts'

/** What shall become of one entry, and what must hold and change together with it. */
export interface Amendment {
  /** The entry's new text, or null to remove it. */
  readonly value: string | null
  readonly conditions?: readonly Condition[]
  readonly changes?: readonly Change[]
}

/** Delay after the first lost race, in milliseconds; it doubles up to 32 times that. */
const BACKOFF_MS = 2

type AmendContext = Pick<VolumeContext, 'coordinator' | 'clock' | 'random'>

/**
 * Makes a change by compare-and-swap, again and again until it is made or is no longer wanted.
 *
 * @param decide is given the entry as it is now, and says what to do; null when nothing is left to do, which must
 *   include that the change has been made already, by whomever. It throws to give up.
 * @returns the coordinator's revision that includes the change
 * @throws XosanError what `decide` throws; COORDINATOR_UNAVAILABLE; DEADLINE_EXCEEDED
 */
export async function amend(
  context: AmendContext,
  key: string,
  decide: (current: Entry | null) => Amendment | null | Promise<Amendment | null>,
  deadline: Deadline
): Promise<number> {
  let { entry, revision } = await deadline.race(context.coordinator.read(key))
  for (let attempt = 0; ; attempt++) {
    const amendment = await decide(entry)
    if (amendment === null) return revision
    const result = await transactUntilKnown(
      context,
      [{ key, revision: entry?.revision ?? 0 }, ...(amendment.conditions ?? [])],
      [{ key, value: amendment.value }, ...(amendment.changes ?? [])],
      deadline
    )
    if (result.committed) return result.revision
    entry = result.current.find(current => current.key === key) ?? null
    revision = result.revision
    if (attempt > 0) {
      const limitMs = BACKOFF_MS * 2 ** Math.min(attempt, 5)
      await pause(context, limitMs * context.random.fraction())
    }
  }
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
