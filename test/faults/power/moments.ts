/** When the power is cut, and what the disks keep: drawn from a seed before anything is done. */
import { type SeededRandom } from '../../simulator/seeded-random.ts'
import { type PlantedError } from './planted-errors.ts'
import { type Survival } from './volatile-disk.ts'

export type Moment =
  /** While the lanes are opened: recovery itself is cut. `part`: of the time that opening took last. */
  | { readonly kind: 'opening'; readonly part: number }
  /** When the runner reads the n-th acknowledgement of a lane, or of some chains of it. */
  | {
      readonly kind: 'acknowledgement'
      readonly lane: string
      readonly chains: readonly string[] | null
      readonly count: number
    }
  /** When a lane's disk has taken its n-th write since all lanes were open: in the middle of what a sync makes durable. */
  | { readonly kind: 'disk-write'; readonly lane: string; readonly count: number }

export interface CutPlan {
  readonly moment: Moment
  readonly survival: Survival
}

const COUNT_MAX = 40
const CONTROL_COUNT_MAX = 8
/** An item costs a disk from three writes to some ten. */
const WRITES_MAX = 120

/** Each kind of moment comes in turn, and each lane; the first cut comes while everything is made. @param lanes names */
export function drawCut(random: SeededRandom, number: number, lanes: readonly string[]): CutPlan {
  // Half of the cuts lose everything: what a missing sync loses for certain. The others leave what is harder to recover from.
  const survival = random.fraction() < 0.5 ? 'nothing' : 'some'
  const lane = lanes[Math.floor(number / 3) % lanes.length]!
  switch (number % 3) {
    case 0:
      return { moment: { kind: 'opening', part: random.fraction() }, survival }
    case 1:
      return {
        moment: { kind: 'acknowledgement', lane, chains: null, count: 1 + random.below(COUNT_MAX) },
        survival,
      }
    default:
      return { moment: { kind: 'disk-write', lane, count: 1 + random.below(WRITES_MAX) }, survival }
  }
}

/** For planted errors: each lane in turn, at an acknowledgement that it breaks, and everything un-synced is lost. */
export function drawControlCut(
  random: SeededRandom,
  number: number,
  lanes: readonly { readonly name: string; readonly planted: Pick<PlantedError, 'chains'> | null }[]
): CutPlan {
  const { name, planted } = lanes[number % lanes.length]!
  const chains = planted?.chains ?? null
  const count = 1 + random.below(CONTROL_COUNT_MAX)
  return { moment: { kind: 'acknowledgement', lane: name, chains, count }, survival: 'nothing' }
}

export function momentText(moment: Moment): string {
  switch (moment.kind) {
    case 'opening':
      return 'while everything is opened'
    case 'acknowledgement':
      return `at acknowledgement ${moment.count} of ${moment.lane}`
    case 'disk-write':
      return `at write ${moment.count} of the disk of ${moment.lane}`
  }
}
