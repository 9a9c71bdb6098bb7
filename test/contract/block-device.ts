import assert from 'node:assert/strict'
import { XosanError } from '../../core/errors.ts'
import { byteLength, byteOffset, sequence, type ByteLength } from '../../core/units.ts'
import { type BlockDevice, type Extent } from '../../datapath/block-device.ts'

/** A device under test, of the size that was asked for and all zeros. */
export interface ContractSubject {
  readonly device: BlockDevice
  /** Releases what lies behind the device; the suite itself has closed the device before. */
  dispose?(): Promise<void>
}

const MIB = 1024 * 1024
const SIZE = byteLength(4 * MIB)

/**
 * What every BlockDevice owes its callers, as a mocha suite. Each implementation runs it in a test file of its own:
 *
 *     blockDeviceContract('MemoryDevice', async size => ({ device: new MemoryDevice(size) }))
 *
 * The suite asks the device's capabilities and leaves out what it does not have.
 *
 * @param name of the implementation, for the suite's title
 * @param make gives a new writable device that holds zeros; called before each test
 */
export function blockDeviceContract(
  name: string,
  make: (size: ByteLength) => Promise<ContractSubject>
): void {
  describe(`${name} is a block device`, () => {
    let subject: ContractSubject
    let volume: Driver

    beforeEach(async () => {
      subject = await make(SIZE)
      volume = new Driver(subject.device)
    })

    afterEach(async () => {
      await subject.device.close()
      await subject.dispose?.()
    })

    it('has the size that it was made with and reads as zeros', async () => {
      assert.equal(subject.device.size, SIZE)
      assert.ok(subject.device.capabilities.writable)
      assertSame(await volume.read(0, SIZE), new Uint8Array(SIZE), 0)
    })

    it('gives back what was written, and nothing around it changes', async () => {
      for (const { offset, length } of ALIGNMENTS) {
        const data = pattern(offset + 1, length)
        await volume.write(offset, data)
        assertSame(await volume.read(offset, length), data, offset)
      }
      assertSame(await volume.read(0, SIZE), volume.expected, 0)
    })

    it('serves the first and the last byte', async () => {
      await volume.write(0, Uint8Array.of(1))
      await volume.write(SIZE - 1, Uint8Array.of(2))
      assertSame(await volume.read(0, 1), Uint8Array.of(1), 0)
      assertSame(await volume.read(SIZE - 1, 1), Uint8Array.of(2), SIZE - 1)
      assertSame(await volume.read(0, SIZE), volume.expected, 0)
    })

    it('serves the whole device in one request', async () => {
      await volume.write(0, pattern(7, SIZE))
      assertSame(await volume.read(0, SIZE), volume.expected, 0)
    })

    it('keeps the last of several overlapping writes that follow each other', async () => {
      for (let step = 0; step < 40; step++) {
        await volume.write(10_000 + step * 517, pattern(step, 9000 - step * 100), step % 3 === 0)
      }
      assertSame(await volume.read(0, 64_000), volume.expected.subarray(0, 64_000), 0)
    })

    it('leaves the writer its buffer: filling it anew after the answer changes nothing', async () => {
      const data = pattern(3, 8192)
      await volume.write(4096, data)
      data.fill(0xee)
      assertSame(await volume.read(0, 16_384), volume.expected.subarray(0, 16_384), 0)
    })

    it('fills exactly the buffer of a read', async () => {
      await volume.write(0, pattern(5, 16_384))
      const around = new Uint8Array(3000).fill(0xaa)
      await subject.device.read(byteOffset(5000), around.subarray(1000, 2000))
      assertSame(around.subarray(0, 1000), new Uint8Array(1000).fill(0xaa), 0)
      assertSame(around.subarray(1000, 2000), volume.expected.subarray(5000, 6000), 5000)
      assertSame(around.subarray(2000), new Uint8Array(1000).fill(0xaa), 0)
    })

    it('reads a flushed and a durable write back', async () => {
      await volume.write(8192, pattern(1, 4096), true)
      await volume.write(12_288, pattern(2, 5000))
      await subject.device.flush()
      await subject.device.flush()
      assertSame(await volume.read(0, 32_768), volume.expected.subarray(0, 32_768), 0)
    })

    it('makes ranges of any alignment read as zeros', async function () {
      if (!subject.device.capabilities.zero) return this.skip()
      await volume.write(0, pattern(11, MIB))
      for (const keepAllocated of [false, true]) {
        for (const { offset, length } of ALIGNMENTS) await volume.zero(offset, length, keepAllocated)
      }
      assertSame(await volume.read(0, SIZE), volume.expected, 0)
      await volume.zero(0, SIZE, false, true)
      assertSame(await volume.read(0, SIZE), new Uint8Array(SIZE), 0)
    })

    it('makes trimmed ranges read as zeros and takes writes there again', async function () {
      if (!subject.device.capabilities.trim) return this.skip()
      await volume.write(0, pattern(12, MIB))
      for (const { offset, length } of ALIGNMENTS) await volume.trim(offset, length)
      assertSame(await volume.read(0, SIZE), volume.expected, 0)
      await volume.trim(0, SIZE)
      await volume.write(12_300, pattern(13, 50))
      assertSame(await volume.read(0, SIZE), volume.expected, 0)
    })

    it('refuses ranges that run off the end, and stays usable', async () => {
      const { device } = subject
      const far = byteOffset(SIZE - 10)
      const beyond = byteOffset(SIZE + 4096)
      await refusedAsOutOfRange(device.read(far, new Uint8Array(11)))
      await refusedAsOutOfRange(device.read(beyond, new Uint8Array(1)))
      await refusedAsOutOfRange(device.read(byteOffset(2 ** 53 - 1), new Uint8Array(1)))
      // A sequenced device may take a refused change as a gap, so these come without the counter moving on.
      if (!device.capabilities.sequenced) {
        await refusedAsOutOfRange(device.write({ offset: far, data: new Uint8Array(11), durable: false }))
        await refusedAsOutOfRange(
          device.zero({ offset: far, length: byteLength(11), durable: false, keepAllocated: false })
        )
        await refusedAsOutOfRange(device.trim({ offset: beyond, length: byteLength(1), durable: false }))
      }
      if (device.capabilities.allocation) await refusedAsOutOfRange(device.allocation(far, byteLength(11)))
      await volume.write(SIZE - 10, pattern(1, 10))
      assertSame(await volume.read(SIZE - 4096, 4096), volume.expected.subarray(SIZE - 4096), SIZE - 4096)
    })

    it('describes its allocation by extents that cover a range exactly', async function () {
      if (!subject.device.capabilities.allocation) return this.skip()
      await volume.write(65_536, pattern(20, 65_536))
      await volume.write(300_001, pattern(21, 10))
      await volume.write(SIZE - 1, Uint8Array.of(9))
      for (const [offset, length] of [
        [0, SIZE],
        [0, 1],
        [65_535, 2],
        [65_536, 65_536],
        [70_001, 4099],
        [SIZE - 1, 1],
        [200_000, 200_000],
      ] as const) {
        await volume.checkAllocation(offset, length)
      }
      const untouched = await subject.device.allocation(byteOffset(MIB), byteLength(MIB))
      assert.ok(
        untouched.every(extent => extent.zero),
        'what was never written is known to be zeros'
      )
    })

    it('serves reads and writes of different ranges at the same time', async () => {
      const slots = 48
      const length = 24_000
      await Promise.all(
        Array.from({ length: slots }, (_, slot) => volume.write(slot * length, pattern(slot, length)))
      )
      const mixed = Array.from({ length: slots }, async (_, slot) => {
        const offset = slot * length
        if (slot % 2 === 0) await volume.write(offset, pattern(slot + 100, length), slot % 4 === 0)
        else assertSame(await volume.read(offset, length), pattern(slot, length), offset)
      })
      await Promise.all([...mixed, subject.device.flush()])
      assertSame(await volume.read(0, SIZE), volume.expected, 0)
    })

    it('settles on the bytes of one writer when writes of one range race, and stays there', async () => {
      const writers = Array.from({ length: 8 }, (_, writer) => writer + 1)
      await Promise.all(writers.map(writer => volume.write(8192, new Uint8Array(4096).fill(writer))))
      const first = await volume.read(8192, 4096)
      assert.ok(
        first.every(byte => writers.includes(byte)),
        'no byte of a racing range comes from nowhere'
      )
      assertSame(await volume.read(8192, 4096), first, 8192)
    })

    it('agrees with a plain array after many changes of all kinds', async () => {
      const random = lcg(20_161_122)
      const { capabilities } = subject.device
      for (let step = 0; step < 250; step++) {
        const unit = [1, 512, 4096][random(3)]!
        const offset = random(Math.floor(SIZE / unit)) * unit
        const length = Math.min(SIZE - offset, (1 + random(24)) * unit)
        const kind = random(6)
        if (kind === 0 && capabilities.zero) await volume.zero(offset, length, random(2) === 0)
        else if (kind === 1 && capabilities.trim) await volume.trim(offset, length)
        else if (kind === 2) {
          assertSame(
            await volume.read(offset, length),
            volume.expected.subarray(offset, offset + length),
            offset
          )
        } else await volume.write(offset, pattern(step, length), random(4) === 0)
        if (step % 50 === 0) await subject.device.flush()
      }
      assertSame(await volume.read(0, SIZE), volume.expected, 0)
      if (capabilities.allocation) await volume.checkAllocation(0, SIZE)
    })
  })
}

