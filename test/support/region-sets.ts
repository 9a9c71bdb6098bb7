import { RegionSet } from '../../core/mirror/region-set.ts'
import { type RegionIndex } from '../../core/units.ts'

/** A set with every region of a volume. @param size number of its regions */
export function fullSet(size: number): RegionSet {
  const set = new RegionSet(size)
  set.addRange(0 as RegionIndex, size as RegionIndex)
  return set
}

/** A set of some regions. @param size number of the volume's regions */
export function setOf(size: number, members: Iterable<number>): RegionSet {
  const set = new RegionSet(size)
  for (const one of members) set.add(one as RegionIndex)
  return set
}

/** A set as its bitmap travels and is stored: one bit per region, the least significant of a byte first. */
export function bytesOf(set: RegionSet): Uint8Array {
  const bytes = new Uint8Array(Math.ceil(set.size / 8))
  for (const region of set) bytes[region >>> 3]! |= 1 << (region & 7)
  return bytes
}
