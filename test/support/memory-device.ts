import { XosanError } from '../../core/errors.ts'
import { BLOCK_BYTES, byteLength, type ByteLength, type ByteOffset } from '../../core/units.ts'
import {
  type BlockDevice,
  type BlockDeviceCapabilities,
  type Extent,
  type TrimRequest,
  type WriteRequest,
  type ZeroRequest,
  FULL_CAPABILITIES,
} from '../../datapath/block-device.ts'

/** One call that reached the device, as tests look at it. */
export interface DeviceCall {
  readonly kind: 'read' | 'write' | 'zero' | 'trim' | 'flush' | 'allocation' | 'close'
  readonly offset: number
  readonly length: number
  readonly durable: boolean
  /** Undefined when the caller gave none. */
  readonly sequence: number | undefined
  /** Of `zero` only; false elsewhere. */
  readonly keepAllocated: boolean
}

export interface MemoryDeviceOptions {
  readonly capabilities?: Partial<BlockDeviceCapabilities>
  /**
   * Runs before each call takes effect: a test delays the call by a promise, fails it by throwing, or only counts.
   * With no hook every call takes effect before it returns.
   */
  readonly before?: (call: DeviceCall) => Promise<void> | void
}

/**
 * A sparse disk in memory for tests: a block that was never written, or was trimmed, takes no space and reads as
 * zeros. It has all capabilities unless told otherwise.
 */
export class MemoryDevice implements BlockDevice {
  readonly size: ByteLength
  readonly capabilities: BlockDeviceCapabilities
  /** False after `close`. */
  open = true
  readonly #before: ((call: DeviceCall) => Promise<void> | void) | undefined
  readonly #blocks = new Map<number, Uint8Array>()

  /** @param size in bytes; any number, also one that is no multiple of the block size */
  constructor(size: number, options: MemoryDeviceOptions = {}) {
    this.size = byteLength(size)
    this.#before = options.before
    this.capabilities = {
      ...FULL_CAPABILITIES,
      ...options.capabilities,
    }
  }

  async read(offset: ByteOffset, into: Uint8Array): Promise<Uint8Array> {
    await this.#enter('read', offset, into.length)
    this.#eachBlock(offset, into.length, (index, start, end, done) => {
      const block = this.#blocks.get(index)
      if (block === undefined) into.fill(0, done, done + end - start)
      else into.set(block.subarray(start, end), done)
    })
    return into
  }

  async write(request: WriteRequest): Promise<void> {
    const { offset, data } = request
    await this.#change('write', request, data.length)
    this.#eachBlock(offset, data.length, (index, start, end, done) => {
      let block = this.#blocks.get(index)
      if (block === undefined) this.#blocks.set(index, (block = new Uint8Array(BLOCK_BYTES)))
      block.set(data.subarray(done, done + end - start), start)
    })
  }

  async zero(request: ZeroRequest): Promise<void> {
    await this.#change('zero', request, request.length, request.keepAllocated)
    this.#clear(request.offset, request.length, request.keepAllocated)
  }

  async trim(request: TrimRequest): Promise<void> {
    await this.#change('trim', request, request.length)
    this.#clear(request.offset, request.length, false)
  }

  async flush(): Promise<void> {
    await this.#enter('flush', 0, 0)
  }

  async allocation(offset: ByteOffset, length: ByteLength): Promise<Extent[]> {
    await this.#enter('allocation', offset, length)
    const extents: Extent[] = []
    this.#eachBlock(offset, length, (index, start, end) => {
      const hole = !this.#blocks.has(index)
      const last = extents.at(-1)
      if (last?.hole === hole) {
        extents[extents.length - 1] = { ...last, length: byteLength(last.length + end - start) }
      } else {
        extents.push({ length: byteLength(end - start), hole, zero: hole })
      }
    })
    return extents
  }

  async close(): Promise<void> {
    await this.#before?.(callOf('close', 0, 0))
    this.open = false
  }

  /** Bytes that the blocks take, for tests of holes. */
  get allocatedBytes(): number {
    return this.#blocks.size * BLOCK_BYTES
  }

  async #enter(kind: DeviceCall['kind'], offset: number, length: number): Promise<void> {
    this.#check(offset, length)
    if (this.#before !== undefined) await this.#before(callOf(kind, offset, length))
  }

  async #change(
    kind: DeviceCall['kind'],
    request: Pick<WriteRequest, 'offset' | 'durable' | 'sequence'>,
    length: number,
    keepAllocated = false
  ): Promise<void> {
    if (!this.capabilities.writable) throw new XosanError('READ_ONLY')
    this.#check(request.offset, length)
    const { offset, durable, sequence } = request
    if (this.#before !== undefined) {
      await this.#before({ kind, offset, length, durable, sequence, keepAllocated })
    }
  }

  #check(offset: number, length: number): void {
    if (!this.open) throw new XosanError('INTERNAL', { reason: 'the memory device is closed' })
    if (offset < 0 || length < 0 || offset + length > this.size) {
      throw new XosanError('OUT_OF_RANGE', { offset, end: offset + length, size: this.size })
    }
  }

  #clear(offset: number, length: number, keepAllocated: boolean): void {
    this.#eachBlock(offset, length, (index, start, end) => {
      const whole = start === 0 && (end === BLOCK_BYTES || index * BLOCK_BYTES + end === this.size)
      if (keepAllocated) {
        const block = this.#blocks.get(index) ?? new Uint8Array(BLOCK_BYTES)
        this.#blocks.set(index, block.fill(0, start, end))
      } else if (whole) {
        this.#blocks.delete(index)
      } else {
        this.#blocks.get(index)?.fill(0, start, end)
      }
    })
  }

  /** Calls back for each block of a range with the part inside of it and the number of bytes before that part. */
  #eachBlock(
    offset: number,
    length: number,
    visit: (index: number, start: number, end: number, done: number) => void
  ): void {
    for (let done = 0; done < length;) {
      const index = Math.floor((offset + done) / BLOCK_BYTES)
      const start = offset + done - index * BLOCK_BYTES
      const end = Math.min(BLOCK_BYTES, start + length - done)
      visit(index, start, end, done)
      done += end - start
    }
  }
}

const callOf = (kind: DeviceCall['kind'], offset: number, length: number): DeviceCall => ({
  kind,
  offset,
  length,
  durable: false,
  sequence: undefined,
  keepAllocated: false,
})
