import { type ByteLength, type ByteOffset } from '../../core/units.ts'
import {
  type BlockDevice,
  type BlockDeviceCapabilities,
  type Extent,
  type TrimRequest,
  type WriteRequest,
  type ZeroRequest,
} from '../block-device.ts'

/**
 * The base class of every filter: forwards everything to the device below. A filter overrides what it changes and
 * lets the rest through, as nbdkit's filters do.
 *
 * The methods return the promise of the device below without awaiting it: a stack of filters then costs calls,
 * not turns of the microtask queue.
 */
export class PassThroughDevice implements BlockDevice {
  protected readonly next: BlockDevice

  constructor(next: BlockDevice) {
    this.next = next
  }

  get capabilities(): BlockDeviceCapabilities {
    return this.next.capabilities
  }

  get size(): ByteLength {
    return this.next.size
  }

  read(offset: ByteOffset, into: Uint8Array): Promise<Uint8Array> {
    return this.next.read(offset, into)
  }

  readAtOnce(offset: ByteOffset, into: Uint8Array): boolean {
    return this.next.readAtOnce?.(offset, into) ?? false
  }

  write(request: WriteRequest): Promise<void> {
    return this.next.write(request)
  }

  zero(request: ZeroRequest): Promise<void> {
    return this.next.zero(request)
  }

  trim(request: TrimRequest): Promise<void> {
    return this.next.trim(request)
  }

  flush(): Promise<void> {
    return this.next.flush()
  }

  allocation(offset: ByteOffset, length: ByteLength): Promise<Extent[]> {
    return this.next.allocation(offset, length)
  }

  close(): Promise<void> {
    return this.next.close()
  }
}
