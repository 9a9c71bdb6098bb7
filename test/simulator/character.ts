import { SeededRandom } from './world.ts'

/** The part of the universes in which faults are rare, and last: else nothing would ever be waited for to its end. */
const STEADY_PART = 0.12
/** The part of the others in which nothing but plots is played, one after the other. */
const STAGED_PART = 0.3
const STEADY_SEED = 0x73746479
const STAGED_SEED = 0x73746167

/** What kind of universe a seed makes, apart from all other choices that it decides. */
export function characterOf(seed: number): { readonly steady: boolean; readonly staged: boolean } {
  const steady = new SeededRandom(seed ^ STEADY_SEED).chance(STEADY_PART)
  return { steady, staged: !steady && new SeededRandom(seed ^ STAGED_SEED).chance(STAGED_PART) }
}
