/**
 * A file system of its own for a lab host: ext4 in a file beside its other data, on a loop device, mounted where the host
 * keeps its stores. So one host can be filled without the others. A boot of the machine unmounts it; `lab up` mounts it
 * again.
 */
import { execFile } from 'node:child_process'
import { open, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import fse from 'fs-extra'
import { XosanError, reasonOf } from '../../core/errors.ts'
import { PATH, requireProgram } from './find-program.ts'
import { type HostPaths } from './layout.ts'

const execute = promisify(execFile)

const WHAT = 'A lab whose hosts have file systems of their own'
const PACKAGES = { 'mkfs.ext4': 'e2fsprogs', mount: 'mount', umount: 'mount' } as const
/** Making a file system in a sparse file takes a moment; a program that hangs must not hang the lab. */
const TIMEOUT_MS = 60_000
/** Far beyond what a sync takes, unless the disk below hangs. */
const BUSY_MS = 20_000
const RETRY_MS = 100

/** @throws XosanError ROOT_REQUIRED, PROGRAM_MISSING */
export function requireDiskTools(): void {
  if (process.geteuid?.() !== 0) throw new XosanError('ROOT_REQUIRED', { what: WHAT })
  for (const [program, packageName] of Object.entries(PACKAGES)) requireProgram(WHAT, program, packageName)
}

/** Makes the file system when there is none, and mounts it when it is not. @param size in bytes */
export async function ensureDisk({ stores, disk }: HostPaths, size: number): Promise<void> {
  requireDiskTools()
  if (!(await fse.pathExists(disk))) {
    const image = `${disk}.new`
    const file = await open(image, 'w', 0o600)
    await file.truncate(size)
    await file.close()
    // Nothing is left to be initialised behind the back of whoever measures.
    await run('mkfs.ext4', '-q', '-m', '0', '-E', 'lazy_itable_init=0,lazy_journal_init=0', image)
    await fse.rename(image, disk)
  }
  if (!(await isMounted(stores))) await run('mount', '-o', 'loop', disk, stores)
}

/**
 * Unmounts a host's file system if there is one. To be called while nothing of the host runs. The last thread of a
 * process that was killed may be in a sync still, when the process itself counts as gone.
 */
export async function releaseDisk({ stores }: HostPaths): Promise<void> {
  const end = performance.now() + BUSY_MS
  while (await isMounted(stores)) {
    try {
      await run('umount', stores)
    } catch (error) {
      if (performance.now() >= end) throw error
      await delay(RETRY_MS)
    }
  }
}

async function isMounted(directory: string): Promise<boolean> {
  const [own, parent] = await Promise.all([
    stat(directory).catch(() => null),
    stat(dirname(directory)).catch(() => null),
  ])
  return own !== null && parent !== null && own.dev !== parent.dev
}

async function run(program: string, ...words: readonly string[]): Promise<void> {
  try {
    await execute(program, words, { env: { ...process.env, PATH }, timeout: TIMEOUT_MS })
  } catch (error) {
    const said = (error as { stderr?: string }).stderr?.trim() ?? ''
    throw new XosanError(
      'INVALID_ARGUMENT',
      {
        what: WHAT,
        reason: `\`${[program, ...words].join(' ')}\` said: ${said === '' ? reasonOf(error) : said}`,
      },
      { cause: error }
    )
  }
}
