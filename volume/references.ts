import { readFileSync } from 'node:fs'
import { rename, writeFile } from 'node:fs/promises'
import { z } from 'zod'
import { type SrId, type VolumeKey } from '../core/units.ts'
import { srId, volumeKey } from '../rpc/identifiers.ts'

const fileSchema = z.object({
  version: z.literal(1),
  /** Domains do not outlive the boot that they were started in, and neither do their references. */
  boot: z.string(),
  volumes: z.array(
    z.object({
      sr: srId,
      volume: volumeKey,
      attached: z.array(z.string()),
      activated: z.array(z.string()),
    })
  ),
})

/** How a domain holds a volume. */
export type Hold = 'attached' | 'activated'

interface Holders {
  readonly sr: SrId
  readonly attached: Set<string>
  readonly activated: Set<string>
}

/**
 * Which domains of this host hold which volumes. xapi calls once per domain and may repeat itself; the datapath
 * process learns only of the first and of the last. Kept in a file so that a restart of xosand forgets nobody.
 */
export class References {
  readonly #file: string
  readonly #boot: string
  readonly #volumes = new Map<VolumeKey, Holders>()
  #saved: Promise<void> = Promise.resolve()

  /** @param boot the kernel's boot id: references of another boot are dropped */
  constructor(file: string, boot: string) {
    this.#file = file
    this.#boot = boot
    for (const entry of this.#load()) {
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

  #load(): z.infer<typeof fileSchema>['volumes'] {
    try {
      const file = fileSchema.parse(JSON.parse(readFileSync(this.#file, 'utf8')))
      return file.boot === this.#boot ? file.volumes : []
    } catch {
      // Missing at the first start after a boot; it is replaced as a whole, so it is never half-written.
      return []
    }
  }

  /** Writes the file anew. Not synced: it need not outlive the boot, only the process. */
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
        const unfinished = `${this.#file}.new`
        await writeFile(unfinished, JSON.stringify({ version: 1, boot: this.#boot, volumes }), {
          mode: 0o600,
        })
        await rename(unfinished, this.#file)
      })
    await this.#saved
  }
}
