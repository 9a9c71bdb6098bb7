import assert from 'node:assert/strict'
import fc from 'fast-check'
import { type DiskFile } from '../../../../core/ports/disk.ts'
import { byteLength, byteOffset } from '../../../../core/units.ts'
import { UnsyncedInMemory } from '../../../../datapath/disk/unsynced-in-memory.ts'
import { SeededRandom } from '../../../simulator/seeded-random.ts'
import { SimulatedDisk } from '../../../simulator/simulated-disk.ts'

const FILE_BYTES = 40_000

/** A file under test, and per byte what it shows now, and what it may show after a power cut. */
class Subject {
  readonly now = new Uint8Array(FILE_BYTES)
  readonly #synced = new Uint8Array(FILE_BYTES)
  readonly #since = Array.from({ length: FILE_BYTES }, () => new Set<number>())
  readonly #below = new SimulatedDisk({ random: new SeededRandom(1) }).mount()
  readonly #bytesMax: number
  readonly #random: SeededRandom
  #disk: UnsyncedInMemory
  file!: DiskFile

  constructor(bytesMax: number, seed: number) {
    this.#bytesMax = bytesMax
    this.#random = new SeededRandom(seed)
    this.#disk = this.#mount()
  }

  async open(): Promise<void> {
    this.file = await this.#disk.open('a', true)
    await this.file.resize(byteLength(FILE_BYTES))
  }

  async reopen(): Promise<void> {
    await this.file.close()
    this.file = await this.#disk.open('a', false)
  }

  changed(position: number, length: number, value: number): void {
    this.now.fill(value, position, position + length)
    for (let at = position; at < position + length; at++) this.#since[at]!.add(value)
  }

  synced(): void {
    this.#synced.set(this.now)
    for (const values of this.#since) values.clear()
  }

  /** The process ends; the next one may find any of what was not synced, in any mixture. */
  async powerCut(): Promise<void> {
    this.#disk = this.#mount()
    this.file = await this.#disk.open('a', false)
    const left = new Uint8Array(FILE_BYTES)
    await this.file.read(left, byteOffset(0))
    left.forEach((value, at) => {
      const may = this.#since[at]!
      if (this.#bytesMax > 2 ** 20) assert.equal(value, this.#synced[at], `byte ${at} was written back`)
      if (value !== this.#synced[at] && !may.has(value)) assert.fail(`byte ${at} is ${value}`)
    })
    this.now.set(left)
    this.synced()
  }

  #mount(): UnsyncedInMemory {
    return new UnsyncedInMemory(this.#below, this.#random, this.#bytesMax)
  }
}

type Step = (subject: Subject) => Promise<void>

const range = fc
  .tuple(fc.nat(FILE_BYTES), fc.nat(FILE_BYTES))
  .map(([a, b]) => [Math.min(a, b), Math.abs(a - b)] as const)

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc
      .tuple(range, fc.integer({ min: 1, max: 255 }))
      .map(([[position, length], value]): Step => async subject => {
        await subject.file.write(new Uint8Array(length).fill(value), byteOffset(position))
        subject.changed(position, length, value)
      }),
  },
  {
    weight: 3,
    arbitrary: range.map(([position, length]): Step => async subject => {
      await subject.file.punch(byteOffset(position), byteLength(length))
      subject.changed(position, length, 0)
    }),
  },
  {
    weight: 2,
    arbitrary: fc.constant<Step>(async subject => {
      await subject.file.sync()
      subject.synced()
    }),
  },
  fc.constant<Step>(subject => subject.reopen()),
  fc.constant<Step>(subject => subject.powerCut()),
  {
    weight: 4,
    arbitrary: range.map(([position, length]): Step => async subject => {
      const into = new Uint8Array(length)
      await subject.file.read(into, byteOffset(position))
      assert.deepEqual(into, subject.now.slice(position, position + length))
    }),
  }
)

describe('a disk that keeps un-synced writes in memory, by law', () => {
  it('shows what was written, and after a power cut what was synced or anything that came later', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(0, 10_000, 100_000, 2 ** 30),
        fc.nat(),
        fc.array(step, { maxLength: 40 }),
        async (bytesMax, seed, steps) => {
          const subject = new Subject(bytesMax, seed)
          await subject.open()
          for (const next of steps) await next(subject)
          await subject.powerCut()
        }
      ),
      { numRuns: 150 }
    )
  })
})
