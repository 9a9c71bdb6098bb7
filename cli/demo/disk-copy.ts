/** Copies between a file and a virtual disk, as a guest's `dd` does, several requests at once. */
import { open } from 'node:fs/promises'
import { byteOffset } from '../../core/units.ts'
import { type BlockDevice } from '../../datapath/block-device.ts'

const REQUEST_BYTES = 256 * 1024
const DEPTH = 8

interface CopyResult {
  readonly bytes: number
  /** Longest time that one request took, in milliseconds. */
  readonly longestMs: number
}

/** @param progress called with the bytes that have been acknowledged so far */
export async function writeToDisk(
  path: string,
  device: BlockDevice,
  bytes: number,
  progress: (acknowledged: number) => void
): Promise<CopyResult> {
  const file = await open(path)
  try {
    let acknowledged = 0
    const result = await eachRequest(bytes, async (offset, length) => {
      const data = Buffer.alloc(length)
      await file.read(data, 0, length, offset)
      await device.write({ offset: byteOffset(offset), data, durable: false })
      acknowledged += length
      progress(acknowledged)
    })
    await device.flush()
    return result
  } finally {
    await file.close()
  }
}

export async function readFromDisk(device: BlockDevice, path: string, bytes: number): Promise<CopyResult> {
  const file = await open(path, 'w')
  try {
    return await eachRequest(bytes, async (offset, length) => {
      const data = Buffer.alloc(length)
      await device.read(byteOffset(offset), data)
      await file.write(data, 0, length, offset)
    })
  } finally {
    await file.close()
  }
}

async function eachRequest(
  bytes: number,
  request: (offset: number, length: number) => Promise<void>
): Promise<CopyResult> {
  let next = 0
  let longestMs = 0
  const worker = async (): Promise<void> => {
    while (next < bytes) {
      const offset = next
      const length = Math.min(REQUEST_BYTES, bytes - offset)
      next += length
      const sentAt = performance.now()
      await request(offset, length)
      longestMs = Math.max(longestMs, performance.now() - sentAt)
    }
  }
  await Promise.all(Array.from({ length: DEPTH }, worker))
  return { bytes, longestMs }
}
