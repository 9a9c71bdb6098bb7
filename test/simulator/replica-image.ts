/**
 * A replica's files as a checker sees them: what each sector holds now, and what it could hold if the power of its host
 * went now and the replica was made whole again after that.
 *
 * The second follows the format (`datapath/replica-local/layer.ts`): for each disk sector some number of the changes that
 * no sync has covered are there; then blocks that the durable map does not claim are punched, in regions with a write
 * intent.
 */
import { BLOCK_BYTES, REGION_BYTES } from '../../core/units.ts'
import { durablePageAt, intentPageAt } from '../../datapath/replica-local/map-layout.ts'
import { PAGE_BITS, SECTOR_BITS } from '../../datapath/replica-local/map-sector.ts'
import { SECTOR_BYTES } from './history.ts'
import { ZEROS } from './linearizability.ts'
import { type SimulatedDisk } from './simulated-disk.ts'
import { PAGE_BYTES, type SimulatedInode } from './simulated-file.ts'
import { mapFileOf, rawFileOf, type SimulatedVolume } from './simulated-volume.ts'

/** Stands for a sector that holds no whole write, or that of another sector. */
export const TORN = -1

const SECTORS_PER_PAGE = PAGE_BYTES / SECTOR_BYTES
const SECTORS_PER_BLOCK = BLOCK_BYTES / SECTOR_BYTES
const SECTORS_PER_REGION = REGION_BYTES / SECTOR_BYTES

/** What a bit of a map is after a power cut now. */
type Bit = 'set' | 'clear' | 'either'

export class ReplicaImage {
  readonly #raw: SimulatedInode
  readonly #map: SimulatedInode
  /** Sectors of the files that un-synced changes touch; made when first asked for, good until something changes. */
  #unsyncedData: Set<number> | null = null
  readonly #bits = new Map<number, Uint8Array[]>()

  private constructor(raw: SimulatedInode, map: SimulatedInode) {
    this.#raw = raw
    this.#map = map
  }

  /** The replica as it is at this moment; null when its files are not there. To be dropped when time goes on. */
  static of(disk: SimulatedDisk, volume: SimulatedVolume): ReplicaImage | null {
    const [raw, map] = [disk.names.get(rawFileOf(volume)), disk.names.get(mapFileOf(volume))]
    if (raw === undefined || map === undefined || raw === 'directory' || map === 'directory') return null
    return new ReplicaImage(raw, map)
  }

  /** The number of the write that a sector shows, ZEROS or TORN. */
  shows(sector: number): number {
    const page = this.#raw.cached.get(Math.floor(sector / SECTORS_PER_PAGE))
    return page === undefined ? ZEROS : valueAt(page, (sector % SECTORS_PER_PAGE) * SECTOR_BYTES, sector)
  }

  /** What a sector could show after a power cut now. */
  survivors(sector: number): number[] {
    const values = this.#dataSurvivors(sector)
    if (values.length === 1 && values[0] === ZEROS) return values
    const claimed = this.#claim(Math.floor(sector / SECTORS_PER_BLOCK))
    if (claimed === 'set') return values
    const punched = this.intent(Math.floor(sector / SECTORS_PER_REGION)) === 'set'
    return claimed === 'clear' && punched ? [ZEROS] : [...new Set([...values, ZEROS])]
  }

  /** What a sector will show after a power cut now; null when that is not certain. */
  survivor(sector: number): number | null {
    const values = this.survivors(sector)
    return values.length === 1 ? values[0]! : null
  }

  /** Whether the page cache shows a write intent for a region. */
  hasIntent(region: number): boolean {
    const [sector, bit] = bitAt(intentPageAt(Math.floor(region / PAGE_BITS)), region % PAGE_BITS)
    const page = this.#map.cached.get(Math.floor(sector / SECTORS_PER_PAGE))
    const at = (sector % SECTORS_PER_PAGE) * SECTOR_BYTES + (bit >> 3)
    return page !== undefined && ((page[at]! >> (bit & 7)) & 1) === 1
  }

  /** The write intent of a region after a power cut now. */
  intent(region: number): Bit {
    return this.#bit(intentPageAt(Math.floor(region / PAGE_BITS)), region % PAGE_BITS)
  }

  #claim(block: number): Bit {
    return this.#bit(durablePageAt(Math.floor(block / PAGE_BITS)), block % PAGE_BITS)
  }

  #dataSurvivors(sector: number): number[] {
    this.#unsyncedData ??= sectorsOf(this.#raw.unsynced)
    if (!this.#unsyncedData.has(sector)) {
      const page = this.#raw.durablePage(Math.floor(sector / SECTORS_PER_PAGE))
      return [page === null ? ZEROS : valueAt(page, (sector % SECTORS_PER_PAGE) * SECTOR_BYTES, sector)]
    }
    return [...new Set(this.#raw.survivorsOf(sector).map(state => valueAt(state, 0, sector)))]
  }

  #bit(pageAt: number, bitOfPage: number): Bit {
    const [sector, within] = bitAt(pageAt, bitOfPage)
    let states = this.#bits.get(sector)
    if (states === undefined) {
      states = this.#map.survivorsOf(sector)
      this.#bits.set(sector, states)
    }
    const set = states.filter(state => ((state[within >> 3]! >> (within & 7)) & 1) === 1).length
    return set === states.length ? 'set' : set === 0 ? 'clear' : 'either'
  }
}

/** The disk sector of a map file, and the bit in it, that a bit of one of its pages is. */
const bitAt = (pageAt: number, bit: number): readonly [sector: number, bit: number] => [
  pageAt / SECTOR_BYTES + Math.floor(bit / SECTOR_BITS),
  bit % SECTOR_BITS,
]

function sectorsOf(ranges: readonly { readonly position: number; readonly length: number }[]): Set<number> {
  const sectors = new Set<number>()
  for (const { position, length } of ranges) {
    const end = Math.ceil((position + length) / SECTOR_BYTES)
    for (let sector = Math.floor(position / SECTOR_BYTES); sector < end; sector++) sectors.add(sector)
  }
  return sectors
}

const word = (bytes: Uint8Array, at: number): number =>
  bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)

/** A guest stamps the number of its write at both ends of each sector, and the sector's own after the first. */
function valueAt(bytes: Uint8Array, at: number, sector: number): number {
  const value = word(bytes, at)
  const own = value === ZEROS ? 0 : sector
  return word(bytes, at + 4) === own && word(bytes, at + SECTOR_BYTES - 4) === value ? value : TORN
}
