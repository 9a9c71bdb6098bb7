import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { Lane } from '../../../faults/power/lane.ts'
import { LANES, type LaneKind } from '../../../faults/power/lanes.ts'
import { drawControlCut, drawCut } from '../../../faults/power/moments.ts'
import { PLANTED_ERRORS } from '../../../faults/power/planted-errors.ts'
import { standingAt } from '../../../faults/power/items.ts'
import { SeededRandom } from '../../../simulator/seeded-random.ts'

const laneOf = (kind: LaneKind): Lane => new Lane(kind, kind, null, new Map(), new SeededRandom(1))

/** How the chains of a lane stand that have come as far as this. */
const standings = (kind: LaneKind, reached: Readonly<Record<string, number>> = {}): Record<string, string> =>
  Object.fromEntries(
    Object.entries(LANES[kind].chains).map(([name, { shape }]) => [
      name,
      standingAt(shape, reached[name] ?? 0),
    ])
  )

describe('a lane', () => {
  it('has one item in flight, or one in each chain where they do not cover up for each other', () => {
    const [files, etcd] = [laneOf('files'), laneOf('etcd')]
    files.boot(() => undefined)
    etcd.boot(() => undefined)
    assert.equal(files.found(standings('files')).length, 1)
    assert.deepEqual(etcd.found(standings('etcd')), ['a', 'b', 'c'])
  })

  it('goes on after a cut where its chains were found', () => {
    const lane = laneOf('etcd')
    lane.boot(() => undefined)
    for (const chain of lane.found(standings('etcd'))) lane.next(chain)
    assert.equal(lane.done('a', 1), 'a')
    assert.deepEqual(lane.next('a'), { lane: 'etcd', chain: 'a', item: 2 })
    lane.cutPower('nothing')
    lane.boot(() => undefined)
    const chains = lane.found(standings('etcd', { a: 1, b: 1 }))
    assert.equal(lane.fault, null)
    assert.deepEqual(
      chains.map(chain => lane.next(chain).item),
      [2, 2, 1]
    )
    assert.deepEqual([lane.acknowledged, lane.inFlight, lane.inFlightKept], [1, 3, 1])
  })

  it('is at fault when an acknowledged item is lost, and writes no more', () => {
    const lane = laneOf('etcd')
    lane.boot(() => undefined)
    for (const chain of lane.found(standings('etcd'))) lane.next(chain)
    lane.done('b', 1)
    lane.cutPower('nothing')
    lane.boot(() => undefined)
    assert.deepEqual(lane.found(standings('etcd')), [])
    assert.equal(lane.fault?.kind, 'lost')
  })

  it('remembers through a boot that is cut before it was opened what had been acknowledged', () => {
    const lane = laneOf('etcd')
    lane.boot(() => undefined)
    for (const chain of lane.found(standings('etcd'))) lane.next(chain)
    lane.done('b', 1)
    for (let boot = 0; boot < 2; boot++) {
      lane.cutPower('nothing')
      lane.boot(() => undefined)
    }
    lane.found(standings('etcd'))
    assert.equal(lane.fault?.kind, 'lost')
  })
})

describe('the moments of power cuts', () => {
  it('are the same for one seed, of every kind, and at every lane', () => {
    const draw = (seed: number) => {
      const random = new SeededRandom(seed)
      return Array.from({ length: 13 }, (_, number) => drawCut(random, number, ['a', 'b', 'c', 'd']))
    }
    assert.deepEqual(draw(5), draw(5))
    assert.notDeepEqual(draw(5), draw(6))
    assert.equal(draw(5)[0]!.moment.kind, 'opening')
    assert.equal(new Set(draw(5).map(({ moment }) => moment.kind)).size, 3)
    const lanes = draw(5).flatMap(({ moment }) => (moment.kind === 'acknowledgement' ? [moment.lane] : []))
    assert.deepEqual(lanes, ['a', 'b', 'c', 'd'])
  })

  it('are acknowledgements of each planted error in turn, and lose everything', () => {
    const random = new SeededRandom(1)
    const lanes = [
      { name: 'a', planted: { chains: ['one'] } },
      { name: 'b', planted: { chains: null } },
    ]
    const cuts = [0, 1, 2].map(number => drawControlCut(random, number, lanes))
    assert.ok(cuts.every(({ survival }) => survival === 'nothing'))
    assert.deepEqual(
      cuts.map(({ moment }) => (moment.kind === 'acknowledgement' ? [moment.lane, moment.chains] : [])),
      [
        ['a', ['one']],
        ['b', null],
        ['a', ['one']],
      ]
    )
  })
})

describe('planted errors', () => {
  it('are one for each lane at least, and their passages stand exactly once in their files', () => {
    assert.deepEqual(new Set(PLANTED_ERRORS.map(({ lane }) => lane)), new Set(Object.keys(LANES)))
    for (const { name, patch } of PLANTED_ERRORS) {
      if (patch === null) continue
      assert.ok(existsSync(patch.file), name)
      assert.equal(readFileSync(patch.file, 'utf8').split(patch.find).length, 2, name)
    }
  })
})
