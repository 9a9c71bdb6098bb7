import assert from 'node:assert/strict'
import fc from 'fast-check'
import { RegionSet } from '../../../../core/mirror/region-set.ts'
import { type CopyTask, ResyncPlan } from '../../../../core/mirror/resync-plan.ts'
import { IntentClearing } from '../../../../core/mirror/write-intent.ts'
import { REGION_BYTES, type RegionIndex } from '../../../../core/units.ts'
import { replicaOn } from '../../../unit/core/mirror/samples.ts'

const REGIONS = 10
const region = fc.nat(REGIONS - 1)
const regions = fc.uniqueArray(region)

function setOf(members: readonly number[]): RegionSet {
  const set = new RegionSet(REGIONS)
  for (const one of members) set.add(one as RegionIndex)
  return set
}

describe('clearing write intents, by law', () => {
  const step = fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({ write: region, length: fc.integer({ min: 1, max: 2 * REGION_BYTES }) }),
    },
    { weight: 2, arbitrary: fc.constant('round' as const) },
    { weight: 2, arbitrary: fc.constant('flush begins' as const) },
    { weight: 2, arbitrary: fc.record({ busy: regions }) }
  )

  it('clears no region that was written since the flush began, or is being written', () => {
    fc.assert(
      fc.property(regions, fc.array(step, { maxLength: 40 }), (inherited, steps) => {
        const clearing = new IntentClearing(REGIONS)
        clearing.inherited(setOf(inherited))
        const dirty = new Set<number>(inherited)
        let before: RegionSet | null = null
        let since = new Set<number>()
        for (const one of steps) {
          if (one === 'round') {
            // A round ends after its flush, or without one.
            clearing.age()
            before = null
          } else if (one === 'flush begins') {
            before = clearing.cold.copy()
            since = new Set()
          } else if ('write' in one) {
            const offset = one.write * REGION_BYTES + 100
            const length = Math.min(one.length, REGIONS * REGION_BYTES - offset)
            clearing.written(offset, length)
            for (let at = one.write; at * REGION_BYTES < offset + length; at++) {
              dirty.add(at)
              since.add(at)
            }
          } else if (before !== null) {
            for (const clean of clearing.clearable(before, busy => one.busy.includes(busy))) {
              assert(!since.has(clean), `region ${clean} was written since the flush began`)
              assert(!one.busy.includes(clean), `region ${clean} is being written`)
              dirty.delete(clean)
            }
            before = null
          }
        }
        // In the end, with nobody writing, every bit goes.
        clearing.age()
        const rest = clearing.clearable(clearing.cold.copy(), () => false)
        assert.deepEqual(
          [...rest],
          [...dirty].sort((a, b) => a - b)
        )
      }),
      { numRuns: 500 }
    )
  })
})

describe('the plan of a resync, by law', () => {
  const step = fc.oneof(
    { weight: 2, arbitrary: fc.record({ add: fc.constantFrom('a', 'b', 'c'), needed: regions }) },
    { weight: 1, arbitrary: fc.record({ drop: fc.constantFrom('a', 'b', 'c') }) },
    { weight: 2, arbitrary: fc.record({ hurry: region }) },
    { weight: 4, arbitrary: fc.constant('next' as const) },
    { weight: 4, arbitrary: fc.record({ end: fc.nat(10), well: fc.boolean() }) }
  )

  it('copies everything that every target needs, no region twice at once, and forgets nothing that failed', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), steps => {
        const plan = new ResyncPlan(REGIONS)
        const underWay: CopyTask[] = []
        /** What each target lacks; a new array when it starts again. */
        const lacks = new Map<string, { needed: number[] }>()
        const startedWith = new Map<CopyTask, Map<string, { needed: number[] }>>()
        const next = (): boolean => {
          const task = plan.next()
          if (task === null) return false
          assert(!underWay.some(other => other.region === task.region), 'twice at once')
          const want = [...lacks].filter(([, { needed }]) => needed.includes(task.region))
          assert.deepEqual(
            task.targets.map(({ replica }) => replica),
            want.map(([name]) => replicaOn(name))
          )
          startedWith.set(task, new Map(want))
          underWay.push(task)
          return true
        }
        const end = (index: number, well: boolean): void => {
          const [task] = underWay.splice(index % underWay.length, 1)
          if (!well) {
            plan.failed(task!)
            return
          }
          plan.done(task!)
          for (const lack of startedWith.get(task!)!.values()) {
            lack.needed = lack.needed.filter(one => one !== task!.region)
          }
        }
        for (const one of steps) {
          if (one === 'next') next()
          else if ('add' in one) {
            lacks.delete(one.add)
            plan.drop(replicaOn(one.add))
            lacks.set(one.add, { needed: one.needed })
            plan.add(replicaOn(one.add), setOf(one.needed))
          } else if ('drop' in one) {
            lacks.delete(one.drop)
            plan.drop(replicaOn(one.drop))
          } else if ('hurry' in one) plan.hurry(one.hurry as RegionIndex)
          else if (underWay.length > 0) end(one.end, one.well)
        }
        while (underWay.length > 0 || next()) end(0, true)
        for (const [name, { needed }] of lacks) {
          assert.deepEqual(needed, [])
          assert.equal(plan.needs(replicaOn(name)), false)
        }
      }),
      { numRuns: 500 }
    )
  })
})
