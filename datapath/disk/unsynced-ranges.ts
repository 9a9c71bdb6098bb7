import { type Random } from '../../core/ports/random.ts'

/** Bytes at a place of a file. `data` null stands for zeros that take no space (a hole). */
export interface UnsyncedRange {
  readonly position: number
  readonly length: number
  readonly data: Uint8Array | null
}

/** What a range costs beside its data, in bytes; roughly, so that many empty ones are counted, too. */
const RANGE_BYTES = 64

/** What has been put over a file's content: ranges that do not overlap, in the order of their positions. */
export class UnsyncedRanges {
  #ranges: UnsyncedRange[] = []
  #bytes = 0

  /** Memory that they take, in bytes; 0 when there are none. */
  get bytes(): number {
    return this.#bytes
  }

  /** Where the last of them ends, or 0. */
  get end(): number {
    const last = this.#ranges.at(-1)
    return last === undefined ? 0 : last.position + last.length
  }

  /** Puts a range over whatever is there. The data are kept, not copied. */
  put(range: UnsyncedRange): void {
    if (range.length === 0) return
    const [first, count] = this.#touching(range.position, range.length)
    const covered = this.#ranges.slice(first, first + count)
    const kept = [range]
    for (const other of covered) {
      const before = range.position - other.position
      if (before > 0) kept.unshift(part(other, 0, before))
      const after = range.position + range.length - other.position
      if (after < other.length) kept.push(part(other, after, other.length))
    }
    this.#ranges.splice(first, count, ...kept)
    this.#bytes += bytesOf(kept) - bytesOf(covered)
  }

  /** Copies those that a buffer's place touches into it. @param position of the buffer in the file */
  copyInto(into: Uint8Array, position: number): void {
    for (const range of this.within(position, into.length)) copyRange(range, into, position)
  }

  /** Those that touch a part of the file. */
  within(position: number, length: number): readonly UnsyncedRange[] {
    const [first, count] = this.#touching(position, length)
    return this.#ranges.slice(first, first + count)
  }

  /** Takes out all of them, or each with a probability. */
  take(random: Random, share = 1): UnsyncedRange[] {
    const taken: UnsyncedRange[] = []
    const left: UnsyncedRange[] = []
    for (const range of this.#ranges) (share === 1 || random.fraction() < share ? taken : left).push(range)
    this.#ranges = left
    this.#bytes = bytesOf(left)
    return taken
  }

  /** Index of the first range that ends after a position, and how many from there begin before the end. */
  #touching(position: number, length: number): [first: number, count: number] {
    let [low, high] = [0, this.#ranges.length]
    while (low < high) {
      const middle = (low + high) >>> 1
      const range = this.#ranges[middle]!
      if (range.position + range.length > position) high = middle
      else low = middle + 1
    }
    let count = 0
    while ((this.#ranges[low + count]?.position ?? Infinity) < position + length) count++
    return [low, count]
  }
}

/** Copies the part of a range that a buffer's place touches. @param position of the buffer in the file */
export function copyRange(range: UnsyncedRange, into: Uint8Array, position: number): void {
  const from = Math.max(range.position, position)
  const to = Math.min(range.position + range.length, position + into.length)
  if (range.data === null) into.fill(0, from - position, to - position)
  else into.set(range.data.subarray(from - range.position, to - range.position), from - position)
}

/** Cuts ranges at multiples of a grain in bytes, and shuffles what comes out. */
export function inRandomPieces(
  ranges: readonly UnsyncedRange[],
  grain: number,
  random: Random
): UnsyncedRange[] {
  const pieces: UnsyncedRange[] = []
  for (const range of ranges) {
    for (let from = 0; from < range.length;) {
      const to = Math.min(range.length, from + grain - ((range.position + from) % grain))
      pieces.push(part(range, from, to))
      from = to
    }
  }
  // Fisher and Yates.
  for (let last = pieces.length - 1; last > 0; last--) {
    const other = Math.floor(random.fraction() * (last + 1))
    const piece = pieces[last]!
    pieces[last] = pieces[other]!
    pieces[other] = piece
  }
  return pieces
}

const part = ({ position, data }: UnsyncedRange, from: number, to: number): UnsyncedRange => ({
  position: position + from,
  length: to - from,
  data: data?.subarray(from, to) ?? null,
})

const bytesOf = (ranges: readonly UnsyncedRange[]): number =>
  ranges.reduce((sum, { data }) => sum + RANGE_BYTES + (data?.length ?? 0), 0)
