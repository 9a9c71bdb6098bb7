/** What workers are asked, and what they answer. */
import { type UniverseReport } from './universe.ts'

export type ToWorker =
  { readonly ask: 'universe'; readonly seed: number } | { readonly ask: 'what was not reached' }

/** What became of one seed. */
export interface Outcome {
  readonly report: UniverseReport
  /** Hash of the log; empty unless `--digest`. */
  readonly digest: string
}

/** Places of the script, from the first to the last: start and end of each stretch. */
export type Stretches = readonly (readonly [number, number])[]

export type FromWorker = { readonly outcome: Outcome } | { readonly notReached: Stretches }
