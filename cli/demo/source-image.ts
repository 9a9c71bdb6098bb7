import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { open, readFile, readdir, stat, truncate } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { promisify } from 'node:util'
import fse from 'fs-extra'

const run = promisify(execFile)

/** Size of the image in bytes: the sources and the compiler, with some room for the file system's own tables. */
export const IMAGE_BYTES = 64 * 1024 * 1024
/** What of the project is not its sources. */
const LEFT_OUT = ['.git', 'node_modules', 'dist', 'coverage']
/** Gives the image some weight; part of every installation. */
const COMPILER = join('node_modules', 'typescript', 'lib')
const TAR_BLOCK_BYTES = 512
/** Where Debian, Alpine and Fedora put it, which is not always on the PATH of a plain user. */
const MKE2FS = ['/usr/sbin/mke2fs', '/sbin/mke2fs', '/usr/local/sbin/mke2fs', '/usr/bin/mke2fs']

export interface SourceImage {
  readonly kind: 'ext4' | 'tar'
  readonly path: string
  readonly files: number
}

/**
 * Makes a disk image with the sources of this project: an ext4 file system where mke2fs is, else a tar archive,
 * of IMAGE_BYTES either way.
 *
 * @param work an empty directory
 * @param mke2fs the program; empty when there is none
 */
export async function makeSourceImage(
  project: string,
  work: string,
  mke2fs = MKE2FS.find(path => existsSync(path))
): Promise<SourceImage> {
  const tree = join(work, 'tree')
  await fse.copy(project, tree, { filter: source => !LEFT_OUT.includes(basename(source)) })
  if (existsSync(join(project, COMPILER))) {
    await fse.copy(join(project, COMPILER), join(tree, COMPILER))
  }
  const names = await readdir(tree, { recursive: true, withFileTypes: true })
  const files = names.filter(entry => entry.isFile()).map(entry => join(entry.parentPath, entry.name))
  const path = join(work, 'image')
  if (mke2fs === undefined || mke2fs === '') {
    await writeTar(path, tree, files)
    return { kind: 'tar', path, files: files.length }
  }
  await run(mke2fs, ['-q', '-F', '-t', 'ext4', '-d', tree, path, `${IMAGE_BYTES / 1024}k`])
  return { kind: 'ext4', path, files: files.length }
}

/** A tar archive in the ustar format (POSIX.1-1988): a header of 512 bytes and the file, padded, for each. */
async function writeTar(path: string, root: string, files: readonly string[]): Promise<void> {
  const image = await open(path, 'w')
  try {
    for (const file of files) {
      const name = file.slice(root.length + 1)
      // Longer names need an extension of the format; the demo can do without those files.
      if (Buffer.byteLength(name) > 100) continue
      const content = await readFile(file)
      await image.write(tarHeader(name, content.length, (await stat(file)).mtimeMs))
      await image.write(content)
      await image.write(Buffer.alloc(-content.length & (TAR_BLOCK_BYTES - 1)))
    }
  } finally {
    await image.close()
  }
  await truncate(path, IMAGE_BYTES)
}

function tarHeader(name: string, size: number, modifiedMs: number): Buffer {
  const header = Buffer.alloc(TAR_BLOCK_BYTES)
  const octal = (value: number, at: number, digits: number): void => {
    header.write(value.toString(8).padStart(digits, '0'), at, 'latin1')
  }
  header.write(name, 0)
  octal(0o644, 100, 7)
  octal(0, 108, 7)
  octal(0, 116, 7)
  octal(size, 124, 11)
  octal(Math.floor(modifiedMs / 1000), 136, 11)
  header.write('        0', 148, 'latin1')
  header.write('ustar\0' + '00', 257, 'latin1')
  // The checksum is taken with eight spaces in its own place.
  octal(
    header.reduce((sum, byte) => sum + byte, 0),
    148,
    6
  )
  header.write('\0 ', 154, 'latin1')
  return header
}
