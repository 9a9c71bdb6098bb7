import assert from 'node:assert/strict'
import { RegionSet } from '../../../../core/mirror/region-set.ts'
import { type CopyTask, ResyncPlan } from '../../../../core/mirror/resync-plan.ts'
import { type RegionIndex } from '../../../../core/units.ts'
import { replicaOn } from './samples.ts'

const REGIONS = 20
const A = replicaOn('a')
const B = replicaOn('b')
const at = (region: number): RegionIndex => region as RegionIndex

function setOf(...regions: number[]): RegionSet {
  const set = new RegionSet(REGIONS)
  for (const region of regions) set.add(at(region))
  return set
}

describe('the plan of a resync', () => {
  let plan: ResyncPlan
  beforeEach(() => (plan = new ResyncPlan(REGIONS)))

  const take = (): CopyTask => {
    const task = plan.next()
    assert(task !== null, 'nothing to do')
    return task
  }
  const whom = ({ targets }: CopyTask) => targets.map(({ replica }) => replica)

  it('sweeps over what is needed in order, each region once', () => {
    plan.add(A, setOf(7, 2, 11))
    assert.deepEqual([take().region, take().region, take().region], [2, 7, 11])
    assert.equal(plan.next(), null)
  })

  it('copies a region to everybody who needs it at once', () => {
    plan.add(A, setOf(2, 3))
    plan.add(B, setOf(3, 4))
    assert.deepEqual([take(), take(), take()].map(whom), [[A], [A, B], [B]])
  })

  it('takes regions that a read waits for before the others, in the order of the reads', () => {
    plan.add(A, setOf(1, 2, 8, 9))
    plan.hurry(at(9))
    plan.hurry(at(8))
    plan.hurry(at(9))
    assert.deepEqual([take().region, take().region, take().region], [9, 8, 1])
  })

  it('ignores a hurry for a region that nobody needs, or that is being copied', () => {
    plan.add(A, setOf(1, 2))
    take()
    plan.hurry(at(1))
    plan.hurry(at(15))
    assert.equal(take().region, 2)
    assert.equal(plan.next(), null)
  })

  it('knows how far it is with each target', () => {
    plan.add(A, setOf(1, 2))
    assert.deepEqual(plan.progress(A), { done: 0, total: 2 })
    plan.done(take())
    assert.deepEqual(plan.progress(A), { done: 1, total: 2 })
    assert.equal(plan.needs(A), true)
    plan.done(take())
    assert.equal(plan.needs(A), false)
    assert.deepEqual(plan.progress(A), { done: 2, total: 2 })
    assert.equal(plan.progress(B), null)
    assert.equal(plan.needs(B), false)
  })

  it('tries a region again that could not be copied', () => {
    plan.add(A, setOf(4, 5))
    plan.failed(take())
    assert.deepEqual([take().region, take().region], [5, 4])
  })

  it('sweeps from the beginning again for a target that comes later', () => {
    plan.add(A, setOf(10))
    plan.done(take())
    plan.add(B, setOf(3, 12))
    assert.deepEqual([take().region, take().region], [12, 3])
  })

  it('forgets a target that is dropped', () => {
    plan.add(A, setOf(1))
    plan.drop(A)
    assert.equal(plan.next(), null)
    assert.equal(plan.progress(A), null)
  })

  it('copies nothing to a target that is held, and goes on with the others', () => {
    plan.add(A, setOf(1, 2))
    plan.add(B, setOf(2, 3))
    plan.hold(A)
    assert.deepEqual(plan.targetsOf(at(1)), [])
    const [two, three] = [take(), take()]
    assert.deepEqual([two, three].map(whom), [[B], [B]])
    assert.equal(plan.next(), null)
    plan.done(two)
    plan.resume(A)
    assert.deepEqual([take().region, take().region], [1, 2])
  })

  it('knows that a held target still lacks something, and does not hold one that starts again', () => {
    plan.add(A, setOf(1))
    plan.hold(A)
    assert.equal(plan.needs(A), true)
    plan.add(A, setOf(5))
    assert.equal(take().region, 5)
    plan.hold(B)
    plan.resume(B)
    assert.equal(plan.progress(B), null)
  })

  it('does not count a copy for a target that started again meanwhile', () => {
    plan.add(A, setOf(1))
    const task = take()
    const needed = setOf(1)
    plan.add(A, needed)
    plan.done(task)
    assert.equal(plan.needs(A), true)
    assert.equal(take().region, 1)
  })

  it('copies no region twice at once', () => {
    plan.add(A, setOf(1))
    const task = take()
    plan.add(B, setOf(1))
    assert.equal(plan.next(), null)
    plan.done(task)
    assert.deepEqual(whom(take()), [B])
  })
})
