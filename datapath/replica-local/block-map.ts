/**
 * Which 4 KiB blocks of the volume are present in a layer. Two files hold it:
 *
 * - the **durable map** claims a block only after a sync has covered the block's data. After a power cut it alone
 *   counts;
 * - the **live map** gets a block's bit before its data is written, without any sync, and carries the boot id. As long as
 *   the kernel has not rebooted its page cache holds both, whatever happened to the process, and the live map counts.
 *
 * So an acknowledged write survives the death of the process without a sync, and after a power cut no block shows
 * what happened to be on the disk.
 *
 * In memory a page of the map (120 MiB of volume) is loaded when first needed and dropped again when there are too
 * many. It has two bits per block: `claimed` is what the live map says, `landed` is set when the block's data has
 * been written and so what a sync may make durable. A block between the two has its first write under way.
 */
import { fillBits, nextClearBit, nextSetBit } from '../../core/bitmap.ts'
import { XosanError } from '../../core/errors.ts'
import { type DiskFile } from '../../core/ports/disk.ts'
import { type ByteOffset } from '../../core/units.ts'
import { GroupCommit } from './group-commit.ts'
import { durablePageAt, livePageAt } from './map-layout.ts'
import {
  PAGE_BYTES,
  PAGE_PAYLOAD_BYTES,
  PAGE_SECTORS,
  SECTOR_BITS,
  decodeSector,
  encodeSectors,
  mapIdentity,
  type MapIdentity,
} from './map-sector.ts'

/**
 * Pages that may stay in memory without being needed: 4 MiB of them for a replica, which cover 60 GiB of volume.
 * With half as many a random load over a 40 GiB disk would read the map again and again; twice as many would cost a
 * host with 50 busy volumes 400 MiB.
 */
const RESIDENT_PAGES_MAX = 512
/** How many pages are looked at for one to drop, so that a load never walks over thousands of changed ones. */
const DROP_ATTEMPTS = 8

/** A page of the map in memory. Bit `i` of it is the block `page * PAGE_BITS + i`. */
export class MapPage {
  readonly number: number
  readonly claimed: Uint8Array
  readonly landed: Uint8Array
  /** Sectors whose live bits on disk are older: first, and the one after the last. */
  liveChanged: { first: number; end: number } | undefined
  /** The same for the durable map. */
  durableChanged: { first: number; end: number } | undefined
  /** Operations that work on the page; it stays in memory meanwhile. */
  users = 0

  constructor(number: number) {
    this.number = number
    this.claimed = new Uint8Array(PAGE_PAYLOAD_BYTES)
    this.landed = new Uint8Array(PAGE_PAYLOAD_BYTES)
  }
}

/** The files of a block map, and how to read them. */
export interface BlockMapFiles {
  readonly durable: DiskFile
  readonly live: DiskFile
  /** Of the durable map, for messages. */
  readonly path: string
  readonly layer: string
  /** Boot id in bytes. */
  readonly boot: Uint8Array
}

/** A part of the durable map as it is to be written. */
interface PageImage {
  readonly position: ByteOffset
  readonly encoded: Buffer
}

export class BlockMap {
  readonly #files: BlockMapFiles
  readonly #durableIdentity: MapIdentity
  readonly #liveIdentity: MapIdentity
  readonly #pages = new Map<number, MapPage>()
  readonly #loading = new Map<number, Promise<void>>()
  readonly #liveChanged = new Set<MapPage>()
  readonly #durableChanged = new Set<MapPage>()
  readonly #liveCommit = new GroupCommit(() => this.#writeLive())

  constructor(files: BlockMapFiles) {
    this.#files = files
    this.#durableIdentity = mapIdentity('PRES', files.layer, null)
    this.#liveIdentity = mapIdentity('LIVE', files.layer, files.boot)
  }

