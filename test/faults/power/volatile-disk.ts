/**
 * A disk with a write cache that is lost when its power is cut: what was written since the last flush is then there or
 * not, sector by sector, in no order. Served over NBD to a virtual machine.
 *
 * All of it is in memory, and every call takes effect at once, so a power cut happens between two calls of the guest,
 * never in the middle of a flush of which it could have been told.
 */
import { strict as assert } from 'node:assert'
import { XosanError } from '../../../core/errors.ts'
import { type Random } from '../../../core/ports/random.ts'
import { BLOCK_BYTES, type ByteLength, type ByteOffset, byteLength } from '../../../core/units.ts'
import {
  type BlockDevice,
  type Extent,
  FULL_CAPABILITIES,
  type TrimRequest,
  type WriteRequest,
  type ZeroRequest,
} from '../../../datapath/block-device.ts'

/** What a disk writes whole or not at all. */
const SECTOR_BYTES = 512

/** Block number -> content; blocks of zeros may be missing. No buffer in it is ever changed. */
export type Blocks = ReadonlyMap<number, Uint8Array>

/** What becomes of un-flushed writes: all are lost, or of each all, nothing or some sectors. */
export type Survival = 'nothing' | 'some'

export interface PowerCut {
  /** What is on the disk from now on. */
  readonly blocks: Blocks
  /** Sectors of un-flushed writes: how many there were, and how many were lost. */
  readonly volatileSectors: number
  readonly lostSectors: number
}

export class VolatileDisk implements BlockDevice {
  readonly capabilities = { ...FULL_CAPABILITIES, trim: false, allocation: false, fastZero: false }
  readonly size: ByteLength
  readonly #durable: Map<number, Uint8Array>
  readonly #current: Map<number, Uint8Array>
  /** Since the last flush, in order. */
  #volatile: { readonly offset: number; readonly data: Uint8Array }[] = []
  #powered = true
  readonly #written: () => void

  /**
   * @param size in bytes, a multiple of the block size
   * @param written told of every write that is in the cache now; it may cut the power
   */
  constructor(size: number, blocks: Blocks = new Map(), written: () => void = () => undefined) {
    this.#written = written
    assert.equal(size % BLOCK_BYTES, 0)
    this.size = byteLength(size)
    this.#durable = new Map(blocks)
    this.#current = new Map(blocks)
  }

  async read(offset: ByteOffset, into: Uint8Array): Promise<Uint8Array> {
    this.#check(offset, into.length)
    for (const { index, start, end, done } of parts(offset, into.length)) {
      const block = this.#current.get(index)
      if (block === undefined) into.fill(0, done, done + end - start)
      else into.set(block.subarray(start, end), done)
    }
    return into
  }

  async write({ offset, data, durable }: WriteRequest): Promise<void> {
    this.#check(offset, data.length)
    // A copy: the buffer is the caller's again.
    const kept = Uint8Array.from(data)
    this.#volatile.push({ offset, data: kept })
    put(this.#current, offset, kept)
    this.#written()
    this.#check(0, 0)
    // Durable together with all before it: more than was asked for, and no guest of ours asks.
    if (durable) this.#flush()
  }

  async zero({ offset, length, durable }: ZeroRequest): Promise<void> {
    await this.write({ offset, data: new Uint8Array(length), durable })
  }

  async trim({ offset, length }: TrimRequest): Promise<void> {
    throw new XosanError('UNSUPPORTED', { what: `a trim of ${length} bytes at ${offset}` })
  }

  async flush(): Promise<void> {
    this.#check(0, 0)
    this.#flush()
  }

  async allocation(_offset: ByteOffset, length: ByteLength): Promise<Extent[]> {
    return [{ length, hole: false, zero: false }]
  }

  async close(): Promise<void> {
    this.#powered = false
  }

  /** Cuts the power: every later call fails. */
  cutPower(survival: Survival, random: Random): PowerCut {
    this.#check(0, 0)
    this.#powered = false
    let [volatileSectors, lostSectors] = [0, 0]
    for (const { offset, data } of this.#volatile) {
      const survives = survival === 'nothing' ? () => false : survivorOf(random)
      for (let done = 0; done < data.length; done += SECTOR_BYTES) {
        volatileSectors += 1
        if (survives()) put(this.#durable, offset + done, data.subarray(done, done + SECTOR_BYTES))
        else lostSectors += 1
      }
    }
    return { blocks: this.#durable, volatileSectors, lostSectors }
  }

  #flush(): void {
    for (const { offset, data } of this.#volatile) {
      for (const { index } of parts(offset, data.length)) this.#durable.set(index, this.#current.get(index)!)
    }
    this.#volatile = []
  }

  #check(offset: number, length: number): void {
    if (!this.#powered) throw new XosanError('INTERNAL', { reason: 'the disk has no power' })
    if (offset + length > this.size) {
      throw new XosanError('OUT_OF_RANGE', { offset, end: offset + length, size: this.size })
    }
  }
}

/** Of one write: as often all of it survives as nothing, and less often some sectors. */
function survivorOf(random: Random): () => boolean {
  const fate = random.fraction()
  if (fate < 0.4) return () => true
  if (fate < 0.8) return () => false
  return () => random.fraction() < 0.5
}

/** Puts bytes into new buffers: the old ones may also be those of another moment. */
function put(blocks: Map<number, Uint8Array>, offset: number, data: Uint8Array): void {
  for (const { index, start, end, done } of parts(offset, data.length)) {
    const part = data.subarray(done, done + end - start)
    if (part.length === BLOCK_BYTES) {
      blocks.set(index, part)
      continue
    }
    const block = Uint8Array.from(blocks.get(index) ?? new Uint8Array(BLOCK_BYTES))
    block.set(part, start)
    blocks.set(index, block)
  }
}

/** The blocks of a range: from where to where within the block, and how many bytes come before. */
function* parts(offset: number, length: number) {
  for (let done = 0; done < length;) {
    const index = Math.floor((offset + done) / BLOCK_BYTES)
    const start = offset + done - index * BLOCK_BYTES
    const end = Math.min(BLOCK_BYTES, start + length - done)
    yield { index, start, end, done }
    done += end - start
  }
}
