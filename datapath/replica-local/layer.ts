/**
 * One layer of a replica: its data file, its maps, and the order in which a change reaches them.
 *
 *     write   intent bit (durable) → live map → data            → acknowledged
 *     trim    intent bit (durable) → data punched → live map     → acknowledged
 *     flush   sync of the data → durable map → sync of the map   → acknowledged
 *
 * The data file is a plain sparse file, every block at its own offset, and it always *is* the content: a block that
 * is not present lies in a hole and reads as zeros. So a read asks no map, and any tool can read the file. What
 * could break that equality is a power cut, which may keep the data of blocks that no durable map claims: `recover`
 * punches those before anybody reads.
 */
import { allBitsSet, nextClearBit, nextSetBit } from '../../core/bitmap.ts'
import { type DiskFile } from '../../core/ports/disk.ts'
import { type RegionSet } from '../../core/mirror/region-set.ts'
import {
  BLOCK_BYTES,
  REGION_BYTES,
  byteLength,
  byteOffset,
  endRegion,
  firstRegion,
  type ByteOffset,
  type RegionIndex,
} from '../../core/units.ts'
import { type Extent } from '../block-device.ts'
import { BlockMap, presentRuns, type MapPage } from './block-map.ts'
import { ChangedRegions } from './changed-regions.ts'
import { GroupCommit } from './group-commit.ts'
import { IntentMap } from './intent-map.ts'
import { type LayerFiles } from './layer-files.ts'
import { liveFileBytes, mapFileBytes, PAGE_COVERS_BYTES } from './map-layout.ts'
import { PAGE_BITS, uuidBytes } from './map-sector.ts'

/** What zeros are written from, in pieces: large enough that the number of calls does not matter. */
const ZEROS = new Uint8Array(1024 * 1024)

/** A change of data under way. */
interface Change {
  readonly first: RegionIndex
  readonly end: RegionIndex
}

/** What a layer asks of the replica that it belongs to. */
export interface LayerOwner {
  /** @throws what callers are told when `fatal` was called before */
  check(): void
  /**
   * Hears that a map or a sync failed, after which the layer cannot vouch for anything.
   * @returns what callers are told
   */
  fatal(error: unknown): Error
  /** The error for a single read or write of data that failed. */
  failedCall(error: unknown): Promise<Error>
}

export class Layer {
  readonly #data: DiskFile
  readonly #map: DiskFile
  readonly #live: DiskFile
  readonly #intents: IntentMap
  readonly #blocks: BlockMap
  readonly #owner: LayerOwner
  /** Counts changes of data that have ended; what was synced up to is compared with it. */
  #changes = 0
  #changesSynced = 0
  /** False after an unclean open until the first flush: what earlier processes wrote is then not durable. */
  #isFlushed = true
  readonly #underWay = new Set<Change>()
  /** Regions changed since the last flush began, and those that a flush under way covers. */
  #touched: ChangedRegions
  #flushing: ChangedRegions
  readonly #flush = new GroupCommit(() => this.#flushRound())

  private constructor(files: LayerFiles, intents: IntentMap, blocks: BlockMap, owner: LayerOwner) {
    this.#touched = new ChangedRegions(intents.regions.size)
    this.#flushing = new ChangedRegions(intents.regions.size)
    this.#data = files.data
    this.#map = files.map
    this.#live = files.live
    this.#intents = intents
    this.#blocks = blocks
    this.#owner = owner
  }

  /**
   * @param files checked and open
   * @param size of the volume in bytes
   * @param boot id of the running kernel
   * @throws REPLICA_CORRUPT, and what the disk throws
   */
  static async open(files: LayerFiles, size: number, boot: string, owner: LayerOwner): Promise<Layer> {
    const { layer, path } = files
    const intents = await IntentMap.open(files.map, path, layer, Math.ceil(size / REGION_BYTES))
    const blocks = new BlockMap({ durable: files.map, live: files.live, path, layer, boot: uuidBytes(boot) })
    return new Layer(files, intents, blocks, owner)
  }

  /** The regions with a write intent. Not to be changed by the caller. */
  get intents(): RegionSet {
    return this.#intents.regions
  }

