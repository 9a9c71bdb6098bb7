import { accessSync, constants } from 'node:fs'
import { join } from 'node:path'
import { XosanError } from '../../core/errors.ts'

/** Where administrators' programs are is not in every root's PATH (after `su`, in cron). */
export const PATH = `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`

/** Absolute path of a program. @returns null when it is not installed */
export function findProgram(name: string): string | null {
  const paths = PATH.split(':')
    .filter(directory => directory !== '')
    .map(directory => join(directory, name))
  return paths.find(isExecutable) ?? null
}

/**
 * Absolute path of a program that must be there.
 *
 * @param what needs it, as the beginning of a sentence
 * @param packageName as Debian names it
 * @throws XosanError PROGRAM_MISSING
 */
export function requireProgram(what: string, program: string, packageName: string): string {
  const path = findProgram(program)
  if (path !== null) return path
  throw new XosanError('PROGRAM_MISSING', { what, program, package: packageName })
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}
