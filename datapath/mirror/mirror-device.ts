import { type ByteLength, type ByteOffset } from '../../core/units.ts'
import {
  type BlockDevice,
  type Extent,
  FULL_CAPABILITIES,
  type TrimRequest,
  type WriteRequest,
  type ZeroRequest,
} from '../block-device.ts'
import { type VolumeMirror } from './volume-mirror.ts'

/**
 * The volume as its guest sees it. What cannot go on now waits; see `VolumeMirror`. It is closed by whoever opened the
 * mirror, when the volume is deactivated.
 */
export class MirrorDevice implements Omit<BlockDevice, 'close'> {
  readonly capabilities = FULL_CAPABILITIES
  readonly size: ByteLength
  readonly #mirror: VolumeMirror

  /** @param size in bytes, from the record */
  constructor(mirror: VolumeMirror, size: ByteLength) {
    this.#mirror = mirror
    this.size = size
  }

  async read(offset: ByteOffset, into: Uint8Array): Promise<Uint8Array> {
    return this.#mirror.requests.read(offset, into)
  }

  readAtOnce(offset: ByteOffset, into: Uint8Array): boolean {
    return this.#mirror.requests.readAtOnce(offset, into)
  }

  async write({ offset, data, durable }: WriteRequest): Promise<void> {
    return this.#mirror.requests.change('write', { offset, length: data.length as ByteLength, durable }, data)
  }

  async zero(request: ZeroRequest): Promise<void> {
    return this.#mirror.requests.change('zero', request, null)
  }

  async trim(request: TrimRequest): Promise<void> {
    return this.#mirror.requests.change('trim', request, null)
  }

  async flush(): Promise<void> {
    return this.#mirror.requests.flush()
  }

  async allocation(offset: ByteOffset, length: ByteLength): Promise<Extent[]> {
    return this.#mirror.allocation(offset, length)
  }
}
