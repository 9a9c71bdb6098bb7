import { XosanError } from '../../../core/errors.ts'
import { type ByteLength, type ByteOffset } from '../../../core/units.ts'
import { type Extent, type TrimRequest, type WriteRequest, type ZeroRequest } from '../../block-device.ts'
import { PassThroughDevice } from '../pass-through.ts'

/** Refuses what runs off the end of the device below, before that device sees it. See README.md beside. */
export class BoundsFilter extends PassThroughDevice {
  override async read(offset: ByteOffset, into: Uint8Array): Promise<Uint8Array> {
    this.#check(offset, into.length)
    return super.read(offset, into)
  }

  override async write(request: WriteRequest): Promise<void> {
    this.#check(request.offset, request.data.length)
    await super.write(request)
  }

  override async zero(request: ZeroRequest): Promise<void> {
    this.#check(request.offset, request.length)
    await super.zero(request)
  }

  override async trim(request: TrimRequest): Promise<void> {
    this.#check(request.offset, request.length)
    await super.trim(request)
  }

  override async allocation(offset: ByteOffset, length: ByteLength): Promise<Extent[]> {
    this.#check(offset, length)
    return super.allocation(offset, length)
  }

  #check(offset: number, length: number): void {
    const { size } = this
    const whole = Number.isInteger(offset) && Number.isInteger(length) && offset >= 0 && length >= 0
    // Written so that no sum can overflow what a number holds exactly.
    if (whole && offset <= size && length <= size - offset) return
    throw new XosanError('OUT_OF_RANGE', { offset, end: offset + length, size })
  }
}
