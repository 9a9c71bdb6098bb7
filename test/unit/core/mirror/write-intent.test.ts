import assert from 'node:assert/strict'
import { RegionSet } from '../../../../core/mirror/region-set.ts'
import { IntentClearing } from '../../../../core/mirror/write-intent.ts'
import { REGION_BYTES, type RegionIndex } from '../../../../core/units.ts'

const REGIONS = 16
const idle = (): boolean => false

describe('clearing write intents', () => {
  let clearing: IntentClearing
  beforeEach(() => (clearing = new IntentClearing(REGIONS)))

  const write = (region: number): void => clearing.written(region * REGION_BYTES, 4096)
  const cold = (): number[] => [...clearing.cold]
  const clear = (before = clearing.cold.copy(), busy: (region: RegionIndex) => boolean = idle): number[] => [
    ...clearing.clearable(before, busy),
  ]

  it('leaves a region alone until nobody wrote it for a whole round', () => {
    write(3)
    assert.deepEqual(cold(), [])
    assert.deepEqual(clear(), [])
    clearing.age()
    assert.deepEqual(cold(), [3])
    assert.deepEqual(clear(), [3])
  })

  it('offers a region once only', () => {
    write(3)
    clearing.age()
    clear()
    clearing.age()
    assert.deepEqual(cold(), [])
  })

  it('keeps a region that is written in every round', () => {
    write(3)
    for (let round = 0; round < 5; round++) {
      clearing.age()
      write(3)
      assert.deepEqual(cold(), [], 'it is not even flushed for')
      assert.deepEqual(clear(), [])
    }
  })

  it('notes every region that a write touches, and no other', () => {
    clearing.written(2 * REGION_BYTES - 1, REGION_BYTES + 2)
    clearing.age()
    assert.deepEqual(cold(), [1, 2, 3])
    clearing.written(0, REGION_BYTES)
    clearing.age()
    assert.deepEqual(cold(), [0, 1, 2, 3])
  })

  it('keeps a region that was written while the replicas flushed', () => {
    write(3)
    write(4)
    clearing.age()
    const before = clearing.cold.copy()
    write(3)
    assert.deepEqual(clear(before), [4])
  })

  it('keeps a region that was written and became cold again while the replicas flushed, by a write under way', () => {
    write(3)
    clearing.age()
    const before = clearing.cold.copy()
    assert.deepEqual(
      clear(before, region => region === 3),
      []
    )
    assert.deepEqual(cold(), [3], 'it is offered again')
  })

  it('keeps a region that became cold only after the flush began', () => {
    const before = clearing.cold.copy()
    write(3)
    clearing.age()
    assert.deepEqual(clear(before), [])
    assert.deepEqual(cold(), [3])
  })

  it('takes over regions from before without a round of rest, but not those that are being written', () => {
    const inherited = new RegionSet(REGIONS)
    inherited.add(5 as RegionIndex)
    inherited.add(6 as RegionIndex)
    write(6)
    clearing.inherited(inherited)
    assert.deepEqual(clear(), [5])
  })
})
