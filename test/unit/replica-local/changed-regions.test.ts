import assert from 'node:assert/strict'
import fc from 'fast-check'
import { type RegionIndex } from '../../../core/units.ts'
import { ChangedRegions } from '../../../datapath/replica-local/changed-regions.ts'

const at = (region: number): RegionIndex => region as RegionIndex

describe('the regions that changed since a flush', () => {
  it('are those of the ranges that were added since they were last cleared, also after the volume grew', () => {
    const range = fc.record({ kind: fc.constant('add' as const), first: fc.nat(2999), length: fc.nat(700) })
    const step = fc.oneof(
      { weight: 6, arbitrary: range },
      fc.constant({ kind: 'clear' as const }),
      fc.record({ kind: fc.constant('grow' as const), by: fc.nat(900) })
    )
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 2000 }), fc.array(step, { maxLength: 30 }), (start, steps) => {
        let size = start
        const changed = new ChangedRegions(size)
        const expected = new Set<number>()
        for (const one of steps) {
          if (one.kind === 'clear') {
            changed.clear()
            expected.clear()
          } else if (one.kind === 'grow') {
            size += one.by
            changed.grow(size)
          } else {
            const first = Math.min(one.first, size)
            const end = Math.min(first + one.length, size)
            changed.addRange(at(first), at(end))
            for (let region = first; region < end; region++) expected.add(region)
          }
          for (let region = 0; region < size; region++) {
            assert.equal(changed.has(at(region)), expected.has(region), `region ${region}`)
          }
        }
      }),
      { numRuns: 100 }
    )
  })

  it('hold every region of the largest volume', () => {
    // 64 TiB in regions of 64 KiB.
    const size = 2 ** 30
    const changed = new ChangedRegions(size)
    for (let first = 0; first < size; first += 2 ** 20) changed.addRange(at(first), at(first + 2 ** 20))
    assert.deepEqual([changed.has(at(0)), changed.has(at(size - 1))], [true, true])
    changed.clear()
    assert.deepEqual([changed.has(at(0)), changed.has(at(size - 1))], [false, false])
  })
})
