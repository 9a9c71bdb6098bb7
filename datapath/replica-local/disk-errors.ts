import { reasonOf, XosanError } from '../../core/errors.ts'
import { type Disk } from '../../core/ports/disk.ts'

/** For `catch`: turns what a disk throws into an error of ours; ours pass through. */
export function asXosanError(disk: Disk, path: string): (error: unknown) => Promise<never> {
  return async error => {
    throw await toXosanError(disk, path, error)
  }
}

/** An error of ours for what a disk throws; NO_SPACE says how much there is. */
export async function toXosanError(disk: Disk, path: string, error: unknown): Promise<XosanError> {
  if (error instanceof XosanError) return error
  const { code } = error as NodeJS.ErrnoException
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    const free = await disk.space().then(
      space => space.free,
      () => 0
    )
    return new XosanError('NO_SPACE', { needed: 'more', free }, { cause: error })
  }
  return new XosanError('DISK_FAILED', { path, reason: reasonOf(error) }, { cause: error })
}
