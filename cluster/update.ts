/**
 * Changes one entry by compare-and-swap until it is done, certainly not done, or time is up.
 *
 * The difficulty is the answer that was lost: the change may have happened, or may still happen later. Reading cannot
 * settle that, because a change that is not there now may arrive the moment after. What settles it is another
 * compare-and-swap on the same conditions: it either succeeds, and then the condition of the lost one can never hold
 * again, or it is refused because one of its entries has another revision by now, which has the same consequence. So after an
 * unknown outcome exactly the same change is sent again, and nothing else, until one of the two is known. If the
 * refusal shows an entry that is the caller's own, the lost change was made after all.
 *
 * One case is left to the caller: a lost creation (condition 0) could arrive after somebody has removed the entry
 * again. Volume keys are never used twice, and what such a creation leaves behind is marked `creating`, which whoever
 * finds it undoes.
 */
import { XosanError, hasCode } from '../core/errors.ts'
import { type Clock } from '../core/ports/clock.ts'
import { type Change, type Condition, type Coordinator, type Entry } from '../core/ports/coordinator.ts'
import { type Random } from '../core/ports/random.ts'
import { type Millis, millis } from '../core/units.ts'

/** What the entry shall become. */
export interface Proposal {
  /** Null removes it. */
  readonly value: string | null
  /** What must hold of other keys. When it does not, `change` is asked again. */
  readonly conditions?: readonly Condition[]
  /** Changes of other keys in the same transaction. */
  readonly alongside?: readonly Change[]
}

export interface UpdateOptions {
  readonly clock: Clock
  readonly random: Random
  /** Reading of the clock. */
  readonly deadline: Millis
  /**
   * Recognises the caller's own change in what it finds (by host, epoch and operation id; null: the entry is
   * missing), after an answer was lost.
   */
  readonly isMine: (current: Entry | null) => boolean
}

export interface Updated {
  /** False: `change` said 'unchanged'. */
  readonly changed: boolean
  /** The entry after the call; null when it does not exist. */
  readonly entry: Entry | null
  /** Revision of the coordinator that includes the change. */
  readonly revision: number
}

const PAUSE_MS_MIN = 5
const PAUSE_MS_MAX = 500

/**
 * Changes an entry.
 * @param change called with the entry as it is (null: missing), maybe several times; what it throws ends the update,
 * with nothing changed
 * @throws COORDINATOR_OUTCOME_UNKNOWN when the deadline comes before the outcome is settled: the change may have
 * happened or may still happen
 * @throws COORDINATOR_UNAVAILABLE, DEADLINE_EXCEEDED when the deadline has come and nothing was changed
 */
export async function update(
  coordinator: Coordinator,
  key: string,
  change: (current: Entry | null) => Proposal | 'unchanged' | Promise<Proposal | 'unchanged'>,
  options: UpdateOptions
): Promise<Updated> {
  const patience = new Patience(options)
  let { entry, revision } = await patience.persist(async () => coordinator.read(key))
  for (;;) {
    const proposal = await change(entry)
    if (proposal === 'unchanged') {
      return { changed: false, entry, revision }
    }
    const settled = await swap(coordinator, key, entry, proposal, patience)
    entry = settled.entry
    revision = settled.revision
    if (settled.committed || (settled.wasUnknown && options.isMine(entry))) {
      return { changed: true, entry, revision }
    }
    // Somebody else was faster; a short random pause lets one of several contenders through.
    await patience.pause(
      new XosanError('DEADLINE_EXCEEDED', {
        what: `changing ${key}, which others keep changing,`,
        deadlineMs: patience.givenMs,
      })
    )
  }
}

interface Settled {
  readonly committed: boolean
  /** An earlier attempt of the same change had an unknown outcome. */
  readonly wasUnknown: boolean
  readonly entry: Entry | null
  readonly revision: number
}

/** Sends one change until its outcome is certain. */
async function swap(
  coordinator: Coordinator,
  key: string,
  current: Entry | null,
  { value, conditions: others = [], alongside = [] }: Proposal,
  patience: Patience
): Promise<Settled> {
  const conditions = [{ key, revision: current?.revision ?? 0 }, ...others]
  const changes = [{ key, value }, ...alongside]
  let unknown: XosanError | null = null
  for (;;) {
    try {
      const { committed, revision, current: found } = await coordinator.transact(conditions, changes)
      const made = value === null ? null : { key, value, revision }
      const entry = committed ? made : (found.find(one => one.key === key) ?? null)
      return { committed, wasUnknown: unknown !== null, entry, revision }
    } catch (error) {
      if (hasCode(error, 'COORDINATOR_OUTCOME_UNKNOWN')) {
        unknown = error
      } else if (!hasCode(error, 'COORDINATOR_UNAVAILABLE')) {
        throw unknown ?? error
      }
      await patience.pause(unknown ?? error)
    }
  }
}

/** Pauses that grow, with a random part, until the deadline. */
class Patience {
  readonly givenMs: Millis
  readonly #options: UpdateOptions
  #pauseMs = PAUSE_MS_MIN

  constructor(options: UpdateOptions) {
    this.#options = options
    this.givenMs = millis(Math.max(options.deadline - options.clock.now(), 0))
  }

  /** Repeats a call that changes nothing while the coordinator is unavailable. */
  async persist<T>(call: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await call()
      } catch (error) {
        if (!hasCode(error, 'COORDINATOR_UNAVAILABLE')) {
          throw error
        }
        await this.pause(error)
      }
    }
  }

  /** @throws the given error instead, when the deadline would come first */
  async pause(atDeadline: XosanError): Promise<void> {
    const { clock, deadline, random } = this.#options
    const durationMs = this.#pauseMs * (0.5 + random.fraction())
    if (clock.now() + durationMs >= deadline) {
      throw atDeadline
    }
    this.#pauseMs = Math.min(this.#pauseMs * 2, PAUSE_MS_MAX)
    await new Promise<void>(resolve => {
      clock.after(millis(durationMs), resolve)
    })
  }
}
