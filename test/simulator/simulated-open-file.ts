import { type DiskFile } from '../../core/ports/disk.ts'
import { type ByteLength, type ByteOffset } from '../../core/units.ts'
import { type CallDetails, type DiskCall, systemError } from './disk-call.ts'
import { type SimulatedMount } from './simulated-disk.ts'
import { PAGE_BYTES, type SimulatedInode } from './simulated-file.ts'

/** The share of reads that find what they want in memory. */
const CACHED = 0.5

/** A file that a process has open. */
export class SimulatedFile implements DiskFile {
  readonly mount: SimulatedMount
  readonly #inode: SimulatedInode
  readonly #name: string
  #closed = false

  constructor(mount: SimulatedMount, inode: SimulatedInode, name: string) {
    this.mount = mount
    this.#inode = inode
    this.#name = name
  }

  read(into: Uint8Array, position: ByteOffset): Promise<void> {
    const range = { from: position, to: position + into.length }
    return this.#call('read', () => this.#inode.read(into, position), { range })
  }

  readAtOnce(into: Uint8Array, position: ByteOffset): boolean {
    const { mount } = this
    // What is in memory is there also while the disk hangs.
    if (this.#closed || mount.isDead || mount.disk.random.fraction() >= CACHED) return false
    try {
      mount.disk.fault?.('read', this.#name, { from: position, to: position + into.length })
    } catch {
      // What the disk cannot read is not in memory either.
      return false
    }
    this.#inode.read(into, position)
    return true
  }

  write(data: Uint8Array, position: ByteOffset): Promise<void> {
    // The kernel copies page by page, and looks for a signal in between.
    const interrupted = (): void => {
      const pages = Math.ceil((this.mount.disk.random.fraction() * data.length) / PAGE_BYTES)
      const upTo = Math.floor(position / PAGE_BYTES + pages) * PAGE_BYTES - position
      if (upTo > 0) this.#write(data.subarray(0, upTo), position)
    }
    const range = { from: position, to: position + data.length }
    return this.#call('write', () => this.#write(data, position), { interrupted, range })
  }

  async sync(): Promise<void> {
    const { disk } = this.mount
    const covered = this.#inode.beginSync()
    return this.#call('sync', covered.succeed).catch((error: unknown) => {
      covered.fail(disk.random)
      throw error
    })
  }

  punch(position: ByteOffset, length: ByteLength): Promise<void> {
    return this.#call('punch', () => {
      this.#inode.punch(position, length)
    })
  }

  reserve(position: ByteOffset, length: ByteLength): Promise<void> {
    return this.#call('reserve', () => {
      this.#requireSpace(position, length)
      this.#inode.reserve(position, length)
    })
  }

  resize(size: ByteLength): Promise<void> {
    return this.#call('resize', () => {
      this.#inode.resize(size)
    })
  }

  stat(): Promise<{ size: ByteLength; allocated: ByteLength }> {
    return this.#call('stat', () => ({
      size: this.#inode.size as ByteLength,
      allocated: (this.#inode.allocatedPages * PAGE_BYTES) as ByteLength,
    }))
  }

  tryLock(): boolean {
    const holder = this.#inode.lockHolder
    if (holder !== null && holder !== this) return false
    this.#inode.lockHolder = this
    return true
  }

  close(): Promise<void> {
    return this.#call('close', () => {
      if (this.#inode.lockHolder === this) this.#inode.lockHolder = null
      this.#closed = true
    })
  }

  #call<Result>(kind: DiskCall, happen: () => Result, details?: CallDetails): Promise<Result> {
    const whenOpen = (): Result => {
      if (this.#closed) throw systemError('EBADF', kind, this.#name)
      return happen()
    }
    return this.mount.call(kind, this.#name, whenOpen, details)
  }

  /** As much as there is room for is written. @throws ENOSPC when that is not all */
  #write(data: Uint8Array, position: number): void {
    const { disk } = this.mount
    let room = this.#inode.missingPages(position, data.length) === 0 ? Infinity : disk.freePages
    for (let at = 0; at < data.length;) {
      const upTo = Math.min(Math.floor((position + at) / PAGE_BYTES + 1) * PAGE_BYTES - position, data.length)
      room -= this.#inode.missingPages(position + at, upTo - at)
      if (room < 0) {
        if (at > 0) this.#inode.write(data.subarray(0, at), position)
        throw systemError('ENOSPC', 'write', this.#name)
      }
      at = room === Infinity ? data.length : upTo
    }
    this.#inode.write(data, position)
    disk.written?.(this.#name)
  }

  #requireSpace(position: number, length: number): void {
    if (this.#inode.missingPages(position, length) > this.mount.disk.freePages) {
      throw systemError('ENOSPC', 'write', this.#name)
    }
  }
}
