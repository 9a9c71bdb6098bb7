import assert from 'node:assert'
import { countBits, bitAt, fillBits, nextClearBit, nextSetBit } from '../bitmap.ts'
import { type RegionIndex } from '../units.ts'

/** A run of regions, `end` not included. */
export interface RegionRange {
  readonly first: RegionIndex
  readonly end: RegionIndex
}

/**
 * Largest number of regions in a set: a volume of 128 TiB. Bits are counted in 31-bit integers, which the engine
 * keeps unboxed, and 2^31 regions are what they can count.
 */
const MAX_REGIONS = 2 ** 31

/**
 * A set of regions of one volume: where replicas may differ, what is left to copy, what was flushed.
 *
 * It is a bitmap, 2 MiB for each TiB of volume whatever it holds, because after a resync of a busy volume nearly
 * every region has been in it. All operations on one region take constant time and allocate nothing.
 */
export class RegionSet implements Iterable<RegionIndex> {
  /** Number of regions of the volume: members are 0 to `size - 1`. */
  readonly size: number
  readonly #bytes: Uint8Array
  #count: number

  /** An empty set. @param size number of regions of the volume @throws AssertionError when it is out of range */
  constructor(size: number) {
    assert(Number.isInteger(size) && size >= 0 && size <= MAX_REGIONS, `no set of ${size} regions`)
    this.size = size
    this.#bytes = new Uint8Array(Math.ceil(size / 8))
    this.#count = 0
  }

  /**
   * The set whose bitmap these are: one bit per region, the least significant of a byte first.
   * @throws RangeError when the length is not that of a set of this size, or a bit beyond the last region is set
   */
  static fromBytes(size: number, bytes: Uint8Array): RegionSet {
    const set = new RegionSet(size)
    if (bytes.length !== set.#bytes.length) {
      throw new RangeError(`${size} regions take ${set.#bytes.length} bytes, not ${bytes.length}`)
    }
    if (bytes.length > 0 && nextSetBit(bytes, size, bytes.length * 8) < bytes.length * 8) {
      throw new RangeError(`a region beyond the last of ${size} is set`)
    }
    set.#bytes.set(bytes)
    set.#count = countBits(bytes)
    return set
  }

  /** Number of regions in the set. */
  get count(): number {
    return this.#count
  }

  get isEmpty(): boolean {
    return this.#count === 0
  }

  has(region: RegionIndex): boolean {
    return bitAt(this.#bytes, region)
  }

  /** @returns true when the region was not in the set before */
  add(region: RegionIndex): boolean {
    this.#check(region, region + 1)
    const mask = 1 << (region & 7)
    const before = this.#bytes[region >>> 3]!
    if ((before & mask) !== 0) return false
    this.#bytes[region >>> 3] = before | mask
    this.#count += 1
    return true
  }

  /** @returns true when the region was in the set before */
  delete(region: RegionIndex): boolean {
    this.#check(region, region + 1)
    const mask = 1 << (region & 7)
    const before = this.#bytes[region >>> 3]!
    if ((before & mask) === 0) return false
    this.#bytes[region >>> 3] = before & ~mask
    this.#count -= 1
    return true
  }

  /** Adds the regions from `first` up to, not including, `end`. */
  addRange(first: RegionIndex, end: RegionIndex): void {
    this.#check(first, end)
    this.#count += fillBits(this.#bytes, first, end, true)
  }

  /** Removes the regions from `first` up to, not including, `end`. */
  deleteRange(first: RegionIndex, end: RegionIndex): void {
    this.#check(first, end)
    this.#count -= fillBits(this.#bytes, first, end, false)
  }

  clear(): void {
    this.#bytes.fill(0)
    this.#count = 0
  }

  /** Adds every region of another set of the same size. */
  union(other: RegionSet): void {
    assert.equal(other.size, this.size, 'sets of one volume have one size')
    this.#combine(other, (mine, theirs) => mine | theirs)
  }

  /** Removes every region of another set of the same size. */
  subtract(other: RegionSet): void {
    assert.equal(other.size, this.size, 'sets of one volume have one size')
    this.#combine(other, (mine, theirs) => mine & ~theirs)
  }

  /** A set of its own with the same regions. @param size a larger number of regions, for a volume that grew */
  copy(size = this.size): RegionSet {
    assert(size >= this.size, 'a set can only grow')
    const set = new RegionSet(size)
    set.#bytes.set(this.#bytes)
    set.#count = this.#count
    return set
  }

  /** The lowest region of the set that is not below `region`; undefined when there is none. */
  firstAtOrAfter(region: RegionIndex): RegionIndex | undefined {
    const found = nextSetBit(this.#bytes, region, this.size)
    return found < this.size ? (found as RegionIndex) : undefined
  }

  /** The regions in rising order. The set may be changed meanwhile; what lies ahead then counts as it is. */
  *[Symbol.iterator](): Generator<RegionIndex, void, undefined> {
    let next = nextSetBit(this.#bytes, 0, this.size)
    while (next < this.size) {
      yield next as RegionIndex
      next = nextSetBit(this.#bytes, next + 1, this.size)
    }
  }

  /**
   * The fewest ranges that are the set, in rising order, found one by one: of a large volume with every second region
   * they are millions.
   */
  *ranges(): Generator<RegionRange, void, undefined> {
    let first = nextSetBit(this.#bytes, 0, this.size)
    while (first < this.size) {
      const end = nextClearBit(this.#bytes, first, this.size)
      yield { first: first as RegionIndex, end: end as RegionIndex }
      first = nextSetBit(this.#bytes, end, this.size)
    }
  }

  /** Copies a part of the bitmap, as `fromBytes` takes it; what lies beyond its end is zeros. @param from position in bytes */
  copyBytes(from: number, into: Uint8Array): void {
    const part = this.#bytes.subarray(from, from + into.length)
    into.set(part)
    into.fill(0, part.length)
  }

  #check(first: number, end: number): void {
    const ordered = first >= 0 && first <= end && end <= this.size
    if (ordered && Number.isInteger(first) && Number.isInteger(end)) return
    // Only now: this is asked for every change of the volume, and putting the words together takes longer than the set.
    assert.fail(`regions ${first} to ${end} are outside of a volume of ${this.size}`)
  }

  #combine(other: RegionSet, operator: (mine: number, theirs: number) => number): void {
    for (let at = 0; at < this.#bytes.length; at += 1) {
      this.#bytes[at] = operator(this.#bytes[at]!, other.#bytes[at]!)
    }
    this.#count = countBits(this.#bytes)
  }
}
