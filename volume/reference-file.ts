import { readFileSync } from 'node:fs'
import { rename, writeFile } from 'node:fs/promises'
import { z } from 'zod'
import { srId, volumeKey } from '../rpc/identifiers.ts'
import { type HeldVolume, type ReferenceStore } from './references.ts'

const fileSchema = z.object({
  version: z.literal(1),
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

/** The references of one boot in a JSON file of the run directory. */
export class ReferenceFile implements ReferenceStore {
  readonly #file: string
  readonly #boot: string

  /** @param boot the kernel's boot id: references of another boot are dropped */
  constructor(file: string, boot: string) {
    this.#file = file
    this.#boot = boot
  }

  load(): readonly HeldVolume[] {
    try {
      const file = fileSchema.parse(JSON.parse(readFileSync(this.#file, 'utf8')))
      return file.boot === this.#boot ? file.volumes : []
    } catch {
      // Missing at the first start after a boot; it is replaced as a whole, so it is never half-written.
      return []
    }
  }

  async save(volumes: readonly HeldVolume[]): Promise<void> {
    const unfinished = `${this.#file}.new`
    const content = JSON.stringify({ version: 1, boot: this.#boot, volumes })
    await writeFile(unfinished, content, { mode: 0o600 })
    await rename(unfinished, this.#file)
  }
}
