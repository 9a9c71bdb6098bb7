import { type DiskFile } from '../../core/ports/disk.ts'
import { RegionSet } from '../../core/mirror/region-set.ts'
import { XosanError } from '../../core/errors.ts'
import { type ByteOffset, type RegionIndex } from '../../core/units.ts'
import { GroupCommit } from './group-commit.ts'
import { intentPageAt } from './map-layout.ts'
import {
  PAGE_BITS,
  PAGE_BYTES,
  PAGE_PAYLOAD_BYTES,
  PAGE_SECTORS,
  SECTOR_BITS,
  decodeSector,
  encodeSectors,
  mapIdentity,
  type MapIdentity,
} from './map-sector.ts'

/** A page lies in every 70 KB of the file, so a large volume's are read, and written, side by side. */
const PAGES_AT_ONCE = 32

/**
 * The write intents of one layer: the regions in which this replica may differ from the others. A bit is durable
 * before its region changes for the first time; it goes only when the mirror says that all replicas agree.
 *
 * All bits are in memory (2 MiB for each TiB of volume), so that the question "may I write here?" costs nothing
 * when the answer is yes. A clear is written late and without a sync: the disk may then show a bit too many, which
 * costs a needless comparison after a crash, and never one too few.
 */
export class IntentMap {
  readonly #file: DiskFile
  readonly #identity: MapIdentity
  #regions: RegionSet
  /** Set in memory, and their round has not begun. */
  #waiting = new Set<RegionIndex>()
  /** Set in memory, and their round is under way. */
  #committing: ReadonlySet<RegionIndex> = new Set()
  /** Calls of `ensureAll` under way; until they end no bit counts as durable. */
  #allWaiting = 0
  /** Sectors that differ from what was last written. */
  #changedSectors = new Set<number>()
  readonly #commit: GroupCommit

  private constructor(file: DiskFile, identity: MapIdentity, regions: RegionSet) {
    this.#file = file
    this.#identity = identity
    this.#regions = regions
    this.#commit = new GroupCommit(() => this.#round())
  }

  /**
   * Reads the intents of a layer, and writes those that are set anew: what is read may be in the page cache only, written
   * by a process that died before its sync, or by one whose sync failed, after which the kernel calls the pages clean. A bit
   * that counts as durable and is not would let data be written that a power cut keeps without it.
   * @param file the layer's durable map
   * @param size number of regions of the volume
   * @throws REPLICA_CORRUPT when a sector is damaged; what the disk throws
   */
  static async open(file: DiskFile, path: string, layer: string, size: number): Promise<IntentMap> {
    const identity = mapIdentity('INTT', layer, null)
    const pages = Math.ceil(size / PAGE_BITS)
    const bits = new Uint8Array(pages * PAGE_PAYLOAD_BYTES)
    const readPage = async (page: number): Promise<void> => {
      const encoded = Buffer.alloc(PAGE_BYTES)
      await file.read(encoded, intentPageAt(page))
      const pageBits = bits.subarray(page * PAGE_PAYLOAD_BYTES, (page + 1) * PAGE_PAYLOAD_BYTES)
      for (let sector = 0; sector < PAGE_SECTORS; sector += 1) {
        const verdict = decodeSector(identity, encoded, page, sector, pageBits)
        if (verdict === 'damaged' || verdict === 'other-boot') {
          const reason = `sector ${page * PAGE_SECTORS + sector} of its write intents fails its checksum`
          throw new XosanError('REPLICA_CORRUPT', { path, reason })
        }
      }
    }
    for (let first = 0; first < pages; first += PAGES_AT_ONCE) {
      const count = Math.min(PAGES_AT_ONCE, pages - first)
      await Promise.all(Array.from({ length: count }, (_, at) => readPage(first + at)))
    }
    const regions = RegionSet.fromBytes(size, bits.subarray(0, Math.ceil(size / 8)))
    const map = new IntentMap(file, identity, regions)
    await map.#writeAnew()
    return map
  }

  /** The regions whose bit is set, also those whose bit is only about to be durable. Not to be changed. */
  get regions(): RegionSet {
    return this.#regions
  }

  /**
   * Sets the bits of a range of regions durably, before their first change.
   * @returns undefined when they are durable already, which on a busy volume is nearly always
   */
  ensure(first: RegionIndex, end: RegionIndex): Promise<void> | undefined {
    let durable = true
    for (let region = first; region < end; region = (region + 1) as RegionIndex) {
      if (this.#regions.add(region)) {
        this.#waiting.add(region)
        this.#changedSectors.add(Math.floor(region / SECTOR_BITS))
        durable = false
      } else if (durable && this.#isWaiting(region)) {
        durable = false
      }
    }
    return durable ? undefined : this.#commit.commit()
  }

  /** Sets the bits of all regions, durably. One by one they would take more memory than the map itself. */
  async ensureAll(): Promise<void> {
    const { size } = this.#regions
    this.#regions.addRange(0 as RegionIndex, size as RegionIndex)
    for (let sector = 0; sector * SECTOR_BITS < size; sector += 1) this.#changedSectors.add(sector)
    this.#allWaiting += 1
    try {
      await this.#commit.commit()
    } finally {
      this.#allWaiting -= 1
    }
  }

  /** Clears a bit; the disk learns of it with the next round, or by `writeCleared`. */
  clear(region: RegionIndex): void {
    if (this.#regions.delete(region)) this.#changedSectors.add(Math.floor(region / SECTOR_BITS))
  }

  /** Makes the clears so far durable, for a clean close. */
  writeCleared(): Promise<void> {
    return this.#changedSectors.size === 0 ? Promise.resolve() : this.#commit.commit()
  }

  /** Makes room for the regions of a volume that grew. The file has grown already. */
  grow(size: number): void {
    this.#regions = this.#regions.copy(size)
  }

  async #writeAnew(): Promise<void> {
    for (const { first, end } of this.#regions.ranges()) {
      const [from, to] = [Math.floor(first / SECTOR_BITS), Math.ceil(end / SECTOR_BITS)]
      for (let sector = from; sector < to; sector += 1) this.#changedSectors.add(sector)
    }
    await this.writeCleared()
  }

  #isWaiting(region: RegionIndex): boolean {
    return this.#allWaiting > 0 || this.#waiting.has(region) || this.#committing.has(region)
  }

  async #round(): Promise<void> {
    this.#committing = this.#waiting
    this.#waiting = new Set()
    const sectors = this.#changedSectors
    this.#changedSectors = new Set()
    const pages = new Map<number, { first: number; end: number }>()
    for (const number of sectors) {
      const page = Math.floor(number / PAGE_SECTORS)
      const sector = number % PAGE_SECTORS
      const range = pages.get(page)
      pages.set(page, {
        first: Math.min(range?.first ?? sector, sector),
        end: Math.max(range?.end ?? 0, sector + 1),
      })
    }
    const bits = new Uint8Array(PAGE_PAYLOAD_BYTES)
    let writes: Promise<void>[] = []
    for (const [page, { first, end }] of pages) {
      this.#regions.copyBytes(page * PAGE_PAYLOAD_BYTES, bits)
      const encoded = encodeSectors(this.#identity, bits, page, first, end)
      const position = (intentPageAt(page) + (first * PAGE_BYTES) / PAGE_SECTORS) as ByteOffset
      writes.push(this.#file.write(encoded, position))
      if (writes.length < PAGES_AT_ONCE) continue
      await Promise.all(writes)
      writes = []
    }
    await Promise.all(writes)
    if (pages.size > 0) await this.#file.sync()
    this.#committing = new Set()
  }
}
