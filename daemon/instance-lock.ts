import { closeSync, openSync } from 'node:fs'
import { tryLock } from 'fs-native-extensions'
import { XosanError } from '../core/errors.ts'

/**
 * Makes sure that this is the only process of its kind: two would write the same files. The lock ends with the
 * process, however it ends.
 *
 * @param file made when missing; kept open for good
 * @throws XosanError INVALID_ARGUMENT when another process has it
 */
export function lockInstance(file: string): void {
  const descriptor = openSync(file, 'a', 0o600)
  if (tryLock(descriptor)) return
  closeSync(descriptor)
  throw new XosanError('INVALID_ARGUMENT', {
    what: `Starting with ${file}`,
    reason: 'another process has locked it',
  })
}
