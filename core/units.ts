/**
 * The quantities and names of XOSAN as types of their own, so that the compiler refuses an offset where a block
 * index belongs. They cost nothing at run time: each is a plain number or string.
 */

declare const unit: unique symbol
type Branded<T, Name extends string> = T & { readonly [unit]: Name }

/** Position in a volume or file, in bytes. */
export type ByteOffset = Branded<number, 'ByteOffset'>
/** Length, in bytes. */
export type ByteLength = Branded<number, 'ByteLength'>
/** Number of a region of a volume, the grain of the write-intent map. */
export type RegionIndex = Branded<number, 'RegionIndex'>
/** Duration, or a reading of a monotonic clock, in milliseconds. Never wall-clock time. */
export type Millis = Branded<number, 'Millis'>
/** Rises each time the right to write a volume changes hands or a mirror's membership changes. 0: never opened. */
export type Epoch = Branded<number, 'Epoch'>
/** Number of a session within an epoch; a later session of one primary to one replica has the higher one. */
export type SessionNumber = Branded<number, 'SessionNumber'>
/** Position of a change within a session, from 1, without gaps. */
export type Sequence = Branded<number, 'Sequence'>

/** XenServer's UUID of a host. */
export type HostId = Branded<string, 'HostId'>
/** UUID of a Storage Repository. */
export type SrId = Branded<string, 'SrId'>
/** UUID of a volume, its key in every SMAPIv3 call. */
export type VolumeKey = Branded<string, 'VolumeKey'>
/** Random id of one layer of a volume, the same on every replica of it. */
export type LayerId = Branded<string, 'LayerId'>
/** Random id of one host's copy of a volume; a copy that was lost and made anew has a new one. */
export type ReplicaId = Branded<string, 'ReplicaId'>
/** Random id in a file of a host's data directory; tells a mounted file system from an empty mount point. */
export type StoreId = Branded<string, 'StoreId'>
/** The kernel's boot id: changes exactly when un-flushed writes may have been lost. */
export type BootId = Branded<string, 'BootId'>
/** Random id of one run of one datapath process. */
export type Incarnation = Branded<string, 'Incarnation'>

/** Size of a block in bytes: the grain of the maps, and of the page cache, and of the disks we expect. */
export const BLOCK_BYTES = 4096
/**
 * Size of a region in bytes. Half as much would double the intent syncs of a random-write burst; twice as much
 * would double what a resync copies for each block that a stale replica missed.
 */
export const REGION_BYTES = 65_536
/** Volume sizes are multiples of this many bytes: Xen Orchestra reads CBT bitmaps in 4-byte words (64 KiB a bit). */
export const VOLUME_SIZE_MULTIPLE = 2 * 1024 * 1024

const MAX_SAFE = Number.MAX_SAFE_INTEGER

function natural(value: number, what: string): number {
  if (!Number.isInteger(value) || value < 0 || value > MAX_SAFE) {
    throw new RangeError(`${what} must be a whole number from 0 to 2^53 - 1, not ${value}`)
  }
  return value
}

/** Checks and brands. @throws RangeError when the value is no whole number in range */
export const byteOffset = (value: number): ByteOffset => natural(value, 'a byte offset') as ByteOffset
/** Checks and brands. @throws RangeError */
export const byteLength = (value: number): ByteLength => natural(value, 'a byte length') as ByteLength
/** Checks and brands. @throws RangeError */
export const epoch = (value: number): Epoch => natural(value, 'an epoch') as Epoch
/** Checks and brands. @throws RangeError */
export const sessionNumber = (value: number): SessionNumber =>
  natural(value, 'a session number') as SessionNumber
/** Checks and brands. @throws RangeError */
export const sequence = (value: number): Sequence => natural(value, 'a sequence') as Sequence
/** Brands; durations may be fractions. */
export const millis = (value: number): Millis => value as Millis

/** The epoch after this one. */
export const nextEpoch = (value: Epoch): Epoch => epoch(value + 1)

/** Rounds a requested size up to what a volume may have. @param bytes requested virtual size */
export function roundUpVolumeSize(bytes: number): ByteLength {
  const rounded = Math.ceil(Math.max(bytes, 1) / VOLUME_SIZE_MULTIPLE) * VOLUME_SIZE_MULTIPLE
  return byteLength(rounded)
}

/** First region that a range of bytes touches. */
export const firstRegion = (offset: number): RegionIndex => Math.floor(offset / REGION_BYTES) as RegionIndex
/** Region after the last one that a range of bytes touches. @param length at least 1 byte */
export const endRegion = (offset: number, length: number): RegionIndex =>
  Math.ceil((offset + length) / REGION_BYTES) as RegionIndex
