/** What the guest of `npm run resync-cost` does: fills its disk, writes scattered blocks, and is asked how long it waits. */
import { randomFillSync } from 'node:crypto'
import { BLOCK_BYTES, byteOffset } from '../../../core/units.ts'
import { type BlockDevice } from '../../../datapath/block-device.ts'

const CHUNK_BYTES = 1024 * 1024
const FILL_DEPTH = 8
const WRITE_DEPTH = 32
/** Readers, and as many writers, each with one request at a time: a guest that works and does not wait in line. */
const WORKERS = 4

/** Bytes that no two calls give twice, so that no block is by chance what it was before. */
class FreshBytes {
  readonly #pool = randomFillSync(Buffer.alloc(2 * CHUNK_BYTES))
  #count = 0

  next(length: number): Buffer {
    const count = ++this.#count
    const from = Math.imul(count, 4093) & (CHUNK_BYTES - 1)
    const bytes = Buffer.from(this.#pool.subarray(from, from + length))
    for (let at = 0; at < length; at += BLOCK_BYTES) bytes.writeDoubleLE(count, at)
    return bytes
  }
}

const fresh = new FreshBytes()

/** Does `count` things, so many at once. */
async function inParallel(
  count: number,
  depth: number,
  one: (index: number) => Promise<void>
): Promise<void> {
  let next = 0
  const worker = async (): Promise<void> => {
    while (next < count) await one(next++)
  }
  await Promise.all(Array.from({ length: depth }, worker))
}

/** Writes the first bytes of a disk, in order. */
export async function fill(disk: BlockDevice, bytes: number): Promise<void> {
  await inParallel(bytes / CHUNK_BYTES, FILL_DEPTH, async chunk => {
    await disk.write({
      offset: byteOffset(chunk * CHUNK_BYTES),
      data: fresh.next(CHUNK_BYTES),
      durable: false,
    })
  })
  await disk.flush()
}

/**
 * Writes so many different blocks, at random, of the first `within` bytes, and flushes.
 * @returns how many regions they lie in
 */
export async function writeScattered(
  disk: BlockDevice,
  bytes: number,
  within: number,
  regionBytes: number
): Promise<number> {
  const blocks = shuffledBlocks(within / BLOCK_BYTES, bytes / BLOCK_BYTES)
  await inParallel(blocks.length, WRITE_DEPTH, async index => {
    const offset = byteOffset(blocks[index]! * BLOCK_BYTES)
    await disk.write({ offset, data: fresh.next(BLOCK_BYTES), durable: false })
  })
  await disk.flush()
  const regions = new Set<number>()
  for (const block of blocks) regions.add(Math.floor((block * BLOCK_BYTES) / regionBytes))
  return regions.size
}

/** So many of the blocks 0 to `total - 1`, each once, in random order (Fisher and Yates). */
function shuffledBlocks(total: number, count: number): Uint32Array {
  const blocks = Uint32Array.from({ length: total }, (_, block) => block)
  for (let at = 0; at < count; at++) {
    const other = at + Math.floor(Math.random() * (total - at))
    const block = blocks[other]!
    blocks[other] = blocks[at]!
    blocks[at] = block
  }
  return blocks.subarray(0, count)
}

/** Times of requests in milliseconds, sorted, and how long they were collected. */
export interface Latencies {
  readonly reads: readonly number[]
  readonly writes: readonly number[]
  readonly elapsedMs: number
}

/** Reads and writes 4 KiB at random until it is told to stop. */
export async function measureGuest(
  disk: BlockDevice,
  within: number,
  stopped: () => boolean
): Promise<Latencies> {
  const reads: number[] = []
  const writes: number[] = []
  const into = (times: number[], request: () => Promise<unknown>) => async (): Promise<void> => {
    while (!stopped()) {
      const startedAt = performance.now()
      await request()
      times.push(performance.now() - startedAt)
    }
  }
  const anywhere = () => byteOffset(Math.floor((Math.random() * within) / BLOCK_BYTES) * BLOCK_BYTES)
  const reader = into(reads, () => disk.read(anywhere(), Buffer.allocUnsafe(BLOCK_BYTES)))
  const writer = into(writes, () =>
    disk.write({ offset: anywhere(), data: fresh.next(BLOCK_BYTES), durable: false })
  )
  const startedAt = performance.now()
  await Promise.all(Array.from({ length: WORKERS }, () => [reader(), writer()]).flat())
  const elapsedMs = performance.now() - startedAt
  const sorted = (times: number[]): number[] => times.sort((a, b) => a - b)
  return { reads: sorted(reads), writes: sorted(writes), elapsedMs }
}

/** A quantile of sorted numbers; NaN of none. */
export const quantile = (sorted: readonly number[], fraction: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * fraction))] ?? Number.NaN
