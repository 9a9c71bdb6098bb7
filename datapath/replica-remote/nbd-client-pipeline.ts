import { type Socket } from 'node:net'
import { reasonOf, XosanError } from '../../core/errors.ts'
import { type ByteQueue } from '../../core/nbd-wire/byte-queue.ts'
import { Command } from '../../core/nbd-wire/constants.ts'
import { encodeRequest, newRequestHeader, REQUEST_BYTES } from '../../core/nbd-wire/request.ts'
import { type Clock, type Timer } from '../../core/ports/clock.ts'
import { millis, type Millis } from '../../core/units.ts'
import { type Extent } from '../block-device.ts'
import { BatchedWriter } from '../nbd-socket/batched-writer.ts'
import { type ServerAgreement } from './nbd-client-handshake.ts'
import { ReplyReader, type ReplySource } from './nbd-client-replies.ts'
import { type ClientRequest } from './nbd-client-request.ts'

export interface PipelineOptions {
  readonly peer: string
  readonly clock: Clock
  readonly requestDeadlineMs: Millis
  readonly bytesInFlightMax: number
}

/** What every request costs beside its data, in bytes. */
const REQUEST_COST = 512
/** Set in the cookie of every request that is not a sequenced change, so that the two never meet. */
const UNSEQUENCED = 0x8000_0000
const HIGH = 2 ** 32
const NO_EXTENTS: readonly Extent[] = []
/** How long a server may take to close its end after our goodbye. */
const GOODBYE_MS = millis(1_000)

/**
 * The requests of one connection: sent in the order of the calls as far as there is room, answered in any order.
 *
 * The cookie of a sequenced change is its sequence; all others count on their own with the top bit set. Time is watched
 * by one timer for the oldest request: all have the same deadline, so none can be due before it.
 */
export class NbdPipeline implements ReplySource {
  readonly closed: Promise<XosanError | null>
  readonly #socket: Socket
  readonly #options: PipelineOptions
  readonly #reader: ReplyReader
  readonly #writer: BatchedWriter
  readonly #header = newRequestHeader()
  /** Requests that were sent, oldest first; the key is the sequence, or minus the count for those without. */
  readonly #sent = new Map<number, ClientRequest>()
  /** Requests for which there is no room yet, oldest first. */
  #waiting: ClientRequest[] = []
  #bytesInFlight = 0
  #count = 0
  #timer: Timer | null = null
  #failure: XosanError | null = null
  #closing = false
  #idle: (() => void) | null = null
  #settleClosed: (error: XosanError | null) => void = () => undefined

