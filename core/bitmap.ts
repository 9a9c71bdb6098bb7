/**
 * Runs of bits in a byte array. Bit `i` is bit `i % 8` (least significant first) of byte `floor(i / 8)`; that is
 * also how maps lie on disk. Ranges are half open: from `first` up to, not including, `end`.
 */

/** Number of bits that are set in each byte value. */
const POPULATION = Uint8Array.from({ length: 256 }, (_, value) => {
  let count = 0
  for (let rest = value; rest !== 0; rest &= rest - 1) count += 1
  return count
})

/** Mask of the bits of one byte that lie in a range given relative to that byte's first bit. */
function maskOf(from: number, to: number): number {
  return (0xff << Math.max(from, 0)) & (0xff >> (8 - Math.min(to, 8))) & 0xff
}

/** True when one bit is set. */
export const bitAt = (bytes: Uint8Array, index: number): boolean =>
  ((bytes[index >>> 3] ?? 0) & (1 << (index & 7))) !== 0

/**
 * Sets or clears a range of bits.
 * @param value what every bit of the range becomes
 * @returns how many bits were different before
 */
export function fillBits(bytes: Uint8Array, first: number, end: number, value: boolean): number {
  let changed = 0
  const endByte = (end + 7) >>> 3
  for (let at = first >>> 3; at < endByte; at += 1) {
    const mask = maskOf(first - at * 8, end - at * 8)
    const before = bytes[at]!
    const after = value ? before | mask : before & ~mask
    changed += POPULATION[before ^ after]!
    bytes[at] = after
  }
  return changed
}

/** Number of set bits in all of the bytes. */
export function countBits(bytes: Uint8Array): number {
  let count = 0
  // An index, not an iterator, and zeros cost no look-up: a set of a large volume is megabytes of mostly zeros.
  for (let at = 0; at < bytes.length; at += 1) {
    const byte = bytes[at]!
    if (byte !== 0) count += POPULATION[byte]!
  }
  return count
}

/** True when every bit of a range is set. */
export function allBitsSet(bytes: Uint8Array, first: number, end: number): boolean {
  return nextClearBit(bytes, first, end) === end
}

/** The first set bit of a range, or `end` when there is none. */
export function nextSetBit(bytes: Uint8Array, first: number, end: number): number {
  return nextBit(bytes, first, end, 0)
}

/** The first clear bit of a range, or `end` when there is none. */
export function nextClearBit(bytes: Uint8Array, first: number, end: number): number {
  return nextBit(bytes, first, end, 0xff)
}

/** The first bit that differs from `skipped` (a whole byte of zeros or of ones). */
function nextBit(bytes: Uint8Array, first: number, end: number, skipped: 0 | 0xff): number {
  const endByte = (end + 7) >>> 3
  for (let at = first >>> 3; at < endByte; at += 1) {
    const byte = bytes[at]!
    if (byte === skipped) continue
    const found = (byte ^ skipped) & maskOf(first - at * 8, end - at * 8)
    if (found !== 0) return at * 8 + 31 - Math.clz32(found & -found)
  }
  return end
}
