import { open, stat, type FileHandle } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { tryLock } from 'fs-native-extensions'
import { XosanError } from '../../core/errors.ts'

/** Between two attempts while another command holds the lock, in milliseconds. */
const RETRY_MS = 25

/** An exclusive lock on a file, which the kernel releases when the process ends in any way. */
export interface FileLock {
  release(): Promise<void>
}

/**
 * Takes the lock of a file, which is made when it is missing.
 *
 * @param waitMs how long to wait for another holder
 * @throws XosanError DEADLINE_EXCEEDED when it is still held then
 */
export async function lockFile(path: string, waitMs: number): Promise<FileLock> {
  const end = performance.now() + waitMs
  for (;;) {
    const file = await open(path, 'a', 0o600)
    if (tryLock(file.fd) && (await isStillNamed(file, path))) {
      return { release: () => file.close() }
    }
    await file.close()
    if (performance.now() >= end) {
      throw new XosanError('DEADLINE_EXCEEDED', { what: `Waiting for the lock ${path}`, deadlineMs: waitMs })
    }
    await delay(RETRY_MS)
  }
}

/** The holder before us may have removed the file; then somebody else may lock a new one of the same name. */
async function isStillNamed(file: FileHandle, path: string): Promise<boolean> {
  const [ours, named] = await Promise.all([file.stat(), stat(path).catch(() => null)])
  return named !== null && ours.ino === named.ino && ours.dev === named.dev
}
