import { lockFile } from './file-lock.ts'
import { labLock } from './layout.ts'

/** Another command may be making or removing the lab meanwhile, in milliseconds. */
const LOCK_WAIT_MS = 60_000

/**
 * Keeps other commands from changing a lab meanwhile.
 *
 * @param directory of the lab, absolute
 * @throws XosanError DEADLINE_EXCEEDED when another command goes on changing it
 */
export async function whileLabLocked<T>(directory: string, action: () => Promise<T>): Promise<T> {
  const lock = await lockFile(labLock(directory), LOCK_WAIT_MS)
  try {
    return await action()
  } finally {
    await lock.release()
  }
}
