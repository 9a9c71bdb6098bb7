import { close, constants, fdatasync, fstat, ftruncate, open, read, write, type Stats } from 'node:fs'
import { trim, tryLock } from 'fs-native-extensions'
import { promisify } from 'node:util'
import { type DiskFile } from '../../core/ports/disk.ts'
import { byteLength, type ByteLength, type ByteOffset } from '../../core/units.ts'
import { type CachedRead, loadCachedRead } from './cached-read.ts'
import { DiskLanes } from './disk-lanes.ts'

const openAsync = promisify(open)
const closeAsync = promisify(close)
const syncAsync = promisify(fdatasync)
const truncateAsync = promisify(ftruncate)
const statAsync = promisify(fstat) as (fd: number) => Promise<Stats>

/** What zeros are written from, and what is read at once when looking for data, in bytes. */
const CHUNK_BYTES = 1024 * 1024
const ZEROS = new Uint8Array(CHUNK_BYTES)
/** In these units `stat` counts what a file takes, whatever the file system's own are. */
const STAT_BLOCK_BYTES = 512

/** Frees the space of a range of a file, as fallocate with FALLOC_FL_PUNCH_HOLE does. */
export type PunchCall = (fd: number, position: number, length: number) => Promise<void>

/**
 * An open file of a real file system, with buffered I/O on the thread pool.
 *
 * Reads and writes use the callbacks of `node:fs` on the bare descriptor: a FileHandle's promises cost about twice
 * as much processor time for 4 KiB, and this is under every request.
 */
export class NodeDiskFile implements DiskFile {
  readonly #fd: number
  readonly #path: string
  readonly #punch: PunchCall
  readonly #lanes: DiskLanes
  /** Null where it is not possible. */
  #cachedRead: CachedRead | null
  /** Calls that were asked for and have not ended. */
  #calls = 0
  #closing = false
  #idle: (() => void) | null = null

  private constructor(
    fd: number,
    path: string,
    punch: PunchCall,
    lanes: DiskLanes,
    cachedRead: CachedRead | null
  ) {
    this.#fd = fd
    this.#cachedRead = cachedRead
    this.#path = path
    this.#punch = punch
    this.#lanes = lanes
  }

  /** @param flags of open(2) @throws EINVAL when it is no regular file; what the system throws */
  static async open(
    path: string,
    flags: number,
    punch: PunchCall = trim,
    lanes = new DiskLanes()
  ): Promise<NodeDiskFile> {
    const cachedRead = await loadCachedRead()
    const fd = await lanes.run(() => openQuietly(path, flags))
    const file = new NodeDiskFile(fd, path, punch, lanes, cachedRead)
    if ((await file.#call(() => statAsync(fd))).isFile()) {
      if (cachedRead?.prepare(fd) === false) file.#cachedRead = null
      return file
    }
    await file.close()
    throw Object.assign(new Error(`EINVAL: '${path}' is not a regular file`), { code: 'EINVAL', path })
  }

  read(into: Uint8Array, position: ByteOffset): Promise<void> {
    return new Promise((resolve, reject) => {
      let done = 0
      const next = (): void => {
        read(this.#fd, into, done, into.length - done, position + done, (error, count) => {
          done += count
          if (error === null && count > 0 && done < into.length) {
            next()
            return
          }
          this.#end()
          if (error !== null) {
            reject(error)
            return
          }
          if (count === 0) into.fill(0, done)
          resolve()
        })
      }
      if (into.length === 0) resolve()
      else this.#begin(next, reject)
    })
  }

  readAtOnce(into: Uint8Array, position: ByteOffset): boolean {
    if (this.#cachedRead === null || this.#closing) return false
    const outcome = this.#cachedRead.read(this.#fd, into, position)
    if (outcome === 'impossible') this.#cachedRead = null
    return outcome === 'done'
  }

  write(data: Uint8Array, position: ByteOffset): Promise<void> {
    return new Promise((resolve, reject) => {
      let done = 0
      const next = (): void => {
        write(this.#fd, data, done, data.length - done, position + done, (error, count) => {
          done += count
          if (error === null && count > 0 && done < data.length) {
            next()
            return
          }
          this.#end()
          if (error !== null) reject(error)
          else if (done === data.length) resolve()
          else reject(this.#error('EIO', 'nothing written to'))
        })
      }
      if (data.length === 0) resolve()
      else this.#begin(next, reject)
    })
  }

  sync(): Promise<void> {
    return this.#call(() => syncAsync(this.#fd))
  }

  async punch(position: ByteOffset, length: ByteLength): Promise<void> {
    // fallocate refuses an empty range, which is no error to us.
    if (length === 0) return
    try {
      await this.#call(() => this.#punch(this.#fd, position, length))
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code !== 'EOPNOTSUPP' && code !== 'ENOTSUP' && code !== 'ENOSYS') throw error
      await this.#writeZeros(position, await this.#endWithin(position + length))
    }
  }

