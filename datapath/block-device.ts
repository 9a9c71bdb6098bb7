import { type ByteLength, type ByteOffset, type Sequence } from '../core/units.ts'

/** What a device can do; callers ask here instead of trying. */
export interface BlockDeviceCapabilities {
  /** False: changes are refused with READ_ONLY. */
  readonly writable: boolean
  readonly flush: boolean
  /** `durable` on a change is honoured. */
  readonly fua: boolean
  readonly trim: boolean
  readonly zero: boolean
  /** `zero` never costs more than the same bytes written (NBD's FAST_ZERO). */
  readonly fastZero: boolean
  readonly allocation: boolean
  /** Several connections see one state: what one wrote and flushed the others read. */
  readonly multiConnection: boolean
  /** Changes carry a sequence (see `core/mirror`); over NBD it travels as the request's cookie. */
  readonly sequenced: boolean
}

/** Of a device that can do everything and whose changes need no order from outside. */
export const FULL_CAPABILITIES: BlockDeviceCapabilities = {
  writable: true,
  flush: true,
  fua: true,
  trim: true,
  zero: true,
  fastZero: true,
  allocation: true,
  multiConnection: true,
  sequenced: false,
}

interface Change {
  readonly offset: ByteOffset
  /** The change is durable before the call returns. */
  readonly durable: boolean
  /** Position in the session's order of changes; only for devices that are `sequenced`. */
  readonly sequence?: Sequence
}

export interface WriteRequest extends Change {
  readonly data: Uint8Array
}

export interface TrimRequest extends Change {
  readonly length: ByteLength
}

export interface ZeroRequest extends Change {
  readonly length: ByteLength
  /** Keep the space allocated (NBD's NO_HOLE). */
  readonly keepAllocated: boolean
}

/** A run of bytes of one kind. */
export interface Extent {
  readonly length: ByteLength
  /** No space is taken on disk. */
  readonly hole: boolean
  /** Reads as zeros. */
  readonly zero: boolean
}

/**
 * Anything that holds blocks: a replica, a mirror of replicas, a filter over another device. Offsets and lengths are
 * in bytes and any alignment is served. Calls may overlap in time; a device that needs an order between
 * overlapping ranges makes it itself.
 *
 * A call that fails rejects with a XosanError and leaves the device usable. Ranges beyond the end: OUT_OF_RANGE.
 */
export interface BlockDevice {
  readonly capabilities: BlockDeviceCapabilities
  /** Size in bytes; constant while the device is open. */
  readonly size: ByteLength
  /**
   * Fills the buffer.
   *
   * The buffer is the device's until the promise settles. If it rejects it stays so: a call to a disk that hangs cannot
   * be taken back, and may fill the buffer at any later time.
   * @returns the bytes: `into`, or another buffer of its length where `into` was left to such a call
   */
  read(offset: ByteOffset, into: Uint8Array): Promise<Uint8Array>
  /**
   * Fills the buffer now if that needs no wait of any kind; the buffer stays the caller's.
   * @returns false when `read` is to be asked, which also says what is wrong. Then the buffer may hold anything
   */
  readAtOnce?(offset: ByteOffset, into: Uint8Array): boolean
  write(request: WriteRequest): Promise<void>
  /** Makes a range read as zeros. */
  zero(request: ZeroRequest): Promise<void>
  /** Tells that the content of a range no longer matters; it reads as zeros afterwards. */
  trim(request: TrimRequest): Promise<void>
  /** Makes every change that has finished before the call durable. */
  flush(): Promise<void>
  /** Extents that together cover exactly the range. */
  allocation(offset: ByteOffset, length: ByteLength): Promise<Extent[]>
  /** Releases the device; waits for the calls under way. */
  close(): Promise<void>
}
