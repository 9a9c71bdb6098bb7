/**
 * When is a change done? A table, so that it can be checked by reading it.
 *
 * A change is acknowledged when no replica is left for which the table says `wait`. `take out` means that the change
 * is held until the record says that this replica is not in-sync: acknowledging first would leave a replica
 * that the record trusts and that lacks an acknowledged write.
 */

/** How the record (in either version, while a change of it is unsettled) and the primary see a replica. */
export type Standing = 'in-sync' | 'rebuilding' | 'stale'
/** What has come back from a replica for one change. */
export type Answer = 'none yet' | 'done' | 'failed'
export type Decision = 'enough' | 'wait' | 'take out' | 'start again'

export const ACKNOWLEDGEMENT: Readonly<Record<Standing, Readonly<Record<Answer, Decision>>>> = {
  'in-sync': { 'none yet': 'wait', done: 'enough', failed: 'take out' },
  // A rebuilding replica receives all changes, but nobody relies on it yet; if it misses one it starts again.
  rebuilding: { 'none yet': 'enough', done: 'enough', failed: 'start again' },
  // Its intents collect what it misses.
  stale: { 'none yet': 'enough', done: 'enough', failed: 'enough' },
}
