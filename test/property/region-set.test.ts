import assert from 'node:assert/strict'
import fc from 'fast-check'
import { RegionSet } from '../../core/mirror/region-set.ts'
import { type RegionIndex } from '../../core/units.ts'
import { bytesOf, fullSet, setOf } from '../support/region-sets.ts'

const at = (region: number): RegionIndex => region as RegionIndex

type Step = (real: RegionSet, model: Set<number>) => void

/** Random changes of sets of a random size, applied to a RegionSet and to a Set of numbers. */
const history = fc.integer({ min: 1, max: 200 }).chain(size => {
  const region = fc.nat(size - 1)
  const range = fc
    .tuple(fc.nat(size), fc.nat(size))
    .map(([a, b]) => [Math.min(a, b), Math.max(a, b)] as const)
  const members = fc.uniqueArray(region)
  const step: fc.Arbitrary<Step> = fc.oneof(
    region.map((one): Step => (real, model) => {
      assert.equal(real.add(at(one)), !model.has(one))
      model.add(one)
    }),
    region.map((one): Step => (real, model) => {
      assert.equal(real.delete(at(one)), model.delete(one))
    }),
    range.map(([first, end]): Step => (real, model) => {
      real.addRange(at(first), at(end))
      for (let one = first; one < end; one += 1) model.add(one)
    }),
    range.map(([first, end]): Step => (real, model) => {
      real.deleteRange(at(first), at(end))
      for (let one = first; one < end; one += 1) model.delete(one)
    }),
    members.map((others): Step => (real, model) => {
      real.union(setOf(size, others))
      for (const one of others) model.add(one)
    }),
    members.map((others): Step => (real, model) => {
      real.subtract(setOf(size, others))
      for (const one of others) model.delete(one)
    })
  )
  return fc.tuple(fc.constant(size), fc.array(step, { maxLength: 30 }))
})

/** A RegionSet and a Set after the same changes. */
function replay([size, steps]: [number, Step[]]): { real: RegionSet; model: number[]; size: number } {
  const real = new RegionSet(size)
  const model = new Set<number>()
  for (const step of steps) step(real, model)
  return { real, model: [...model].sort((a, b) => a - b), size }
}

describe('a set of regions', () => {
  it('holds what a Set of numbers would, in rising order', () => {
    fc.assert(
      fc.property(history, steps => {
        const { real, model, size } = replay(steps)
        assert.deepEqual([...real], model)
        assert.equal(real.count, model.length)
        assert.equal(real.isEmpty, model.length === 0)
        for (let one = 0; one < size; one += 1) assert.equal(real.has(at(one)), model.includes(one))
      })
    )
  })

  it('finds the first region at or after any other', () => {
    fc.assert(
      fc.property(history, steps => {
        const { real, model, size } = replay(steps)
        for (let one = 0; one <= size; one += 1) {
          assert.equal(
            real.firstAtOrAfter(at(one)),
            model.find(member => member >= one)
          )
        }
      })
    )
  })

  it('is the same set again from its ranges and from its bytes', () => {
    fc.assert(
      fc.property(history, steps => {
        const { real, size } = replay(steps)
        const fromRanges = new RegionSet(size)
        let last = -1
        for (const { first, end } of real.ranges()) {
          assert.ok(first > last && end > first, 'ranges rise and do not touch')
          fromRanges.addRange(first, end)
          last = end
        }
        assert.deepEqual([...fromRanges], [...real])
        assert.equal(fromRanges.count, real.count)
        const fromBytes = RegionSet.fromBytes(size, bytesOf(real))
        assert.deepEqual([...fromBytes], [...real])
        assert.equal(fromBytes.count, real.count)
      })
    )
  })

  it('copies into a set of its own, also a larger one', () => {
    fc.assert(
      fc.property(history, fc.nat(50), (steps, more) => {
        const { real, model, size } = replay(steps)
        const copy = real.copy(size + more)
        assert.equal(copy.size, size + more)
        copy.addRange(at(0), at(copy.size))
        assert.equal(copy.count, copy.size)
        assert.deepEqual([...real], model)
        assert.deepEqual([...real.copy()], model)
      })
    )
  })

  it('copies parts of its bitmap, with zeros beyond the end', () => {
    fc.assert(
      fc.property(history, fc.nat(30), fc.nat(30), (steps, from, length) => {
        const { real } = replay(steps)
        const into = new Uint8Array(length).fill(0xff)
        real.copyBytes(from, into)
        const whole = Buffer.concat([bytesOf(real), Buffer.alloc(60)])
        assert.deepEqual(Buffer.from(into), whole.subarray(from, from + length))
      })
    )
  })

  it('refuses bytes of another length, and bits beyond the last region', () => {
    assert.throws(() => RegionSet.fromBytes(9, new Uint8Array(1)), RangeError)
    assert.throws(() => RegionSet.fromBytes(9, Uint8Array.of(0, 2)), RangeError)
    assert.deepEqual([...RegionSet.fromBytes(9, Uint8Array.of(0, 1))], [8])
    assert.equal(RegionSet.fromBytes(0, new Uint8Array(0)).count, 0)
  })

  it('refuses regions that the volume does not have, and sets of other volumes', () => {
    const set = new RegionSet(10)
    for (const wrong of [-1, 10, 1.5, NaN]) {
      assert.throws(() => set.add(at(wrong)))
      assert.throws(() => set.delete(at(wrong)))
    }
    assert.throws(() => set.addRange(at(3), at(11)))
    assert.throws(() => set.addRange(at(4), at(3)))
    assert.throws(() => set.union(new RegionSet(11)))
    assert.throws(() => set.subtract(new RegionSet(9)))
    assert.throws(() => set.copy(9))
    assert.equal(set.count, 0)
  })

  it('holds the regions of the largest volume that is promised, 64 TiB', () => {
    const size = (64 * 1024 ** 4) / 65_536
    const set = fullSet(size)
    assert.equal(set.count, size)
    set.deleteRange(at(0), at(size - 1))
    assert.equal(set.firstAtOrAfter(at(0)), size - 1)
    set.clear()
    assert.equal(set.firstAtOrAfter(at(0)), undefined)
  })
})
