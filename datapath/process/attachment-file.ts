import { open, readFile, rename } from 'node:fs/promises'
import { dirname } from 'node:path'
import { z } from 'zod'
import { reasonOf, XosanError } from '../../core/errors.ts'
import { type BootId } from '../../core/units.ts'
import { bootId, srId, volumeKey } from '../../rpc/identifiers.ts'
import { type Attachment, type AttachmentStore } from './attachments.ts'

const content = z.object({
  version: z.literal(1),
  boot: bootId,
  attachments: z.array(z.object({ sr: srId, volume: volumeKey, activated: z.boolean() })),
})

/**
 * The attachments of one datapath process in a file: what its successor takes up again.
 *
 * They end with the kernel's boot, as the guests do: a process that took up a volume for a guest which is gone would
 * keep it from the host on which that guest is started anew.
 */
export class AttachmentFile implements AttachmentStore {
  readonly #file: string
  readonly #boot: BootId
  readonly #damaged: (error: XosanError) => void

  /** @param damaged told of a file that cannot be understood; xosand attaches again what domains hold */
  constructor(file: string, boot: BootId, damaged: (error: XosanError) => void) {
    this.#file = file
    this.#boot = boot
    this.#damaged = damaged
  }

  async load(): Promise<readonly Attachment[]> {
    try {
      const { boot, attachments } = content.parse(JSON.parse(await readFile(this.#file, 'utf8')))
      return boot === this.#boot ? attachments : []
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
      this.#damaged(new XosanError('RECORD_INVALID', { key: this.#file, reason: reasonOf(error) }))
      return []
    }
  }

  /** Replaces the file as a whole: a reader, also after a kill or a power cut, sees the old one or the new one. */
  async save(attachments: readonly Attachment[]): Promise<void> {
    const unfinished = `${this.#file}.new`
    const handle = await open(unfinished, 'w', 0o600)
    try {
      await handle.writeFile(`${JSON.stringify({ version: 1, boot: this.#boot, attachments })}\n`)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(unfinished, this.#file)
    const directory = await open(dirname(this.#file), 'r')
    try {
      await directory.sync()
    } finally {
      await directory.close()
    }
  }
}
