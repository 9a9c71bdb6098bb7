import assert from 'node:assert/strict'
import { type Disk, type DiskFile } from '../../../../core/ports/disk.ts'
import { byteLength, byteOffset } from '../../../../core/units.ts'
import { UnsyncedInMemory } from '../../../../datapath/disk/unsynced-in-memory.ts'
import { SeededRandom } from '../../../simulator/seeded-random.ts'
import { systemError } from '../../../simulator/disk-call.ts'
import { SimulatedDisk } from '../../../simulator/simulated-disk.ts'

const KIB = 1024

describe('a disk that keeps un-synced writes in memory', () => {
  let below: Disk
  let disk: UnsyncedInMemory

  const powerCut = (bytesMax = 2 ** 30): void => {
    disk = new UnsyncedInMemory(below, new SeededRandom(7), bytesMax)
  }
  const bytesOf = async (file: DiskFile, length: number): Promise<number[]> => {
    const into = new Uint8Array(length)
    await file.read(into, byteOffset(0))
    return [...new Set(into)].sort((a, b) => a - b)
  }
  const write = (file: DiskFile, value: number, position = 0, length = 64 * KIB): Promise<void> =>
    file.write(new Uint8Array(length).fill(value), byteOffset(position))

  beforeEach(() => {
    below = new SimulatedDisk({ random: new SeededRandom(1) }).mount()
    powerCut()
  })

  it('loses with the process what was not synced, and nothing else', async () => {
    const file = await disk.open('a', true)
    await write(file, 1)
    await file.sync()
    await write(file, 2)
    await file.punch(byteOffset(0), byteLength(4 * KIB))
    assert.deepEqual(await bytesOf(file, 64 * KIB), [0, 2])
    powerCut()
    assert.deepEqual(await bytesOf(await disk.open('a', false), 64 * KIB), [1])
  })

  it('shows what was not synced also to a read at once', async () => {
    const file = await disk.open('a', true)
    await write(file, 1)
    await file.sync()
    await write(file, 2, 8 * KIB, 4 * KIB)
    await file.punch(byteOffset(16 * KIB), byteLength(4 * KIB))
    const into = new Uint8Array(64 * KIB).fill(0xee)
    // The disk below has it in memory at about every second look.
    while (!file.readAtOnce!(into, byteOffset(0)));
    assert.deepEqual(
      [0, 8, 12, 16, 20].map(at => into[at * KIB]),
      [1, 2, 1, 0, 1]
    )
  })

  it('keeps what was not synced while nobody has the file open, under any name', async () => {
    const file = await disk.open('a', true)
    await write(file, 1)
    await file.close()
    await disk.rename('a', 'b')
    const again = await disk.open('b', false)
    assert.deepEqual(await bytesOf(again, 64 * KIB), [1])
    await again.sync()
    powerCut()
    assert.deepEqual(await bytesOf(await disk.open('b', false), 64 * KIB), [1])
  })

  it('shows the same bytes to everybody who has the file open', async () => {
    const [first, second] = [await disk.open('a', true), await disk.open('a', true)]
    await write(first, 1)
    assert.deepEqual(await bytesOf(second, 64 * KIB), [1])
    await second.sync()
    await first.close()
    await second.close()
    powerCut()
    assert.deepEqual(await bytesOf(await disk.open('a', false), 64 * KIB), [1])
  })

  it('gives a file that is made anew nothing of the one that had its name', async () => {
    const file = await disk.open('a', true)
    await write(file, 1)
    await file.close()
    await disk.remove('a')
    const made = await disk.open('a', 'exclusive')
    assert.equal((await made.stat()).size, 0)
    assert.equal(disk.bytes, 0)
    await made.close()
  })

  it('has room in memory for so much, and writes back a part in some order when there is more', async () => {
    powerCut(256 * KIB)
    const file = await disk.open('a', true)
    for (let at = 0; at < 4096 * KIB; at += 64 * KIB) {
      await write(file, 1, at)
      assert.ok(disk.bytes <= 256 * KIB, `${disk.bytes} bytes are held`)
    }
    powerCut()
    const left = new Uint8Array(4096 * KIB)
    await (await disk.open('a', false)).read(left, byteOffset(0))
    const blocks = Array.from({ length: 1024 }, (_, block) => left[block * 4 * KIB])
    assert.ok(blocks.includes(0) && blocks.includes(1))
    // Not what was written first: something early is missing, and something later is there.
    assert.ok(blocks.indexOf(0) < blocks.lastIndexOf(1), 'it went back in order')
  })

  it('refuses a write for which there is no space, at once, and still syncs what it has taken', async () => {
    const small = new SimulatedDisk({ random: new SeededRandom(1), capacity: 1024 * KIB })
    below = small.mount()
    powerCut()
    const file = await disk.open('a', true)
    let written = 0
    await assert.rejects(
      async () => {
        for (; written < 2048 * KIB; written += 64 * KIB) await write(file, 1, written)
      },
      { code: 'ENOSPC' }
    )
    assert.ok(written > 0)
    await write(file, 2)
    await file.sync()
    powerCut()
    assert.deepEqual(await bytesOf(await disk.open('a', false), 64 * KIB), [2])
  })

  it('shows what is on its way to the file', async () => {
    let calls = 0
    const slow = new SimulatedDisk({
      random: new SeededRandom(1),
      delay: async call => {
        if (call !== 'write') return
        calls++
        await new Promise(resolve => setImmediate(resolve))
      },
    })
    below = slow.mount()
    powerCut()
    const file = await disk.open('a', true)
    await write(file, 1)
    const syncing = file.sync()
    const seen = new Set<number>()
    for (let look = 0; look < 50; look++) for (const byte of await bytesOf(file, 64 * KIB)) seen.add(byte)
    await syncing
    assert.ok(calls > 0)
    assert.deepEqual([...seen], [1])
  })

  it('keeps what it could not write back', async () => {
    const failing = new SimulatedDisk({ random: new SeededRandom(1) })
    below = failing.mount()
    powerCut()
    const file = await disk.open('a', true)
    await write(file, 1)
    failing.fault = call => {
      if (call === 'write') throw systemError('EIO', call, 'a')
    }
    await assert.rejects(file.sync(), { code: 'EIO' })
    assert.deepEqual(await bytesOf(file, 64 * KIB), [1])
    failing.fault = undefined
    await file.sync()
    powerCut()
    assert.deepEqual(await bytesOf(await disk.open('a', false), 64 * KIB), [1])
  })
})
