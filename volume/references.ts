import { type SrId, type VolumeKey } from '../core/units.ts'

/** How a domain holds a volume. */
export type Hold = 'attached' | 'activated'

/** Which domains hold a volume. */
export interface HeldVolume {
  readonly sr: SrId
  readonly volume: VolumeKey
  readonly attached: readonly string[]
  readonly activated: readonly string[]
}

/** Where the references are kept. */
export interface ReferenceStore {
  /** What was saved last, in this boot: domains do not outlive the boot that they were started in. */
  load(): readonly HeldVolume[]
  /** Outlives the process when it returns; need not outlive the boot. */
  save(volumes: readonly HeldVolume[]): Promise<void>
}

interface Holders {
  readonly sr: SrId
  readonly attached: Set<string>
  readonly activated: Set<string>
}

/**
 * Which domains of this host hold which volumes. xapi calls once per domain and may repeat itself; the datapath
 * process learns only of the first and of the last. Kept in a store so that a restart of xosand forgets nobody.
 */
export class References {
  readonly #store: ReferenceStore
  readonly #volumes = new Map<VolumeKey, Holders>()
  #saved: Promise<void> = Promise.resolve()

  constructor(store: ReferenceStore) {
    this.#store = store
    for (const entry of store.load()) {
      this.#volumes.set(entry.volume, {
        sr: entry.sr,
        attached: new Set(entry.attached),
        activated: new Set(entry.activated),
      })
    }
  }

  isHeld(volume: VolumeKey, hold: Hold): boolean {
    return (this.#volumes.get(volume)?.[hold].size ?? 0) > 0
  }

  /** Whether anybody but this domain holds the volume so. An empty domain stands for all of them. */
  isHeldByOthers(volume: VolumeKey, hold: Hold, domain: string): boolean {
    const holders = this.#volumes.get(volume)?.[hold] ?? new Set()
    return domain !== '' && [...holders].some(holder => holder !== domain)
  }

  /** Volumes held in any way. */
  volumes(): { readonly sr: SrId; readonly volume: VolumeKey }[] {
    return [...this.#volumes].map(([volume, { sr }]) => ({ sr, volume }))
  }

  async add(sr: SrId, volume: VolumeKey, hold: Hold, domain: string): Promise<void> {
    const holders = this.#volumes.get(volume) ?? { sr, attached: new Set(), activated: new Set() }
    this.#volumes.set(volume, holders)
    if (holders[hold].has(domain)) return
    holders[hold].add(domain)
    await this.#save()
  }

  /** @param domain empty: everybody's; xapi does not always know whose it was */
  async remove(volume: VolumeKey, hold: Hold, domain: string): Promise<void> {
    const holders = this.#volumes.get(volume)
    if (holders === undefined) return
    if (domain === '') holders[hold].clear()
    else if (!holders[hold].delete(domain)) return
    if (holders.attached.size === 0 && holders.activated.size === 0) this.#volumes.delete(volume)
    await this.#save()
  }

  /** Saves one after the other; each what is so when its turn comes. */
  async #save(): Promise<void> {
    this.#saved = this.#saved
      .catch(() => undefined)
      .then(async () => {
        const volumes = [...this.#volumes].map(([volume, { sr, attached, activated }]) => ({
          sr,
          volume,
          attached: [...attached],
          activated: [...activated],
        }))
        await this.#store.save(volumes)
      })
    await this.#saved
  }
}
