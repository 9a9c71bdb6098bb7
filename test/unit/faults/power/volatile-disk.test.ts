import assert from 'node:assert/strict'
import { byteLength, byteOffset } from '../../../../core/units.ts'
import { type Blocks, type Survival, VolatileDisk } from '../../../faults/power/volatile-disk.ts'
import { SeededRandom } from '../../../simulator/seeded-random.ts'

const SIZE = 64 * 4096
const SECTOR = 512

const bytes = (length: number, value: number): Uint8Array => new Uint8Array(length).fill(value)

async function write(disk: VolatileDisk, offset: number, data: Uint8Array, durable = false): Promise<void> {
  await disk.write({ offset: byteOffset(offset), data, durable })
}

const read = async (disk: VolatileDisk, offset: number, length: number): Promise<number[]> => [
  ...(await disk.read(byteOffset(offset), bytes(length, 255))),
]

/** The bytes that are there after a power cut. */
async function after(disk: VolatileDisk, survival: Survival, length: number, seed = 1): Promise<number[]> {
  const { blocks } = disk.cutPower(survival, new SeededRandom(seed))
  return read(new VolatileDisk(SIZE, blocks), 0, length)
}

describe('a disk with a volatile cache', () => {
  it('reads back what was written before it is flushed, also in the middle of blocks', async () => {
    const disk = new VolatileDisk(SIZE)
    await write(disk, 4000, bytes(200, 7))
    assert.deepEqual(await read(disk, 3999, 202), [0, ...bytes(200, 7), 0])
    await disk.zero({
      offset: byteOffset(4050),
      length: byteLength(10),
      durable: false,
      keepAllocated: false,
    })
    assert.deepEqual(await read(disk, 4049, 12), [7, ...bytes(10, 0), 7])
  })

  it('loses at a power cut what was written since the last flush, and nothing else', async () => {
    const disk = new VolatileDisk(SIZE)
    await write(disk, 0, bytes(SECTOR, 1))
    await write(disk, 2 * SECTOR, bytes(SECTOR, 1))
    await disk.flush()
    await write(disk, 0, bytes(SECTOR, 2))
    await write(disk, SECTOR, bytes(SECTOR, 2))
    const found = await after(disk, 'nothing', 3 * SECTOR)
    assert.deepEqual(found, [...bytes(SECTOR, 1), ...bytes(SECTOR, 0), ...bytes(SECTOR, 1)])
  })

  it('keeps a write that was to be durable', async () => {
    const disk = new VolatileDisk(SIZE)
    await write(disk, 0, bytes(SECTOR, 1), true)
    assert.deepEqual(await after(disk, 'nothing', SECTOR), [...bytes(SECTOR, 1)])
  })

  it('counts the sectors that were not flushed, and those that were lost', async () => {
    const disk = new VolatileDisk(SIZE)
    await write(disk, 0, bytes(3 * SECTOR, 1))
    await disk.flush()
    await write(disk, 0, bytes(5 * SECTOR, 1))
    const { volatileSectors, lostSectors } = disk.cutPower('nothing', new SeededRandom(1))
    assert.deepEqual({ volatileSectors, lostSectors }, { volatileSectors: 5, lostSectors: 5 })
  })

  it('tears writes into whole sectors, keeps later ones without earlier ones, and never what was not written', async () => {
    const outcomes = new Set<string>()
    for (let seed = 0; seed < 200; seed++) {
      const disk = new VolatileDisk(SIZE)
      await write(disk, 0, bytes(4 * SECTOR, 1))
      await disk.flush()
      await write(disk, 0, bytes(2 * SECTOR, 2))
      await write(disk, 2 * SECTOR, bytes(2 * SECTOR, 3))
      const found = await after(disk, 'some', 4 * SECTOR, seed)
      const sectors = [0, 1, 2, 3].map(sector => new Set(found.slice(sector * SECTOR, (sector + 1) * SECTOR)))
      assert.ok(sectors.every(({ size }) => size === 1))
      outcomes.add(sectors.map(([value]) => value).join(''))
    }
    assert.ok([...outcomes].every(outcome => /^[12][12][13][13]$/.test(outcome)))
    for (const outcome of ['1111', '2233', '2211', '1133']) assert.ok(outcomes.has(outcome), outcome)
    assert.ok([...outcomes].some(outcome => /^(12|21)/.test(outcome)))
  })

  it('puts overlapping writes in the order in which they came', async () => {
    for (let seed = 0; seed < 50; seed++) {
      const disk = new VolatileDisk(SIZE)
      await write(disk, 0, bytes(SECTOR, 1), true)
      await write(disk, 0, bytes(SECTOR, 2))
      await disk.flush()
      await write(disk, 0, bytes(SECTOR, 3))
      assert.ok([2, 3].includes((await after(disk, 'some', SECTOR, seed))[0]!))
    }
  })

  it('tells of each write when it is in the cache, and does not answer one at which its power was cut', async () => {
    let writes = 0
    let found: number[] = []
    const disk: VolatileDisk = new VolatileDisk(SIZE, new Map(), () => {
      writes += 1
      if (writes === 2) found = [disk.cutPower('nothing', new SeededRandom(1)).lostSectors]
    })
    await write(disk, 0, bytes(SECTOR, 1))
    await disk.flush()
    await assert.rejects(write(disk, 0, bytes(SECTOR, 2)), /no power/)
    assert.deepEqual(found, [1])
  })

  it('answers nothing after its power was cut', async () => {
    const disk = new VolatileDisk(SIZE)
    disk.cutPower('nothing', new SeededRandom(1))
    await assert.rejects(write(disk, 0, bytes(1, 1)), /no power/)
    await assert.rejects(disk.flush(), /no power/)
    await assert.rejects(read(disk, 0, 1), /no power/)
  })

  it('leaves the content that it was made of as it was', async () => {
    const before: Blocks = new Map([[0, bytes(4096, 9)]])
    const disk = new VolatileDisk(SIZE, before)
    await write(disk, 10, bytes(10, 1))
    await disk.flush()
    assert.deepEqual(before.get(0), bytes(4096, 9))
  })
})