  async reserve(position: ByteOffset, length: ByteLength): Promise<void> {
    const end = position + length
    const { size } = await this.stat()
    const found = new Uint8Array(Math.min(CHUNK_BYTES, length))
    for (let at: number = position; at < end; at += CHUNK_BYTES) {
      const chunk = found.subarray(0, Math.min(CHUNK_BYTES, end - at))
      if (at < size) {
        await this.read(chunk, at as ByteOffset)
        // What holds data has its space; writing back what was read could undo a write of somebody else's.
        if (chunk.some(byte => byte !== 0)) {
          await this.#fillZeroBlocks(chunk, at)
          continue
        }
      }
      await this.#writeZeros(at, at + chunk.length)
    }
  }

  async resize(size: ByteLength): Promise<void> {
    await this.#call(() => truncateAsync(this.#fd, size))
  }

  async stat(): Promise<{ size: ByteLength; allocated: ByteLength }> {
    const { size, blocks } = await this.#call(() => statAsync(this.#fd))
    return { size: byteLength(size), allocated: byteLength(blocks * STAT_BLOCK_BYTES) }
  }

  tryLock(): boolean {
    return tryLock(this.#fd)
  }

  /**
   * Waits for the calls that were asked for: the system gives the descriptor's number to the next file that is opened,
   * and a call that comes late would go there.
   */
  async close(): Promise<void> {
    if (this.#closing) throw this.#error('EBADF', 'it is closed:')
    this.#closing = true
    if (this.#calls > 0) await new Promise<void>(resolve => (this.#idle = resolve))
    await this.#lanes.run(() => closeAsync(this.#fd))
  }

  /** Begins a call of this file as soon as its store has room for it; `#end` has to follow. */
  #begin(begin: () => void, refuse: (error: Error) => void): void {
    if (this.#closing) {
      refuse(this.#error('EBADF', 'it is closed:'))
      return
    }
    this.#calls++
    this.#lanes.enter(begin)
  }

  #end(): void {
    this.#calls--
    this.#lanes.leave()
    if (this.#calls === 0) this.#idle?.()
  }

  async #call<Result>(call: () => Promise<Result>): Promise<Result> {
    await new Promise<void>((resolve, reject) => this.#begin(resolve, reject))
    try {
      return await call()
    } finally {
      this.#end()
    }
  }

  #error(code: string, what: string): NodeJS.ErrnoException {
    return Object.assign(new Error(`${code}: ${what} '${this.#path}'`), { code, path: this.#path })
  }

  /** Writes zeros where a chunk that also holds data has whole blocks of them. */
  async #fillZeroBlocks(chunk: Uint8Array, position: number): Promise<void> {
    const block = 4096
    for (let at = 0; at < chunk.length; at += block) {
      const part = chunk.subarray(at, at + block)
      if (part.every(byte => byte === 0)) await this.#writeZeros(position + at, position + at + part.length)
    }
  }

  async #writeZeros(from: number, to: number): Promise<void> {
    for (let at = from; at < to; at += CHUNK_BYTES) {
      await this.write(ZEROS.subarray(0, Math.min(CHUNK_BYTES, to - at)), at as ByteOffset)
    }
  }

  /** A position, or the file's end when that comes first: a punch does not make a file longer. */
  async #endWithin(position: number): Promise<number> {
    return Math.min(position, (await this.stat()).size)
  }
}

/** Opens a file whose reads leave no trace in it: to note their time could make one wait. */
async function openQuietly(path: string, flags: number): Promise<number> {
  try {
    return await openAsync(path, flags | constants.O_NOATIME, 0o600)
  } catch (error) {
    // Only a file's owner may ask for that.
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') throw error
    return openAsync(path, flags, 0o600)
  }
}
