import { type RegionIndex, endRegion, firstRegion } from '../units.ts'
import { RegionSet } from './region-set.ts'

/**
 * Decides which write intents may be cleared. Setting them is the replicas' own business, before they write; this is
 * the primary's part, in no hurry: a bit that stays set costs a comparison after a crash, a bit that is cleared
 * too early costs a write.
 *
 * Regions age in two steps. One that was written since the last round is warm; if nobody writes to it for a whole
 * round it is cold; a flush on every replica then makes it clean, unless it was written meanwhile. Hot regions
 * keep their bits, so that a busy volume does not pay for setting them again and again.
 */
export class IntentClearing {
  readonly #warm: RegionSet
  readonly #cold: RegionSet

  /** @param regions number of regions of the volume */
  constructor(regions: number) {
    this.#warm = new RegionSet(regions)
    this.#cold = new RegionSet(regions)
  }

  /** Notes that a change of this range was sent to the replicas. */
  written(offset: number, length: number): void {
    const end = endRegion(offset, length)
    for (let region = firstRegion(offset); region < end; region++) {
      this.#warm.add(region)
      this.#cold.delete(region)
    }
  }

  /** Notes regions whose bits are set from before, after they were reconciled. */
  inherited(regions: RegionSet): void {
    this.#cold.union(regions)
  }

  /** Regions that nobody has written for a while: flush every replica, then ask `clearable`. */
  get cold(): RegionSet {
    return this.#cold
  }

  /** Ends a round: what was not written since the last one is cold from now on. */
  age(): void {
    this.#cold.union(this.#warm)
    this.#warm.clear()
  }

  /**
   * What may be cleared after a flush of every replica has succeeded: regions that were cold before the flush and
   * still are. They count as clean from this call on.
   *
   * @param before the cold regions as they were when the flush began
   * @param busy whether a change of a region is under way
   */
  clearable(before: RegionSet, busy: (region: RegionIndex) => boolean): RegionSet {
    const clean = before.copy()
    for (const region of before) {
      if (!this.#cold.has(region) || this.#warm.has(region) || busy(region)) clean.delete(region)
    }
    this.#cold.subtract(clean)
    return clean
  }
}