  /** @param queue what has arrived during the handshake and belongs to no option */
  constructor(socket: Socket, queue: ByteQueue, agreement: ServerAgreement, options: PipelineOptions) {
    this.#socket = socket
    this.#options = options
    this.#reader = new ReplyReader(queue, this, agreement, options.peer)
    this.#writer = new BatchedWriter(socket, () => undefined)
    this.closed = new Promise(resolve => (this.#settleClosed = resolve))
    socket.on('data', (chunk: Buffer) => this.#guarded(() => this.#reader.push(chunk)))
    socket.on('error', error => this.fail(this.#unreachable(error.message)))
    socket.on('end', () => this.#leftByPeer())
    socket.on('close', () => this.#leftByPeer())
    socket.resume()
    this.#guarded(() => this.#reader.read())
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    await this.#call(Command.read, 0, offset, into.length, 0, into, null)
  }

  async write(offset: number, data: Uint8Array, flags: number, sequence: number): Promise<void> {
    await this.#call(Command.write, flags, offset, data.length, sequence, null, data)
  }

  /** TRIM or WRITE_ZEROES. */
  async range(
    command: number,
    offset: number,
    length: number,
    flags: number,
    sequence: number
  ): Promise<void> {
    await this.#call(command, flags, offset, length, sequence, null, null)
  }

  async flush(): Promise<void> {
    await this.#call(Command.flush, 0, 0, 0, 0, null, null)
  }

  /** @returns at least one extent; together they may be shorter or longer than the range */
  status(offset: number, length: number): Promise<readonly Extent[]> {
    return this.#call(Command.blockStatus, 0, offset, length, 0, null, null)
  }

  /** Waits for the requests under way, says goodbye and closes the connection. Never rejects. */
  async close(): Promise<void> {
    if (!this.#closing) {
      this.#closing = true
      if (this.#sent.size > 0 || this.#waiting.length > 0) {
        await new Promise<void>(resolve => (this.#idle = resolve))
      }
      if (this.#failure === null) {
        this.#sendHeader(Command.disconnect, 0, 0, 0, UNSEQUENCED, 0)
        this.#writer.message(0)
        this.#writer.flush()
        this.#socket.end()
        const timer = this.#options.clock.after(GOODBYE_MS, () => this.#socket.destroy())
        void this.closed.then(() => timer.cancel())
      }
    }
    await this.closed
  }

  /** Gives the connection up: everything under way rejects with this error. Does nothing when it is over already. */
  fail(error: XosanError): void {
    if (this.#failure !== null) return
    this.#failure = error
    this.#timer?.cancel()
    this.#timer = null
    this.#socket.destroy()
    const abandoned = [...this.#sent.values(), ...this.#waiting]
    this.#sent.clear()
    this.#waiting = []
    for (const request of abandoned) request.failed(error)
    this.#settleClosed(error)
    this.#idle?.()
  }

  find(cookieHigh: number, cookieLow: number): ClientRequest | undefined {
    return this.#sent.get(keyOf(cookieHigh, cookieLow))
  }

  finished(request: ClientRequest, cookieHigh: number, cookieLow: number): void {
    this.#sent.delete(keyOf(cookieHigh, cookieLow))
    this.#bytesInFlight -= request.cost
    if (request.error === null) request.done(request.extents)
    else request.failed(request.error)
    while (this.#waiting.length > 0 && this.#hasRoom(this.#waiting[0]!.cost))
      this.#send(this.#waiting.shift()!)
    if (this.#sent.size > 0) return
    this.#timer?.cancel()
    this.#timer = null
    this.#idle?.()
  }

  #call(
    command: number,
    flags: number,
    offset: number,
    length: number,
    sequence: number,
    into: Uint8Array | null,
    data: Uint8Array | null
  ): Promise<readonly Extent[]> {
    return new Promise((done, failed) => {
      if (this.#failure !== null || this.#closing) {
        failed(this.#failure ?? this.#unreachable('this connection was closed'))
        return
      }
      const cost = REQUEST_COST + (into?.length ?? data?.length ?? 0)
      const since = this.#options.clock.now()
      const request: ClientRequest = {
        command,
        flags,
        offset,
        length,
        sequence,
        into,
        data,
        cost,
        since,
        done,
        failed,
        parts: [],
        extents: NO_EXTENTS,
        error: null,
      }
      // One queue for all: a change that waits must not be overtaken by the next of its session.
      if (this.#waiting.length > 0 || !this.#hasRoom(cost)) this.#waiting.push(request)
      else this.#send(request)
    })
  }

  #hasRoom(cost: number): boolean {
    return this.#sent.size === 0 || this.#bytesInFlight + cost <= this.#options.bytesInFlightMax
  }

  #send(request: ClientRequest): void {
    const { command, flags, offset, length, sequence, data } = request
    const key = sequence > 0 ? sequence : -++this.#count
    if (this.#sent.has(key)) {
      request.failed(new XosanError('INTERNAL', { reason: `sequence ${key} is under way already` }))
      return
    }
    this.#sent.set(key, request)
    this.#bytesInFlight += request.cost
    const wide = Math.abs(key)
    const cookieHigh = Math.floor(wide / HIGH) + (key < 0 ? UNSEQUENCED : 0)
    this.#sendHeader(command, flags, offset, length, cookieHigh, wide % HIGH)
    if (data !== null) this.#writer.append(data)
    this.#writer.message(0)
    if (this.#timer === null) this.#watch(this.#options.requestDeadlineMs)
  }

  #sendHeader(
    command: number,
    flags: number,
    offset: number,
    length: number,
    cookieHigh: number,
    cookieLow: number
  ): void {
    const header = this.#header
    header.command = command
    header.flags = flags
    header.offset = offset
    header.length = length
    header.cookieHigh = cookieHigh
    header.cookieLow = cookieLow
    const at = this.#writer.reserve(REQUEST_BYTES)
    encodeRequest(this.#writer.slab, at, header)
  }

  #watch(delayMs: Millis): void {
    this.#timer = this.#options.clock.after(delayMs, () => {
      // A process that was stopped finds its timers due before it has read the answers that lie in the socket.
      setImmediate(() => this.#checkOldest())
    })
  }

  #checkOldest(): void {
    this.#timer = null
    const oldest = this.#sent.values().next().value
    if (oldest === undefined) return
    const { clock, requestDeadlineMs } = this.#options
    const left = requestDeadlineMs - (clock.now() - oldest.since)
    if (left > 0) this.#watch(millis(left))
    else this.fail(this.#unreachable(`no answer within ${requestDeadlineMs} ms`, { silent: true }))
  }

  #leftByPeer(): void {
    if (this.#failure !== null) return
    if (!this.#closing || this.#sent.size > 0) {
      this.fail(this.#unreachable('it closed the connection'))
      return
    }
    this.#failure = this.#unreachable('this connection was closed')
    this.#socket.destroy()
    this.#settleClosed(null)
  }

  #guarded(work: () => void): void {
    if (this.#failure !== null) return
    try {
      work()
    } catch (error) {
      this.fail(error instanceof XosanError ? error : new XosanError('INTERNAL', { reason: reasonOf(error) }))
    }
  }

  /** @param more `silent` tells a server that is there and says nothing from one that left */
  #unreachable(reason: string, more: { readonly silent?: true } = {}): XosanError {
    return new XosanError('PEER_UNREACHABLE', { host: this.#options.peer, reason, ...more })
  }
}

/** Sequences are positive, the counter of the others negative: one small key for either. */
const keyOf = (high: number, low: number): number =>
  high >= UNSEQUENCED ? -((high - UNSEQUENCED) * HIGH + low) : high * HIGH + low
