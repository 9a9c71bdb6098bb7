import assert from 'node:assert/strict'
import { type Outcome, type Sample } from '../../bench/measure.ts'
import { pairwiseRatios, quantile, spreadOf } from '../../bench/statistics.ts'
import { microsecondsPerRequest, verdictsOf } from '../../bench/verdicts.ts'

const sample = (perSecond: number, more: Partial<Sample> = {}): Sample => ({
  requests: perSecond,
  perSecond,
  bytesPerSecond: perSecond * 4096,
  latencyUs: { p50: 1, p99: 2, p999: 3, most: 4 },
  clientSeconds: 0,
  serverSeconds: 0,
  ...more,
})

const outcomeOf = (all: Readonly<Record<string, readonly (number | undefined)[]>>): Outcome => ({
  series: Object.entries(all).map(([key, figures]) => {
    const [link, workload, system] = key.split(' ') as [string, string, string]
    const samples = figures.map(each => (each === undefined ? undefined : sample(each)))
    return { link, workload, system, samples }
  }),
  usage: new Map(),
  failures: [],
})

describe('figures of a benchmark', () => {
  it('have quantiles between what was measured', () => {
    assert.equal(quantile([4, 1, 3, 2], 0.5), 2.5)
    assert.equal(quantile([1], 0.25), 1)
    assert.ok(Number.isNaN(quantile([], 0.5)))
    assert.deepEqual(spreadOf([1, 2, 3, 4, 5]), { median: 3, lower: 2, upper: 4, count: 5 })
  })

  it('are compared with those of the same repetition, and left out where one is missing', () => {
    assert.deepEqual(pairwiseRatios([10, 20, undefined, 40], [5, undefined, 1, 80]), [2, 0.5])
  })

  it('are judged by the median of the ratios, not by the ratio of the medians', () => {
    // The machine was ten times as fast in the second repetition, for both.
    const outcome = outcomeOf({
      'unshaped rw32 xosan-2': [140, 1400, 90],
      'unshaped rw32 qemu-mirror': [100, 1000, 100],
      'unshaped rw32 nbdkit': [9000, 9000, 9000],
    })
    const found = verdictsOf(outcome, ['unshaped']).find(({ what }) => what.includes('flushes'))!
    assert.deepEqual([found.peer, found.found.median, found.reached], ['qemu-mirror', 1.4, true])
  })

  it('take the best peer of each column', () => {
    const outcome = outcomeOf({
      'unshaped rw1 xosan-2': [100, 100, 100],
      'unshaped rw1 qemu-mirror': [50, 50, 50],
      'unshaped rw1 qemu-quorum-cached': [90, 90, 90],
      'unshaped rr1 xosan-2': [60, 60, 60],
      'unshaped rr1 nbdkit': [100, 100, 100],
    })
    const verdicts = verdictsOf(outcome, ['unshaped'])
    assert.deepEqual(
      verdicts.map(({ workload, peer, reached }) => [workload, peer, reached]),
      [
        ['rr1', 'nbdkit', false],
        ['rw1', 'qemu-quorum-cached', false],
      ]
    )
  })

  it('say nothing of what was not measured', () => {
    const outcome = outcomeOf({ '1gbit rw32 nas': [1], '1gbit rw32 xosan-2': [undefined] })
    assert.deepEqual(verdictsOf(outcome, ['unshaped', '1gbit']), [])
  })

  it('count the processor time of clients and servers for each request', () => {
    assert.equal(microsecondsPerRequest(sample(1000, { clientSeconds: 0.02, serverSeconds: 0.06 })), 80)
  })
})
