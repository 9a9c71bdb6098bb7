import { constants, promises as fs, type Stats } from 'node:fs'
import { join } from 'node:path'
import { type Disk, type DiskFile } from '../../core/ports/disk.ts'
import { byteLength, type ByteLength } from '../../core/units.ts'
import { DiskLanes } from './disk-lanes.ts'
import { NodeDiskFile, type PunchCall } from './node-disk-file.ts'

/** Letters, digits, and the punctuation of UUIDs and suffixes: nothing that a shell, a path or a URL could mistake. */
const NAME_PART = /^[A-Za-z0-9_-][A-Za-z0-9._-]*$/

/**
 * A store's directory on a real file system.
 *
 * Names come from records that other hosts wrote, so they are checked as if they were hostile: only plain parts, and
 * no symbolic link anywhere below the store's directory, or a record could reach files that are not the store's.
 */
export class NodeDisk implements Disk {
  readonly #root: string
  readonly #punch: PunchCall | undefined
  readonly #lanes = new DiskLanes()

  private constructor(root: string, punch: PunchCall | undefined) {
    this.#root = root
    this.#punch = punch
  }

  /**
   * @param directory of the store; it exists
   * @param punch for tests: what punches holes instead of the file system
   * @throws ENOENT, ENOTDIR
   */
  static async open(directory: string, punch?: PunchCall): Promise<NodeDisk> {
    const root = await fs.realpath(directory)
    if (!(await fs.stat(root)).isDirectory()) throw systemError('ENOTDIR', 'open', root)
    return new NodeDisk(root, punch)
  }

  async open(name: string, create: boolean | 'exclusive'): Promise<DiskFile> {
    const path = await this.#path(name)
    const { O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW } = constants
    const how = create === 'exclusive' ? O_CREAT | O_EXCL : create ? O_CREAT : 0
    return NodeDiskFile.open(path, O_RDWR | O_NOFOLLOW | how, this.#punch, this.#lanes)
  }

  async list(directory: string): Promise<string[]> {
    try {
      const path = await this.#path(directory)
      return (await this.#lanes.run(() => fs.readdir(path))).sort()
    } catch (error) {
      if (isMissing(error)) return []
      throw error
    }
  }

  async makeDirectory(directory: string): Promise<void> {
    const parts = directory.split('/')
    for (let depth = 1; depth <= parts.length; depth += 1) {
      const path = await this.#path(parts.slice(0, depth).join('/'))
      try {
        await this.#lanes.run(() => fs.mkdir(path, { mode: 0o700 }))
      } catch (error) {
        if (codeOf(error) !== 'EEXIST' || !(await this.#lstat(path)).isDirectory()) throw error
      }
    }
  }

  async rename(from: string, to: string): Promise<void> {
    const [before, after] = [await this.#path(from), await this.#path(to)]
    await this.#lanes.run(() => fs.rename(before, after))
  }

  async remove(name: string): Promise<void> {
    try {
      const path = await this.#path(name)
      const isDirectory = (await this.#lstat(path)).isDirectory()
      await this.#lanes.run(() => (isDirectory ? fs.rmdir(path) : fs.unlink(path)))
    } catch (error) {
      if (!isMissing(error)) throw error
    }
  }

  async syncDirectory(directory: string): Promise<void> {
    const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW } = constants
    const path = await this.#path(directory)
    await this.#lanes.run(async () => {
      const handle = await fs.open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
      try {
        await handle.sync()
      } finally {
        await handle.close()
      }
    })
  }

  async space(): Promise<{ total: ByteLength; free: ByteLength }> {
    const { blocks, bavail, bsize } = await this.#lanes.run(() => fs.statfs(this.#root))
    return { total: byteLength(blocks * bsize), free: byteLength(bavail * bsize) }
  }

  async #lstat(path: string): Promise<Stats> {
    return this.#lanes.run(() => fs.lstat(path))
  }

  /** The path of a name whose parents are real directories; the last part is its caller's to check. */
  async #path(name: string): Promise<string> {
    if (name === '') return this.#root
    const parts = name.split('/')
    if (!parts.every(part => NAME_PART.test(part))) throw systemError('EINVAL', 'open', name)
    let path = this.#root
    for (const part of parts.slice(0, -1)) {
      path = join(path, part)
      const stat = await this.#lstat(path)
      if (stat.isSymbolicLink()) throw systemError('ELOOP', 'open', path)
    }
    return join(path, parts.at(-1)!)
  }
}

function systemError(code: string, syscall: string, path: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${code}: ${syscall} '${path}'`), { code, syscall, path })
}

const codeOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException).code
const isMissing = (error: unknown): boolean => codeOf(error) === 'ENOENT'
