import { XosanError } from '../../core/errors.ts'
import {
  type ByteLength,
  type ByteOffset,
  type Epoch,
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
 * Regions whose last change is remembered, twice over: more than can be touched while a message that clears intents
 * is on its way. One that is later still is refused, which costs a bit that stays.
 */
const REGIONS_REMEMBERED = 65_536

/** A replica as its session sees it. */
interface SessionReplica extends BlockDevice {
  /** Why it serves no more; undefined while it does. */
  readonly failure: XosanError | undefined
}

/**
 * One session at the replica's end: lets changes through that come in their order, and none once it is over. The
 * check and the submission to the disk happen in one turn, so a session that is over has submitted all it ever will.
 */
export class ReplicaSessionDevice implements ReplicaSession {
  readonly closed: Promise<string>
  readonly #replica: SessionReplica
  readonly number: SessionNumber
  /** The epoch at which it was opened. */
  readonly epoch: Epoch
  /** Region -> number of the last change that touched it, for the latest changes of this session. */
  #lastChange = new Map<number, Sequence>()
  #olderChange = new Map<number, Sequence>()
  /** Changes up to this number are remembered no more. */
  #forgottenUpTo = 0
  #sequence = 0
  #over: string | null = null
  #resolveClosed!: (reason: string) => void

  constructor(replica: SessionReplica, number: SessionNumber, epoch: Epoch) {
    this.#replica = replica
    this.number = number
    this.epoch = epoch
    this.closed = new Promise(resolve => (this.#resolveClosed = resolve))
  }

  get capabilities(): BlockDeviceCapabilities {
    return { ...this.#replica.capabilities, sequenced: true }
  }

  get size(): ByteLength {
    return this.#replica.size
  }

  /** Whether a region was changed by a change numbered higher than this one, or that is not known any more. */
  changedAfter(region: number, sequence: Sequence): boolean {
    if (sequence < this.#forgottenUpTo) return true
    return (this.#lastChange.get(region) ?? this.#olderChange.get(region) ?? 0) > sequence
  }

  async read(offset: ByteOffset, into: Uint8Array): Promise<Uint8Array> {
    this.#requireOpen()
    const bytes = await this.#whileItLasts(this.#replica.read(offset, into))
    this.#requireOpen()
    return bytes
  }

  readAtOnce(offset: ByteOffset, into: Uint8Array): boolean {
    return this.#over === null && this.#replica.readAtOnce?.(offset, into) === true
  }

  async write(request: WriteRequest): Promise<void> {
    this.#take(request.sequence, request.offset, request.data.length)
    await this.#whileItLasts(this.#replica.write(request))
    this.#requireOpen()
  }

  async zero(request: ZeroRequest): Promise<void> {
    this.#take(request.sequence, request.offset, request.length)
    await this.#whileItLasts(this.#replica.zero(request))
    this.#requireOpen()
  }

  async trim(request: TrimRequest): Promise<void> {
    this.#take(request.sequence, request.offset, request.length)
    await this.#whileItLasts(this.#replica.trim(request))
    this.#requireOpen()
  }

  async flush(): Promise<void> {
    this.#requireOpen()
    await this.#whileItLasts(this.#replica.flush())
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
      throw new XosanError('SESSION_STALE', { session: this.number, current: this.#over })
  }

  /** One request may fail by itself. When the replica has failed the session is over: another one opens it anew. */
  async #whileItLasts<Result>(result: Promise<Result>): Promise<Result> {
    try {
      return await result
    } catch (error) {
      const { failure } = this.#replica
      if (failure !== undefined) this.abort(failure.message)
      throw error
    }
  }

  #forgetOldest(): void {
    if (this.#lastChange.size < REGIONS_REMEMBERED) return
    for (const older of this.#olderChange.values()) this.#forgottenUpTo = Math.max(this.#forgottenUpTo, older)
    this.#olderChange = this.#lastChange
    this.#lastChange = new Map()
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
    this.#forgetOldest()
  }
}
