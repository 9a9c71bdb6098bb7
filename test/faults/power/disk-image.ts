/** Disks in memory from files, and back. */
import { open } from 'node:fs/promises'
import { BLOCK_BYTES } from '../../../core/units.ts'
import { type Blocks } from './volatile-disk.ts'

const PIECE_BYTES = 256 * BLOCK_BYTES

/** Reads a file; blocks of zeros are left out. */
export async function readBlocks(path: string): Promise<Blocks> {
  const blocks = new Map<number, Uint8Array>()
  const file = await open(path, 'r')
  try {
    const zeros = Buffer.alloc(BLOCK_BYTES)
    for (let offset = 0; ; offset += PIECE_BYTES) {
      const { bytesRead, buffer } = await file.read(Buffer.alloc(PIECE_BYTES), 0, PIECE_BYTES, offset)
      for (let start = 0; start < bytesRead; start += BLOCK_BYTES) {
        const block = buffer.subarray(start, start + BLOCK_BYTES)
        if (!block.equals(zeros)) blocks.set((offset + start) / BLOCK_BYTES, Uint8Array.from(block))
      }
      if (bytesRead < PIECE_BYTES) return blocks
    }
  } finally {
    await file.close()
  }
}

/** Writes a sparse file. @param size in bytes */
export async function writeBlocks(path: string, size: number, blocks: Blocks): Promise<void> {
  const file = await open(path, 'w')
  try {
    await file.truncate(size)
    for (const [index, block] of blocks) await file.write(block, 0, block.length, index * BLOCK_BYTES)
  } finally {
    await file.close()
  }
}