  /** A page that is in memory, held until `release`; undefined when it must be loaded first (`load`). */
  hold(number: number): MapPage | undefined {
    const page = this.#pages.get(number)
    if (page !== undefined) page.users += 1
    return page
  }

  /** Loads a page and holds it until `release`. @throws REPLICA_CORRUPT, and what the disk throws */
  async load(number: number): Promise<MapPage> {
    for (;;) {
      const page = this.hold(number)
      if (page !== undefined) return page
      let loading = this.#loading.get(number)
      if (loading === undefined) {
        loading = this.#read(number).finally(() => this.#loading.delete(number))
        this.#loading.set(number, loading)
      }
      await loading
    }
  }

  release(page: MapPage): void {
    page.users -= 1
  }

  /**
   * Sets the live bits of blocks that are about to be written, for the page cache to hold before the data.
   * @param first first block, counted from the page's first
   */
  async claim(page: MapPage, first: number, end: number): Promise<void> {
    if (fillBits(page.claimed, first, end, true) > 0) this.#liveHasChanged(page, first, end)
    // Also when another write has claimed them: its claim may still be on the way to the page cache.
    await this.#liveCommit.commit()
  }

  /** Says that the data of blocks has been written: the next durable map may claim them. */
  land(page: MapPage, first: number, end: number): void {
    if (fillBits(page.landed, first, end, true) > 0) this.#durableHasChanged(page, first, end)
  }

  /** Takes blocks out of the map. The space of their data has been freed already, so that they read as zeros. */
  async drop(page: MapPage, first: number, end: number): Promise<void> {
    if (fillBits(page.landed, first, end, false) > 0) this.#durableHasChanged(page, first, end)
    if (fillBits(page.claimed, first, end, false) === 0) return
    this.#liveHasChanged(page, first, end)
    await this.#liveCommit.commit()
  }

