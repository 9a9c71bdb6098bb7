/**
 * Whether a replaced primary did right to answer a write after another host had begun to serve. It may have been
 * stopped between the last replica's answer and its own; then the write was in the volume when the other host took
 * over, and the answer, though late, is true. So the volume is kept as the new primary found it, and compared with all
 * that the old client was told.
 */
import { open, readFile } from 'node:fs/promises'
import { type NbdAddress, connectDisk } from '../../../cli/lab/guest-disk.ts'
import { byteOffset } from '../../../core/units.ts'
import { modelFromJournal } from '../load/journal.ts'
import { SECTOR_BYTES, identifySector } from '../load/sector-content.ts'

const CHUNK_BYTES = 1024 * 1024

/** Reads a whole volume into a file. */
export async function keepVolume({ socket, exportName }: NbdAddress, path: string): Promise<void> {
  const disk = await connectDisk({ socket, exportName })
  const file = await open(path, 'w', 0o600)
  try {
    const chunk = Buffer.alloc(CHUNK_BYTES)
    for (let offset = 0; offset < disk.size; offset += CHUNK_BYTES) {
      await disk.read(byteOffset(offset), chunk)
      await file.write(chunk, 0, CHUNK_BYTES, offset)
    }
  } finally {
    await file.close()
    await disk.close()
  }
}

/**
 * Compares what a client was told, by its journal, with the volume as it was kept.
 *
 * @returns how many sectors hold something that what the client was told excludes
 */
export async function contradictions(journal: string, kept: string): Promise<number> {
  const bytes = await readFile(kept)
  const sectors = bytes.length / SECTOR_BYTES
  const words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)
  const model = modelFromJournal(journal, sectors)
  const read = model.startRead(0, sectors)
  const identify = (sector: number): number => identifySector(words, (sector * SECTOR_BYTES) / 4, sector)
  return model.endRead(read, identify, () => undefined).length
}
