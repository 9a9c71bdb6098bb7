/**
 * Where what lies in a layer's map files. Both files are a header page and then segments, one for each 30,720
 * regions (1.875 GiB) of the volume, so that a volume grows by appending segments and nothing ever moves.
 */
import { BLOCK_BYTES, REGION_BYTES, type ByteLength, type ByteOffset } from '../../core/units.ts'
import { PAGE_BITS, PAGE_BYTES } from './map-sector.ts'

/** Blocks in a region. */
const REGION_BLOCKS = REGION_BYTES / BLOCK_BYTES
/** Regions that one segment covers: one page of intent bits. */
const SEGMENT_REGIONS = PAGE_BITS
/** Pages of block bits in a segment. */
const SEGMENT_BLOCK_PAGES = REGION_BLOCKS
/** Segments of the durable map file (`.map`): one page of intents, then the pages of block bits. */
const MAP_SEGMENT_BYTES = (1 + SEGMENT_BLOCK_PAGES) * PAGE_BYTES
/** Segments of the live map file (`.live`): pages of block bits only. */
const LIVE_SEGMENT_BYTES = SEGMENT_BLOCK_PAGES * PAGE_BYTES
/** The header of a map file, in bytes. */
export const HEADER_BYTES = PAGE_BYTES

/** Bytes of the volume that one page of block bits covers. */
export const PAGE_COVERS_BYTES = PAGE_BITS * BLOCK_BYTES

const segments = (size: number): number => Math.ceil(size / (SEGMENT_REGIONS * REGION_BYTES))

/** Size of the durable map file of a volume of so many bytes. */
export const mapFileBytes = (size: number): ByteLength =>
  (HEADER_BYTES + segments(size) * MAP_SEGMENT_BYTES) as ByteLength
/** Size of the live map file of a volume of so many bytes. */
export const liveFileBytes = (size: number): ByteLength =>
  (HEADER_BYTES + segments(size) * LIVE_SEGMENT_BYTES) as ByteLength

/** Position of a page of intent bits in the durable map file. */
export const intentPageAt = (page: number): ByteOffset =>
  (HEADER_BYTES + page * MAP_SEGMENT_BYTES) as ByteOffset
/** Position of a page of block bits in the durable map file. */
export const durablePageAt = (page: number): ByteOffset =>
  (HEADER_BYTES +
    Math.floor(page / SEGMENT_BLOCK_PAGES) * MAP_SEGMENT_BYTES +
    (1 + (page % SEGMENT_BLOCK_PAGES)) * PAGE_BYTES) as ByteOffset
/** Position of a page of block bits in the live map file. */
export const livePageAt = (page: number): ByteOffset => (HEADER_BYTES + page * PAGE_BYTES) as ByteOffset
