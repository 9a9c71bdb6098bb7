import { RegionSet } from '../../core/mirror/region-set.ts'
import { type RegionIndex } from '../../core/units.ts'

/**
 * Regions that are emptied together: one cache line of the bitmap, 32 MiB of volume. Flushes are frequent and most
 * cover a few changes, so emptying must cost what was changed and not what the volume could hold; with smaller groups
 * the notes of them would take as much memory as the bitmap.
 */
const GROUP_REGIONS = 512

/**
 * The regions that changed since some moment, to be emptied again and again. However many there are it is a bitmap of 2 MiB
 * for each TiB of volume, of which only touched pages take memory; a JavaScript Set ends at 2^24 members, which are
 * 1 TiB, and takes forty bytes for each.
 */
export class ChangedRegions {
  #regions: RegionSet
  /** For each group whether it is among those that hold something. */
  #isNoted: Uint8Array
  #groups: number[] = []

  /** An empty set. @param size number of regions of the volume */
  constructor(size: number) {
    this.#regions = new RegionSet(size)
    this.#isNoted = new Uint8Array(Math.ceil(size / GROUP_REGIONS))
  }

  has(region: RegionIndex): boolean {
    return this.#regions.has(region)
  }

  /** Adds the regions from `first` up to, not including, `end`. */
  addRange(first: RegionIndex, end: RegionIndex): void {
    this.#regions.addRange(first, end)
    const lastGroup = Math.floor((end - 1) / GROUP_REGIONS)
    for (let group = Math.floor(first / GROUP_REGIONS); group <= lastGroup; group += 1) {
      if (this.#isNoted[group] !== 0) continue
      this.#isNoted[group] = 1
      this.#groups.push(group)
    }
  }

  /** Removes all, in a time that depends on what was added. */
  clear(): void {
    for (const group of this.#groups) {
      const first = group * GROUP_REGIONS
      const end = Math.min(first + GROUP_REGIONS, this.#regions.size)
      this.#regions.deleteRange(first as RegionIndex, end as RegionIndex)
      this.#isNoted[group] = 0
    }
    this.#groups = []
  }

  /** Makes room for the regions of a volume that grew. */
  grow(size: number): void {
    this.#regions = this.#regions.copy(size)
    const isNoted = new Uint8Array(Math.ceil(size / GROUP_REGIONS))
    isNoted.set(this.#isNoted)
    this.#isNoted = isNoted
  }
}