  /**
   * Makes the layer whole after it was not closed clean.
   *
   * Loading the maps of every region with an intent puts whatever only the live map says into the next durable
   * map. After a power cut there is nothing that only the live map says; then data that no durable map claims is
   * punched. Without one, what the durable map says may be in the page cache only, if a process died before its sync or its
   * sync failed, and is written anew. Regions without an intent have not changed since the durable map was written.
   * @param powerCut the kernel is another one than the last that changed the layer
   */
  async recover(powerCut: boolean): Promise<void> {
    for (const { first, end } of this.#intents.regions.ranges()) {
      const offset = first * REGION_BYTES
      await this.#eachPage(offset, end * REGION_BYTES - offset, async (page, firstBlock, endBlock) => {
        if (!powerCut) return this.#blocks.writeAnew(page, firstBlock, endBlock)
        let at = nextClearBit(page.claimed, firstBlock, endBlock)
        while (at < endBlock) {
          const next = nextSetBit(page.claimed, at, endBlock)
          await this.#data.punch(blockOffset(page, at), byteLength((next - at) * BLOCK_BYTES))
          at = nextClearBit(page.claimed, next, endBlock)
        }
      })
    }
    this.#changes += 1
    this.#isFlushed = false
  }

  /** Fills the buffer with content. */
  async read(offset: ByteOffset, into: Uint8Array): Promise<void> {
    try {
      await this.#data.read(into, offset)
    } catch (error) {
      throw await this.#owner.failedCall(error)
    }
  }

  /** Fills the buffer if the system has the content in memory. @returns false when `read` is to be asked */
  readAtOnce(offset: ByteOffset, into: Uint8Array): boolean {
    return this.#data.readAtOnce?.(into, offset) ?? false
  }

  /** Writes data; it survives the process when this returns, and a power cut after the next `flush`. */
  async write(offset: ByteOffset, data: Uint8Array): Promise<void> {
    const pageEnd = (Math.floor(offset / PAGE_COVERS_BYTES) + 1) * PAGE_COVERS_BYTES
    if (offset + data.length <= pageEnd) return this.#writeInPage(offset, data)
    await this.#writeInPage(offset, data.subarray(0, pageEnd - offset))
    await this.write(byteOffset(pageEnd), data.subarray(pageEnd - offset))
  }

  /** Writes zeros, which take space. */
  async writeZeros(offset: ByteOffset, length: number): Promise<void> {
    for (let done = 0; done < length; done += ZEROS.length) {
      await this.write(byteOffset(offset + done), ZEROS.subarray(0, Math.min(ZEROS.length, length - done)))
    }
  }

  /**
   * Frees whole blocks of a range; in blocks at its edges that are present, its part becomes zeros.
   * @param absentToo also blocks that are not present, because the disk may not have what freed them
   */
  async discard(offset: ByteOffset, length: number, absentToo: boolean): Promise<void> {
    const end = offset + length
    const wholeFrom = Math.ceil(offset / BLOCK_BYTES) * BLOCK_BYTES
    const wholeTo = Math.floor(end / BLOCK_BYTES) * BLOCK_BYTES
    if (wholeFrom > wholeTo) return this.#zeroEdge(offset, length)
    if (offset < wholeFrom) await this.#zeroEdge(offset, wholeFrom - offset)
    await this.#eachPage(wholeFrom, wholeTo - wholeFrom, (page, first, last) =>
      this.#discardInPage(page, first, last, absentToo)
    )
    if (wholeTo < end) await this.#zeroEdge(byteOffset(wholeTo), end - wholeTo)
  }

  /** Makes every change that has ended before the call durable. Calls at the same time share syncs. */
  flush(): Promise<void> {
    return this.#flush.commit()
  }

  /**
   * Clears intents of regions, except those that have changed since the last flush, in this process or an earlier
   * one: the mirror does not ask for such, and if it did, a power cut could make replicas differ where no bit says so.
   */
  clearIntents(regions: RegionSet): void {
    if (!this.#isFlushed) return
    for (const region of regions) {
      if (!this.#touched.has(region) && !this.#flushing.has(region)) this.#intents.clear(region)
    }
  }

  /** Sets the intents of all regions, durably. */
  async markAllIntents(): Promise<void> {
    await this.#orFatal(this.#intents.ensureAll())
  }

  /** Makes cleared intents durable, for a clean close. */
  async writeClearedIntents(): Promise<void> {
    await this.#intents.writeCleared().catch((error: unknown) => {
      throw this.#owner.fatal(error)
    })
  }

  /** Extents that together cover exactly the range. */
  async allocation(offset: ByteOffset, length: number): Promise<Extent[]> {
    const runs: { length: number; hole: boolean }[] = []
    const add = (bytes: number, hole: boolean): void => {
      const last = runs.at(-1)
      if (last?.hole === hole) last.length += bytes
      else if (bytes > 0) runs.push({ length: bytes, hole })
    }
    const firstBlock = Math.floor(offset / BLOCK_BYTES)
    const endBlock = Math.ceil((offset + length) / BLOCK_BYTES)
    const clip = (block: number): number => Math.min(Math.max(block * BLOCK_BYTES, offset), offset + length)
    await this.#eachPage(
      firstBlock * BLOCK_BYTES,
      (endBlock - firstBlock) * BLOCK_BYTES,
      (page, first, end) => {
        const base = page.number * PAGE_BITS
        let at = first
        for (const [from, to] of presentRuns(page, first, end)) {
          add(clip(base + from) - clip(base + at), true)
          add(clip(base + to) - clip(base + from), false)
          at = to
        }
        add(clip(base + end) - clip(base + at), true)
      }
    )
    return runs.map(run => ({ length: byteLength(run.length), hole: run.hole, zero: run.hole }))
  }

  /** Makes the files fit a larger volume, durably; the new part is not present. */
  async grow(from: number, to: number): Promise<void> {
    await reserveTo(this.#map, mapFileBytes(from), mapFileBytes(to))
    await reserveTo(this.#live, liveFileBytes(from), liveFileBytes(to))
    await this.#data.resize(byteLength(to))
    // A sync that fails here may have lost what was written before.
    await this.#orFatal(Promise.all([this.#map, this.#live, this.#data].map(file => file.sync())))
    const regions = Math.ceil(to / REGION_BYTES)
    this.#intents.grow(regions)
    this.#touched.grow(regions)
    this.#flushing.grow(regions)
  }

  /** Space that the files take on the disk, in bytes. */
  async physicalBytes(): Promise<number> {
    const stats = await Promise.all([this.#data, this.#map, this.#live].map(file => file.stat()))
    return stats.reduce((sum, { allocated }) => sum + allocated, 0)
  }

  async close(): Promise<void> {
    await Promise.all([this.#data, this.#map, this.#live].map(file => file.close()))
  }

  async #writeInPage(offset: ByteOffset, data: Uint8Array): Promise<void> {
    const number = Math.floor(offset / PAGE_COVERS_BYTES)
    const first = Math.floor(offset / BLOCK_BYTES) - number * PAGE_BITS
    const end = Math.ceil((offset + data.length) / BLOCK_BYTES) - number * PAGE_BITS
    const change = this.#begin(firstRegion(offset), endRegion(offset, data.length))
    const page = this.#blocks.hold(number) ?? (await this.#load(number, change))
    try {
      // The usual overwrite finds its intent durable and its blocks landed, and is one write call.
      const intent = this.#intents.ensure(change.first, change.end)
      if (intent !== undefined) await this.#orFatal(intent)
      const landed = allBitsSet(page.landed, first, end)
      if (!landed) await this.#orFatal(this.#blocks.claim(page, first, end))
      try {
        await this.#data.write(data, offset)
      } catch (error) {
        throw await this.#owner.failedCall(error)
      } finally {
        // Also when it failed: a disk that is full takes a part, which is read from now on. What is read must be durable
        // after a flush, for nobody may ever write it again: who compares finds it equal.
        if (!landed) this.#blocks.land(page, first, end)
      }
    } finally {
      this.#blocks.release(page)
      this.#end(change)
    }
  }

  /** Zeros in a part of one block, if it is present: a block that is not has them already. */
  async #zeroEdge(offset: ByteOffset, length: number): Promise<void> {
    const block = Math.floor(offset / BLOCK_BYTES) * BLOCK_BYTES
    await this.#eachPage(block, BLOCK_BYTES, async (page, first, end) => {
      if (allBitsSet(page.claimed, first, end)) await this.#writeInPage(offset, ZEROS.subarray(0, length))
    })
  }

  /** Blocks of one page. Regions without a present block do not change, and get no intent. */
  async #discardInPage(page: MapPage, first: number, end: number, absentToo: boolean): Promise<void> {
    const runs = absentToo ? [[first, end] as const] : [...presentRuns(page, first, end)]
    if (runs.length === 0) return
    const changes = runs.map(([from, to]) => {
      const offset = blockOffset(page, from)
      return this.#begin(firstRegion(offset), endRegion(offset, (to - from) * BLOCK_BYTES))
    })
    try {
      const intents = changes.map(change => this.#intents.ensure(change.first, change.end))
      await this.#orFatal(Promise.all(intents.filter(intent => intent !== undefined)))
      const [from] = runs[0]!
      const [, to] = runs.at(-1)!
      try {
        await this.#data.punch(blockOffset(page, from), byteLength((to - from) * BLOCK_BYTES))
      } catch (error) {
        throw await this.#owner.failedCall(error)
      }
      await this.#orFatal(this.#blocks.drop(page, from, to))
    } finally {
      for (const change of changes) this.#end(change)
    }
  }

  async #flushRound(): Promise<void> {
    // A sync after a failed one may succeed without the pages that the failed one lost.
    this.#owner.check()
    const images = this.#blocks.takeDurableImages()
    const changes = this.#changes
    const flushing = this.#touched
    // Empty, because rounds come one after the other, and none comes after one that failed.
    this.#touched = this.#flushing
    this.#flushing = flushing
    for (const change of this.#underWay) this.#touch(change)
    try {
      if (changes !== this.#changesSynced || images.length > 0) await this.#data.sync()
      if (images.length > 0 || !this.#isFlushed) await this.#blocks.writeDurable(images)
    } catch (error) {
      throw this.#owner.fatal(error)
    }
    this.#changesSynced = changes
    this.#isFlushed = true
    flushing.clear()
  }

  #begin(first: RegionIndex, end: RegionIndex): Change {
    const change = { first, end }
    this.#underWay.add(change)
    this.#touch(change)
    return change
  }

  #end(change: Change): void {
    this.#underWay.delete(change)
    this.#changes += 1
  }

  #touch({ first, end }: Change): void {
    this.#touched.addRange(first, end)
  }

  async #load(number: number, change: Change): Promise<MapPage> {
    try {
      return await this.#blocks.load(number)
    } catch (error) {
      this.#end(change)
      throw await this.#owner.failedCall(error)
    }
  }

  /** Calls an action for each page of the map that a range of whole blocks touches, in order. */
  async #eachPage(
    offset: number,
    length: number,
    action: (page: MapPage, first: number, end: number) => Promise<void> | void
  ): Promise<void> {
    const firstBlock = offset / BLOCK_BYTES
    const endBlock = firstBlock + length / BLOCK_BYTES
    for (let at = firstBlock; at < endBlock;) {
      const number = Math.floor(at / PAGE_BITS)
      const base = number * PAGE_BITS
      const upTo = Math.min(base + PAGE_BITS, endBlock)
      let page
      try {
        page = this.#blocks.hold(number) ?? (await this.#blocks.load(number))
      } catch (error) {
        throw await this.#owner.failedCall(error)
      }
      try {
        await action(page, at - base, upTo - base)
      } finally {
        this.#blocks.release(page)
      }
      at = upTo
    }
  }

  async #orFatal(work: Promise<unknown>): Promise<void> {
    try {
      await work
    } catch (error) {
      throw this.#owner.fatal(error)
    }
    this.#owner.check()
  }
}

const blockOffset = (page: MapPage, block: number): ByteOffset =>
  byteOffset((page.number * PAGE_BITS + block) * BLOCK_BYTES)

async function reserveTo(file: DiskFile, from: number, to: number): Promise<void> {
  if (to > from) await file.reserve(byteOffset(from), byteLength(to - from))
}
