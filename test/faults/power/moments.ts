/** When the power is cut, and what the disks keep: drawn from a seed before anything is done. */
import { type SeededRandom } from '../../simulator/seeded-random.ts'
import { type Survival } from './volatile-disk.ts'

export type Moment =
  /** While the lanes are opened: recovery itself is cut. `part`: of the time that opening took last. */
  | { readonly kind: 'opening'; readonly part: number }
  /** When the runner reads the n-th acknowledgement of a lane. */
  | { readonly kind: 'acknowledgement'; readonly lane: string; readonly count: number }
  /** At any moment while all lanes are written to. */
  | { readonly kind: 'writing'; readonly afterMs: number }

export interface CutPlan {
  readonly moment: Moment
  readonly survival: Survival
}

const COUNT_MAX = 40
const AFTER_MS_MAX = 6_000

/** Each kind of moment comes in turn, and each lane. @param lanes names */
export function drawCut(random: SeededRandom, number: number, lanes: readonly string[]): CutPlan {
  // Every other cut loses everything: what a missing sync loses for certain. The others leave what is harder to recover from.
  const survival = random.fraction() < 0.5 ? 'nothing' : 'some'
  switch (number % 3) {
    case 0:
      return { moment: atAcknowledgement(random, lanes[Math.floor(number / 3) % lanes.length]!), survival }
    case 1:
      return { moment: { kind: 'writing', afterMs: random.below(AFTER_MS_MAX) }, survival }
    default:
      return { moment: { kind: 'opening', part: random.fraction() }, survival }
  }
}

/** For planted errors: each lane in turn, at an acknowledgement, and everything un-synced is lost. */
export const drawControlCut = (random: SeededRandom, number: number, lanes: readonly string[]): CutPlan => ({
  moment: atAcknowledgement(random, lanes[number % lanes.length]!),
  survival: 'nothing',
})

const atAcknowledgement = (random: SeededRandom, lane: string): Moment => ({
  kind: 'acknowledgement',
  lane,
  count: 1 + random.below(COUNT_MAX),
})

export function momentText(moment: Moment): string {
  switch (moment.kind) {
    case 'opening':
      return 'while everything is opened'
    case 'acknowledgement':
      return `at acknowledgement ${moment.count} of ${moment.lane}`
    case 'writing':
      return `after ${moment.afterMs} ms of writing`
  }
}
