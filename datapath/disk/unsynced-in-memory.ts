import { type Disk, type DiskFile } from '../../core/ports/disk.ts'
import { type Random } from '../../core/ports/random.ts'
import { type ByteLength, type ByteOffset, byteLength } from '../../core/units.ts'
import { UnsyncedFile } from './unsynced-file.ts'

/**
 * A disk that loses with this process what was written and not synced, as a real one does with its host's power. For
 * drills: the end of the process is the power cut (docs/decisions/lab-power-cuts.md).
 *
 * Only for files that this process alone changes, and by this object alone. Everything of one file is as the port
 * demands; names are made, changed and removed at once. Directories are not renamed.
 */
export class UnsyncedInMemory implements Disk {
  readonly #disk: Disk
  readonly #random: Random
  readonly #bytesMax: number
  /** By name, those that are open or have something un-synced. */
  readonly #files = new Map<string, UnsyncedFile>()
  #bytes = 0
  #relieving: Promise<void> | null = null

  /** @param bytesMax un-synced bytes from which on some are written back, in any order */
  constructor(disk: Disk, random: Random, bytesMax: number) {
    this.#disk = disk
    this.#random = random
    this.#bytesMax = bytesMax
  }

  /** Un-synced bytes in memory now. */
  get bytes(): number {
    return this.#bytes
  }

  async open(name: string, create: boolean | 'exclusive'): Promise<DiskFile> {
    const inner = await this.#disk.open(name, create)
    if (create === 'exclusive') this.#unlink(name)
    let file = this.#files.get(name)
    if (file === undefined) {
      file = new UnsyncedFile({ random: this.#random, grown: bytes => this.#grown(bytes) })
      this.#files.set(name, file)
    }
    file.opened(inner)
    return new OpenFile(inner, file, {
      written: () => this.#relieveIfNeeded(),
      closed: () => this.#closed(file),
    })
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#disk.rename(from, to)
    const file = this.#files.get(from)
    this.#unlink(to)
    this.#files.delete(from)
    if (file !== undefined) this.#files.set(to, file)
  }

  async remove(name: string): Promise<void> {
    await this.#disk.remove(name)
    this.#unlink(name)
  }

  list(directory: string): Promise<string[]> {
    return this.#disk.list(directory)
  }

  makeDirectory(directory: string): Promise<void> {
    return this.#disk.makeDirectory(directory)
  }

  syncDirectory(directory: string): Promise<void> {
    return this.#disk.syncDirectory(directory)
  }

  space(): Promise<{ readonly total: ByteLength; readonly free: ByteLength }> {
    return this.#disk.space()
  }

  /** A file without a name lives on for those who have it open. */
  #unlink(name: string): void {
    const file = this.#files.get(name)
    this.#files.delete(name)
    if (file?.isOpen === false) file.forget()
  }

  #closed(file: UnsyncedFile): void {
    if (file.isOpen) return
    const named = [...this.#files].find(([, other]) => other === file)
    if (named === undefined) file.forget()
    else if (file.bytes === 0) this.#files.delete(named[0])
  }

  #grown(bytes: number): void {
    this.#bytes += bytes
  }

  /** Whoever writes waits when there is too much, so that memory is bounded. */
  async #relieveIfNeeded(): Promise<void> {
    if (this.#bytes <= this.#bytesMax) return
    this.#relieving ??= this.#relieve().finally(() => (this.#relieving = null))
    await this.#relieving
  }

  async #relieve(): Promise<void> {
    while (this.#bytes > this.#bytesMax / 2) {
      const full = [...this.#files].filter(([, file]) => file.bytes > 0)
      const chosen = full[Math.floor(this.#random.fraction() * full.length)]
      // What is left belongs to files without a name; their last close ends it.
      if (chosen === undefined) return
      const [name, file] = chosen
      const open = file.anyOpen()
      if (open !== undefined) {
        await file.relieve(open)
      } else {
        const opened = await this.#disk.open(name, false)
        await file.relieve(opened).finally(() => opened.close())
      }
    }
  }
}

interface OpenFileEvents {
  readonly written: () => Promise<void>
  readonly closed: () => void
}

class OpenFile implements DiskFile {
  readonly #inner: DiskFile
  readonly #file: UnsyncedFile
  readonly #events: OpenFileEvents

  constructor(inner: DiskFile, file: UnsyncedFile, events: OpenFileEvents) {
    this.#inner = inner
    this.#file = file
    this.#events = events
  }

  read(into: Uint8Array, position: ByteOffset): Promise<void> {
    return this.#file.read(this.#inner, into, position)
  }

  readAtOnce(into: Uint8Array, position: ByteOffset): boolean {
    return this.#file.readAtOnce(this.#inner, into, position)
  }

  async write(data: Uint8Array, position: ByteOffset): Promise<void> {
    await this.#file.write(this.#inner, data, position)
    await this.#events.written()
  }

  sync(): Promise<void> {
    return this.#file.sync(this.#inner)
  }

  punch(position: ByteOffset, length: ByteLength): Promise<void> {
    return this.#file.punch(this.#inner, position, length)
  }

  reserve(position: ByteOffset, length: ByteLength): Promise<void> {
    return this.#file.settled(this.#inner, () => this.#inner.reserve(position, length))
  }

  resize(size: ByteLength): Promise<void> {
    return this.#file.settled(this.#inner, () => this.#inner.resize(size))
  }

  async stat(): Promise<{ readonly size: ByteLength; readonly allocated: ByteLength }> {
    const { allocated } = await this.#inner.stat()
    return { size: byteLength(await this.#file.size(this.#inner)), allocated }
  }

  tryLock(): boolean {
    return this.#inner.tryLock()
  }

  async close(): Promise<void> {
    await this.#file.closed(this.#inner)
    this.#events.closed()
  }
}
