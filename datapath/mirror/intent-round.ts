import { type RegionIndex, REGION_BYTES } from '../../core/units.ts'
import { RegionSet } from '../../core/mirror/region-set.ts'
import { type MirrorContext } from './mirror-context.ts'

/**
 * Clears write intents that nobody needs any more, a batch at a time: flushes every replica, then names the regions
 * that were cold all the while, in order with the session's changes.
 */
export class IntentRound {
  readonly #context: MirrorContext
  #underWay = false

  constructor(context: MirrorContext) {
    this.#context = context
  }

  /** One round; does nothing while a replica is away, because then the intents collect what it misses. */
  async run(): Promise<void> {
    if (this.#underWay) return
    this.#underWay = true
    try {
      if (await this.#clear()) this.#context.clearing.age()
    } catch {
      // A bit that stays costs a comparison after a crash, nothing else.
    } finally {
      this.#underWay = false
    }
  }

  /** @returns whether every replica was there all the time */
  async #clear(): Promise<boolean> {
    const { clearing, keeper, options, unreconciled, state } = this.#context
    const links = [...this.#context.links.values()]
    const sessions = links.map(link => link.session)
    const complete = (): boolean =>
      state.serving &&
      keeper.allInSync &&
      unreconciled.isEmpty &&
      links.every((link, index) => link.session !== null && link.session === sessions[index])
    if (!complete()) return false
    const before = new RegionSet(clearing.cold.size)
    for (const region of clearing.cold) {
      if (!this.#isChanging(region)) before.add(region)
      if (before.count === options.batches.regionsPerRound) break
    }
    if (before.isEmpty) return true
    await Promise.all(links.map(async link => link.flush()))
    if (!complete()) return false
    const clean = clearing.clearable(before, region => this.#isChanging(region))
    if (clean.isEmpty) return true
    const regions = [...clean.ranges()]
    await Promise.all(
      links.map(async ({ peer, name, lastSequence: upTo }) =>
        peer.clear({ name: name!, upTo, regions, reconciled: true })
      )
    )
    return true
  }

  #isChanging(region: RegionIndex): boolean {
    return this.#context.state.changing(region * REGION_BYTES, REGION_BYTES)
  }
}
