import { createHash } from 'node:crypto'
import { type FileHandle, open } from 'node:fs/promises'

const CHUNK_BYTES = 1024 * 1024

export interface Comparison {
  /** Bytes that both files have and that were looked at. */
  readonly bytes: number
  /** Position of the first byte that differs, or null. */
  readonly firstDifference: number | null
}

/** Compares two files byte by byte over a length that both must have. */
export async function compareFiles(first: string, second: string, length: number): Promise<Comparison> {
  const files = [await open(first), await open(second)] as const
  try {
    const buffers = [Buffer.alloc(CHUNK_BYTES), Buffer.alloc(CHUNK_BYTES)] as const
    for (let offset = 0; offset < length; offset += CHUNK_BYTES) {
      const size = Math.min(CHUNK_BYTES, length - offset)
      await Promise.all([
        readFully(files[0], buffers[0], offset, size),
        readFully(files[1], buffers[1], offset, size),
      ])
      if (buffers[0].compare(buffers[1], 0, size, 0, size) !== 0) {
        let at = 0
        while (buffers[0][at] === buffers[1][at]) at++
        return { bytes: offset + at, firstDifference: offset + at }
      }
    }
    return { bytes: length, firstDifference: null }
  } finally {
    await Promise.all(files.map(file => file.close()))
  }
}

/** SHA-256 of the first bytes of a file, in hexadecimal. */
export async function sha256(path: string, length: number): Promise<string> {
  const file = await open(path)
  try {
    const hash = createHash('sha256')
    const buffer = Buffer.alloc(CHUNK_BYTES)
    for (let offset = 0; offset < length; offset += CHUNK_BYTES) {
      const size = Math.min(CHUNK_BYTES, length - offset)
      await readFully(file, buffer, offset, size)
      hash.update(buffer.subarray(0, size))
    }
    return hash.digest('hex')
  } finally {
    await file.close()
  }
}

async function readFully(file: FileHandle, buffer: Buffer, offset: number, size: number): Promise<void> {
  for (let done = 0; done < size;) {
    const { bytesRead } = await file.read(buffer, done, size - done, offset + done)
    if (bytesRead === 0) throw new Error(`a file to compare ends at ${offset + done}`)
    done += bytesRead
  }
}