/** Ranges on and off the borders of sectors, blocks and regions. */
const ALIGNMENTS = [
  { offset: 0, length: 4096 },
  { offset: 4096, length: 512 },
  { offset: 8191, length: 2 },
  { offset: 12_289, length: 4094 },
  { offset: 20_480, length: 12_288 },
  { offset: 40_001, length: 30_011 },
  { offset: 65_535, length: 65_538 },
  { offset: 262_144, length: 262_144 },
  { offset: 700_123, length: 1 },
  { offset: MIB - 3, length: 5 },
] as const

/** Changes the device and, in the same way, an array that says what it must hold; counts the sequence. */
class Driver {
  readonly expected = new Uint8Array(SIZE)
  readonly #device: BlockDevice
  #sequence = 0

  constructor(device: BlockDevice) {
    this.#device = device
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    const into = new Uint8Array(length).fill(0x5a)
    await this.#device.read(byteOffset(offset), into)
    return into
  }

  async write(offset: number, data: Uint8Array, durable = false): Promise<void> {
    this.expected.set(data, offset)
    await this.#device.write({ offset: byteOffset(offset), data, durable, ...this.#next() })
  }

  async zero(offset: number, length: number, keepAllocated: boolean, durable = false): Promise<void> {
    this.expected.fill(0, offset, offset + length)
    await this.#device.zero({
      offset: byteOffset(offset),
      length: byteLength(length),
      keepAllocated,
      durable,
      ...this.#next(),
    })
  }

  async trim(offset: number, length: number): Promise<void> {
    this.expected.fill(0, offset, offset + length)
    await this.#device.trim({
      offset: byteOffset(offset),
      length: byteLength(length),
      durable: false,
      ...this.#next(),
    })
  }

  async checkAllocation(offset: number, length: number): Promise<void> {
    const extents: Extent[] = await this.#device.allocation(byteOffset(offset), byteLength(length))
    let position = offset
    for (const extent of extents) {
      assert.ok(extent.length > 0, 'no extent is empty')
      if (extent.zero) {
        const bytes = this.expected.subarray(position, position + extent.length)
        assertSame(bytes, new Uint8Array(extent.length), position)
      }
      position += extent.length
    }
    assert.equal(position, offset + length, `extents cover bytes ${offset} to ${offset + length} exactly`)
  }

  #next(): { sequence?: ReturnType<typeof sequence> } {
    return this.#device.capabilities.sequenced ? { sequence: sequence(++this.#sequence) } : {}
  }
}

/** Bytes that differ from position to position and from seed to seed. */
function pattern(seed: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length)
  for (let index = 0; index < length; index++) bytes[index] = (seed * 31 + index * 7 + (index >> 8)) | 1
  return bytes
}

/** Compares fast, and names the first byte that differs: a diff of megabytes helps nobody. */
function assertSame(actual: Uint8Array, expected: Uint8Array, offset: number): void {
  if (Buffer.compare(actual, expected) === 0) return
  const index = expected.findIndex((byte, position) => actual[position] !== byte)
  assert.fail(
    `${actual.length} bytes read at ${offset}, ${expected.length} expected; first difference at byte ` +
      `${offset + index}: ${actual[index] ?? 'none'} instead of ${expected[index] ?? 'none'}`
  )
}

async function refusedAsOutOfRange(call: Promise<unknown>): Promise<void> {
  await assert.rejects(call, (error: unknown) => error instanceof XosanError && error.code === 'OUT_OF_RANGE')
}

/** A small generator of repeatable numbers below a limit. */
function lcg(seed: number): (limit: number) => number {
  let state = seed
  return limit => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * limit)
  }
}
