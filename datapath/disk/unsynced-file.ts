import { type DiskFile } from '../../core/ports/disk.ts'
import { type Random } from '../../core/ports/random.ts'
import { BLOCK_BYTES, byteLength, byteOffset } from '../../core/units.ts'
import { type UnsyncedRange, UnsyncedRanges, copyRange, inRandomPieces } from './unsynced-ranges.ts'

/** A cut in the middle of a write-back may tear what is longer than such a piece; in bytes. */
const GRAINS = [512, 4096, 65_536]
/** Of a file that is written back because memory is short, so much. */
const SHARE_WRITTEN_BACK = 0.5

/** What a file shares with the others of its disk. */
export interface UnsyncedFileOptions {
  readonly random: Random
  /** Told by how many bytes of memory more, or fewer, the file takes. */
  readonly grown: (bytes: number) => void
}

/** One file by whatever name, and what was written to it and not synced, whoever has it open. */
export class UnsyncedFile {
  readonly #options: UnsyncedFileOptions
  readonly #unsynced = new UnsyncedRanges()
  /** What is being written back, which reads must see until all of it is in the file. */
  #leaving = new UnsyncedRanges()
  /** Blocks that have space in the file. */
  readonly #owned = new Set<number>()
  readonly #open = new Set<DiskFile>()
  /** What changes the file itself goes one by one: reserving reads first and then writes zeros. */
  #turn: Promise<unknown> = Promise.resolve()

  constructor(options: UnsyncedFileOptions) {
    this.#options = options
  }

  get bytes(): number {
    return this.#unsynced.bytes
  }

  get isOpen(): boolean {
    return this.#open.size > 0
  }

  opened(file: DiskFile): void {
    this.#open.add(file)
  }

  async closed(file: DiskFile): Promise<void> {
    this.#open.delete(file)
    await this.#inTurn(() => file.close())
  }

  async read(file: DiskFile, into: Uint8Array, position: number): Promise<void> {
    // What is un-synced now may be in the file, and no longer here, when the file has been read.
    const before = [this.#leaving, this.#unsynced].flatMap(all => all.within(position, into.length))
    await file.read(into, byteOffset(position))
    for (const range of before) copyRange(range, into, position)
    this.#leaving.copyInto(into, position)
    this.#unsynced.copyInto(into, position)
  }

  readAtOnce(file: DiskFile, into: Uint8Array, position: number): boolean {
    if (file.readAtOnce?.(into, byteOffset(position)) !== true) return false
    this.#leaving.copyInto(into, position)
    this.#unsynced.copyInto(into, position)
    return true
  }

  async write(file: DiskFile, data: Uint8Array, position: number): Promise<void> {
    const kept = data.slice()
    if (!this.#ownsAll(position, data.length)) {
      await this.#inTurn(() => this.#takeSpace(file, position, data.length))
    }
    this.#put({ position, length: kept.length, data: kept })
  }

  async punch(file: DiskFile, position: number, length: number): Promise<void> {
    const end = Math.min(position + length, await this.size(file))
    if (end > position) this.#put({ position, length: end - position, data: null })
  }

  /** Writes everything back and then does something to the file itself. */
  async settled(file: DiskFile, action: () => Promise<void>): Promise<void> {
    await this.#inTurn(async () => {
      await this.#writeBack(file, 1)
      await action()
      this.#owned.clear()
    })
  }

  async sync(file: DiskFile): Promise<void> {
    await this.#inTurn(async () => {
      await this.#writeBack(file, 1)
      await file.sync()
    })
  }

  /** Writes a part back, as a kernel does that is short of memory. */
  async relieve(file: DiskFile): Promise<void> {
    await this.#inTurn(() => this.#writeBack(file, SHARE_WRITTEN_BACK))
  }

  /** One of those who have it open. */
  anyOpen(): DiskFile | undefined {
    return [...this.#open][0]
  }

  /** Forgets what is un-synced: the file is gone. */
  forget(): void {
    this.#counted(() => this.#unsynced.take(this.#options.random))
  }

  async size(file: DiskFile): Promise<number> {
    const ends = [this.#leaving.end, this.#unsynced.end]
    return Math.max((await file.stat()).size, ...ends, this.#leaving.end, this.#unsynced.end)
  }

  #put(range: UnsyncedRange): void {
    this.#counted(() => this.#unsynced.put(range))
  }

  #counted<T>(change: () => T): T {
    const before = this.bytes
    const result = change()
    this.#options.grown(this.bytes - before)
    return result
  }

  #ownsAll(position: number, length: number): boolean {
    for (const block of blocksOf(position, length)) if (!this.#owned.has(block)) return false
    return true
  }

  /** A file system gives or refuses space at the write, not at the sync. Content stays as it is. */
  async #takeSpace(file: DiskFile, position: number, length: number): Promise<void> {
    const missing = [...blocksOf(position, length)].filter(block => !this.#owned.has(block))
    const [first, last] = [missing[0], missing.at(-1)]
    if (first === undefined || last === undefined) return
    const from = first * BLOCK_BYTES
    const to = Math.min((last + 1) * BLOCK_BYTES, Math.max(await this.size(file), position + length))
    await file.reserve(byteOffset(from), byteLength(to - from))
    for (const block of missing) this.#owned.add(block)
  }

  async #writeBack(file: DiskFile, share: number): Promise<void> {
    const { random } = this.#options
    const taken = this.#counted(() => this.#unsynced.take(random, share))
    for (const range of taken) {
      this.#leaving.put(range)
      if (range.data !== null) continue
      for (const block of blocksOf(range.position, range.length)) this.#owned.delete(block)
    }
    const grain = GRAINS[Math.floor(random.fraction() * GRAINS.length)]!
    try {
      for (const { position, length, data } of inRandomPieces(taken, grain, random)) {
        if (data === null) await file.punch(byteOffset(position), byteLength(length))
        else await file.write(data, byteOffset(position))
      }
    } catch (error) {
      this.#takeBack()
      throw error
    } finally {
      this.#leaving = new UnsyncedRanges()
    }
  }

  /** What could not be written back is un-synced still, below what has come since. */
  #takeBack(): void {
    this.#counted(() => {
      const { random } = this.#options
      const newer = this.#unsynced.take(random)
      for (const range of [...this.#leaving.take(random), ...newer]) this.#unsynced.put(range)
    })
  }

  async #inTurn<T>(action: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(action)
    this.#turn = turn.catch(() => undefined)
    return turn
  }
}

function* blocksOf(position: number, length: number): Generator<number> {
  const end = Math.ceil((position + length) / BLOCK_BYTES)
  for (let block = Math.floor(position / BLOCK_BYTES); block < end; block++) yield block
}
