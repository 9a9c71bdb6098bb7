/** What XOSAN shall reach against the others, and whether it has, in one run. */
import { type Outcome, type Sample } from './measure.ts'
import { median, pairwiseRatios, type Spread, spreadOf } from './statistics.ts'

type Figure = (sample: Sample) => number

export const perSecond: Figure = sample => sample.perSecond
/** Processor microseconds of client and servers for one request. */
export const microsecondsPerRequest: Figure = ({ clientSeconds, serverSeconds, requests }) =>
  ((clientSeconds + serverSeconds) / requests) * 1e6

export interface Verdict {
  readonly what: string
  readonly link: string
  readonly workload: string
  /** Whom it is compared with; empty where it is an absolute figure. */
  readonly peer: string
  readonly target: number
  readonly moonshot: number
  readonly found: Spread
  readonly reached: boolean
}

const READS = ['seqread', 'rr1', 'rr32'] as const
const WRITES = ['seqwrite', 'rw1', 'rw32', 'flush32', 'mixed32'] as const
const TWO_COPIES = ['qemu-mirror', 'qemu-quorum', 'qemu-quorum-cached']
const TWO_COPIES_DIRECT = ['qemu-mirror', 'qemu-quorum']
/** TCP's share of a link of 1 Gbit/s, in bytes per second. */
const WIRE = 120e6

/** Every comparison that this run has the figures for. */
export function verdictsOf(outcome: Outcome, links: readonly string[]): Verdict[] {
  const of = (link: string, workload: string, system: string): readonly (Sample | undefined)[] =>
    outcome.series.find(each => each.link === link && each.workload === workload && each.system === system)
      ?.samples ?? []
  const figures = (link: string, workload: string, system: string, figure: Figure): (number | undefined)[] =>
    of(link, workload, system).map(sample => (sample === undefined ? undefined : figure(sample)))
  /** The peer whose median is the best. */
  const best = (link: string, workload: string, peers: readonly string[]): string | undefined =>
    peers
      .map(peer => ({
        peer,
        median: median(figures(link, workload, peer, perSecond).filter(each => each !== undefined)),
      }))
      .filter(each => !Number.isNaN(each.median))
      .sort((a, b) => b.median - a.median)[0]?.peer
  const verdicts: Verdict[] = []
  const compare = (
    what: string,
    link: string,
    workload: string,
    ours: string,
    peers: readonly string[],
    [target, moonshot]: readonly [number, number]
  ): void => {
    const peer = best(link, workload, peers)
    if (peer === undefined) return
    const ratios = pairwiseRatios(
      figures(link, workload, ours, perSecond),
      figures(link, workload, peer, perSecond)
    )
    if (ratios.length === 0) return
    const found = spreadOf(ratios)
    verdicts.push({ what, link, workload, peer, target, moonshot, found, reached: found.median >= target })
  }
  for (const link of links) {
    for (const workload of READS) {
      const targets = workload === 'rr1' ? ([0.7, 1] as const) : ([0.9, 1] as const)
      compare('reads', link, workload, 'xosan-2', ['nbdkit'], targets)
    }
    for (const workload of WRITES) {
      compare('writes, client that flushes', link, workload, 'xosan-2', TWO_COPIES, [1.3, 2])
      compare('writes, durable', link, workload, 'xosan-2-durable', TWO_COPIES_DIRECT, [1, 1.5])
    }
    const cost = figures(link, 'rw32', 'xosan-2', microsecondsPerRequest).filter(each => each !== undefined)
    if (cost.length > 0) {
      const found = spreadOf(cost)
      const what = 'processor time of a queued write, µs'
      verdicts.push({
        ...{ what, link, workload: 'rw32', peer: '', target: 80, moonshot: 50, found },
        reached: found.median <= 80,
      })
    }
  }
  if (links.includes('1gbit')) {
    compare('writes over the wire, as the NAS', '1gbit', 'rw32', 'xosan-2', ['nas', 'nas-direct'], [0.8, 1])
    const wire = figures('1gbit', 'seqwrite', 'xosan-2', sample => sample.bytesPerSecond / WIRE)
    const found = spreadOf(wire.filter(each => each !== undefined))
    if (found.count > 0) {
      verdicts.push({
        ...{ what: 'share of the wire', link: '1gbit', workload: 'seqwrite', peer: '' },
        ...{ target: 0.98, moonshot: 0.99, found, reached: found.median >= 0.98 },
      })
    }
  }
  return verdicts
}