  /** What the durable map may say after a sync that begins now. */
  takeDurableImages(): PageImage[] {
    const images: PageImage[] = []
    for (const page of this.#durableChanged) {
      const { first, end } = page.durableChanged!
      page.durableChanged = undefined
      images.push({
        position: (durablePageAt(page.number) + (first * PAGE_BYTES) / PAGE_SECTORS) as ByteOffset,
        encoded: encodeSectors(this.#durableIdentity, page.landed, page.number, first, end),
      })
    }
    this.#durableChanged.clear()
    return images
  }

  /** Writes images and makes them durable. The data that they claim is durable already. */
  async writeDurable(images: readonly PageImage[]): Promise<void> {
    await Promise.all(images.map(({ position, encoded }) => this.#files.durable.write(encoded, position)))
    await this.#files.durable.sync()
  }

  /**
   * Writes what the durable map said of blocks when its page was loaded, which may be in the page cache only. The next
   * `writeDurable` makes it durable.
   */
  async writeAnew(page: MapPage, firstBlock: number, endBlock: number): Promise<void> {
    const { first, end } = widened(undefined, firstBlock, endBlock)
    for (let sector = first; sector < end; sector += 1) {
      // What differs from the live map is about to be written anyway, when its data is durable.
      const { durableChanged } = page
      if (durableChanged !== undefined && sector >= durableChanged.first && sector < durableChanged.end)
        continue
      if (
        nextSetBit(page.landed, sector * SECTOR_BITS, (sector + 1) * SECTOR_BITS) >=
        (sector + 1) * SECTOR_BITS
      )
        continue
      const position = (durablePageAt(page.number) + (sector * PAGE_BYTES) / PAGE_SECTORS) as ByteOffset
      const encoded = encodeSectors(this.#durableIdentity, page.landed, page.number, sector, sector + 1)
      await this.#files.durable.write(encoded, position)
    }
  }

  async #writeLive(): Promise<void> {
    const writes = [...this.#liveChanged].map(page => {
      const { first, end } = page.liveChanged!
      page.liveChanged = undefined
      const encoded = encodeSectors(this.#liveIdentity, page.claimed, page.number, first, end)
      const position = (livePageAt(page.number) + (first * PAGE_BYTES) / PAGE_SECTORS) as ByteOffset
      return this.#files.live.write(encoded, position)
    })
    this.#liveChanged.clear()
    await Promise.all(writes)
  }

  #liveHasChanged(page: MapPage, first: number, end: number): void {
    page.liveChanged = widened(page.liveChanged, first, end)
    this.#liveChanged.add(page)
  }

  #durableHasChanged(page: MapPage, first: number, end: number): void {
    page.durableChanged = widened(page.durableChanged, first, end)
    this.#durableChanged.add(page)
  }

  async #read(number: number): Promise<void> {
    const page = new MapPage(number)
    const { durable, live } = this.#files
    const encoded = Buffer.alloc(PAGE_BYTES)
    await durable.read(encoded, durablePageAt(number))
    for (let sector = 0; sector < PAGE_SECTORS; sector += 1) {
      const verdict = decodeSector(this.#durableIdentity, encoded, number, sector, page.landed)
      if (verdict === 'damaged' || verdict === 'other-boot') throw this.#damaged(number, sector, 'block map')
    }
    page.claimed.set(page.landed)
    await live.read(encoded, livePageAt(number))
    for (let sector = 0; sector < PAGE_SECTORS; sector += 1) this.#readLive(page, encoded, sector)
    this.#makeRoom()
    this.#pages.set(number, page)
  }

  /** Takes over a sector of the live map, if it is of this boot; what differs goes into the next durable map. */
  #readLive(page: MapPage, encoded: Buffer, sector: number): void {
    const verdict = decodeSector(this.#liveIdentity, encoded, page.number, sector, page.claimed)
    if (verdict === 'damaged') throw this.#damaged(page.number, sector, 'live block map')
    const first = (sector * PAGE_PAYLOAD_BYTES) / PAGE_SECTORS
    const end = first + PAGE_PAYLOAD_BYTES / PAGE_SECTORS
    if (verdict !== 'valid') {
      page.claimed.set(page.landed.subarray(first, end), first)
      return
    }
    const claimed = page.claimed.subarray(first, end)
    if (Buffer.compare(claimed, page.landed.subarray(first, end)) === 0) return
    page.landed.set(claimed, first)
    this.#durableHasChanged(page, sector * SECTOR_BITS, (sector + 1) * SECTOR_BITS)
  }

  #makeRoom(): void {
    if (this.#pages.size < RESIDENT_PAGES_MAX) return
    let attempts = DROP_ATTEMPTS
    for (const [number, page] of this.#pages) {
      this.#pages.delete(number)
      if (page.users === 0 && page.liveChanged === undefined && page.durableChanged === undefined) return
      this.#pages.set(number, page)
      attempts -= 1
      if (attempts === 0) return
    }
  }

  #damaged(page: number, sector: number, what: string): XosanError {
    const reason = `sector ${page * PAGE_SECTORS + sector} of its ${what} fails its checksum`
    return new XosanError('REPLICA_CORRUPT', { path: this.#files.path, reason })
  }
}

/** Runs of blocks of a page that are present, as [first, end) pairs within a range. */
export function* presentRuns(
  page: MapPage,
  first: number,
  end: number
): Generator<readonly [number, number]> {
  let at = nextSetBit(page.claimed, first, end)
  while (at < end) {
    const runEnd = nextClearBit(page.claimed, at, end)
    yield [at, runEnd]
    at = nextSetBit(page.claimed, runEnd, end)
  }
}

function widened(
  range: { first: number; end: number } | undefined,
  firstBlock: number,
  endBlock: number
): { first: number; end: number } {
  const first = Math.floor(firstBlock / SECTOR_BITS)
  const end = Math.ceil(endBlock / SECTOR_BITS)
  return range === undefined
    ? { first, end }
    : { first: Math.min(range.first, first), end: Math.max(range.end, end) }
}
