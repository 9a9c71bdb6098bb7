import { XosanError } from '../../core/errors.ts'
import {
  type ByteLength,
  type ByteOffset,
  endRegion,
  firstRegion,
  type Sequence,
  type SessionNumber,
} from '../../core/units.ts'
import {
  type BlockDevice,
  type BlockDeviceCapabilities,
  type Extent,
  type TrimRequest,
  type WriteRequest,
  type ZeroRequest,
} from '../block-device.ts'
import { type ReplicaSession } from '../mirror/replica-peer.ts'

/**
 * One session at the replica's end: lets changes through that come in their order, and none once it is over. The
 * check and the submission to the disk happen in one turn, so a session that is over has submitted all it ever will.
 */
export class ReplicaSessionDevice implements ReplicaSession {
  readonly closed: Promise<string>
  readonly #replica: BlockDevice
  readonly #number: SessionNumber
  /** Region -> number of the last change that touched it in this session. */
  readonly #lastChange = new Map<number, Sequence>()
  #sequence = 0
  #over: string | null = null
  #resolveClosed!: (reason: string) => void

  constructor(replica: BlockDevice, number: SessionNumber) {
    this.#replica = replica
    this.#number = number
    this.closed = new Promise(resolve => (this.#resolveClosed = resolve))
  }

  get capabilities(): BlockDeviceCapabilities {
    return { ...this.#replica.capabilities, sequenced: true }
  }

  get size(): ByteLength {
    return this.#replica.size
  }

  /** Whether a region was changed by a change numbered higher than this one. */
  changedAfter(region: number, sequence: Sequence): boolean {
    return (this.#lastChange.get(region) ?? 0) > sequence
  }

  async read(offset: ByteOffset, into: Uint8Array): Promise<void> {
    this.#requireOpen()
    await this.#replica.read(offset, into)
    this.#requireOpen()
  }

  async write(request: WriteRequest): Promise<void> {
    this.#take(request.sequence, request.offset, request.data.length)
    await this.#replica.write(request)
    this.#requireOpen()
  }

  async zero(request: ZeroRequest): Promise<void> {
    this.#take(request.sequence, request.offset, request.length)
    await this.#replica.zero(request)
    this.#requireOpen()
  }

  async trim(request: TrimRequest): Promise<void> {
    this.#take(request.sequence, request.offset, request.length)
    await this.#replica.trim(request)
    this.#requireOpen()
  }

  async flush(): Promise<void> {
    this.#requireOpen()
    await this.#replica.flush()
    this.#requireOpen()
  }

  async allocation(offset: ByteOffset, length: ByteLength): Promise<Extent[]> {
    this.#requireOpen()
    return this.#replica.allocation(offset, length)
  }

  /** Ends the session; the replica stays open. */
  async close(): Promise<void> {
    this.abort('the session was closed')
    await Promise.resolve()
  }

  abort(reason: string): void {
    if (this.#over !== null) return
    this.#over = reason
    this.#resolveClosed(reason)
  }

  #requireOpen(): void {
    if (this.#over !== null)
      throw new XosanError('SESSION_STALE', { session: this.#number, current: this.#over })
  }

  /** A change that comes out of order means that one before it was lost: then nothing further may be applied. */
  #take(sequence: Sequence | undefined, offset: number, length: number): void {
    this.#requireOpen()
    if (sequence !== this.#sequence + 1) {
      this.abort('a change came out of order')
      throw new XosanError('SEQUENCE_BROKEN', { sequence: sequence ?? 0, expected: this.#sequence + 1 })
    }
    this.#sequence = sequence
    const end = endRegion(offset, Math.max(length, 1))
    for (let region: number = firstRegion(offset); region < end; region++)
      this.#lastChange.set(region, sequence)
  }
}
