/**
 * One sector of a map file: 3840 bits, and what proves that they are what was written there.
 *
 * Maps are written in place, so the unit of checking must be the unit that a disk writes whole or not at all. That
 * is 512 bytes: a larger unit would need a second place to write to, a smaller one would waste space. 480 bytes are
 * bits, a multiple of 2 so that a sector covers whole regions; the other 32 tell whose they are:
 *
 *     0..480    bits, the least significant of a byte first
 *     480..496  boot id of the kernel whose page cache vouches for the bits; zeros in durable maps
 *     496..504  number of the sector within its map, little endian
 *     504..508  kind of map, ASCII
 *     508..512  CRC-32 of bytes 0..508, seeded with the CRC-32 of the layer's id
 *
 * A sector of zeros, as reserved at creation, is a valid one without any bit set.
 */
import { crc32 } from 'node:zlib'

const SECTOR_BYTES = 512
const PAYLOAD_BYTES = 480
const BOOT_AT = 480
const BOOT_BYTES = 16
const NUMBER_AT = 496
const KIND_AT = 504
const CRC_AT = 508

const EMPTY_SECTOR = Buffer.alloc(SECTOR_BYTES)

/** Bits in one sector. */
export const SECTOR_BITS = PAYLOAD_BYTES * 8
/** Sectors in one page, the unit in which maps are read and kept in memory. */
export const PAGE_SECTORS = 8
/** Size of a page of a map on disk, in bytes. */
export const PAGE_BYTES = SECTOR_BYTES * PAGE_SECTORS
/** Bits in one page. */
export const PAGE_BITS = SECTOR_BITS * PAGE_SECTORS
/** Size of the bits of one page in memory, in bytes. */
export const PAGE_PAYLOAD_BYTES = PAYLOAD_BYTES * PAGE_SECTORS

/** `PRES`: blocks present, durably. `LIVE`: blocks present as of one boot. `INTT`: write intents. */
export type MapKind = 'PRES' | 'LIVE' | 'INTT'

/** What every sector of one map has in common. */
export interface MapIdentity {
  readonly kind: MapKind
  /** CRC-32 of the layer's id. */
  readonly seed: number
  /** Boot id in bytes, for kind LIVE; zeros for the others. */
  readonly boot: Uint8Array
}

/** The identity of a map of one layer. @param boot boot id as 16 bytes, or null for a map that outlives the boot */
export function mapIdentity(kind: MapKind, layer: string, boot: Uint8Array | null): MapIdentity {
  return { kind, seed: crc32(layer), boot: boot ?? new Uint8Array(BOOT_BYTES) }
}

/** The 16 bytes of a UUID. @throws RangeError when it is none */
export function uuidBytes(uuid: string): Uint8Array {
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(uuid)) {
    throw new RangeError(`not a UUID in lower case: ${JSON.stringify(uuid)}`)
  }
  return Uint8Array.from(Buffer.from(uuid.replaceAll('-', ''), 'hex'))
}

/**
 * Encodes sectors of one page.
 * @param bits the page's bits, all of them
 * @param page number of the page within its map
 * @param first first sector of the page to encode
 * @param end sector after the last one to encode
 */
export function encodeSectors(
  identity: MapIdentity,
  bits: Uint8Array,
  page: number,
  first: number,
  end: number
): Buffer {
  const encoded = Buffer.alloc((end - first) * SECTOR_BYTES)
  for (let sector = first; sector < end; sector += 1) {
    const target = encoded.subarray((sector - first) * SECTOR_BYTES, (sector - first + 1) * SECTOR_BYTES)
    target.set(bits.subarray(sector * PAYLOAD_BYTES, (sector + 1) * PAYLOAD_BYTES))
    target.set(identity.boot, BOOT_AT)
    target.writeBigUInt64LE(BigInt(page * PAGE_SECTORS + sector), NUMBER_AT)
    target.write(identity.kind, KIND_AT, 'latin1')
    target.writeUInt32LE(crc32(target.subarray(0, CRC_AT), identity.seed), CRC_AT)
  }
  return encoded
}

/** What a sector read from disk is: `other-boot` was written under another boot id, and is to be ignored. */
export type SectorVerdict = 'valid' | 'empty' | 'other-boot' | 'damaged'

/**
 * Checks one sector of a page read from disk, and copies its bits when it is valid (zeros when it is empty).
 * @param encoded the page as read
 * @param bits where the whole page's bits go; only this sector's part is touched
 */
export function decodeSector(
  identity: MapIdentity,
  encoded: Buffer,
  page: number,
  sector: number,
  bits: Uint8Array
): SectorVerdict {
  const source = encoded.subarray(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES)
  const target = bits.subarray(sector * PAYLOAD_BYTES, (sector + 1) * PAYLOAD_BYTES)
  if (source.equals(EMPTY_SECTOR)) {
    target.fill(0)
    return 'empty'
  }
  // Of what another boot wrote without a sync nothing is to be expected, not even a right checksum.
  if (!source.subarray(BOOT_AT, NUMBER_AT).equals(identity.boot)) return 'other-boot'
  const valid =
    source.readUInt32LE(CRC_AT) === crc32(source.subarray(0, CRC_AT), identity.seed) &&
    source.toString('latin1', KIND_AT, CRC_AT) === identity.kind &&
    source.readBigUInt64LE(NUMBER_AT) === BigInt(page * PAGE_SECTORS + sector)
  if (!valid) return 'damaged'
  target.set(source.subarray(0, PAYLOAD_BYTES))
  return 'valid'
}
