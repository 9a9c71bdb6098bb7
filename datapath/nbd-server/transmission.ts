import { type Socket } from 'node:net'
import { reasonOf, XosanError } from '../../core/errors.ts'
import { type ByteQueue } from '../../core/nbd-wire/byte-queue.ts'
import { Command, CommandFlag, NbdError } from '../../core/nbd-wire/constants.ts'
import { type RequestHeader } from '../../core/nbd-wire/request.ts'
import { type ByteLength, byteLength, type ByteOffset, type Sequence, sequence } from '../../core/units.ts'
import { type BlockDevice, type Extent } from '../block-device.ts'
import { errorNumberOf, errorText } from '../nbd-socket/error-numbers.ts'
import { type CloseReason } from './close-reason.ts'
import { DurabilityPolicy } from './durability-policy.ts'
import { type Agreement } from './handshake.ts'
import { type InFlightBudget } from './in-flight-budget.ts'
import { type NbdLimits } from './limits.ts'
import { AT_ONCE_MAX, ReplySender, type Ticket } from './reply-sender.ts'
import { type ReadBuffers } from './read-buffers.ts'
import { RequestReader, type RequestSink } from './request-reader.ts'
import { isChange, type Refusal, refusalOfRequest } from './request-rules.ts'

/** What every request costs beside its data: header, reply, and the objects that hold them. In bytes. */
const REQUEST_COST = 512
/** Range that one BLOCK_STATUS looks at; the protocol lets a server answer for less than was asked. */
const STATUS_BYTES_MAX = 256 * 1024 * 1024
/** Its worst answer: one extent of 8 bytes on the wire, and a small object before, for each 4 KiB block. */
const STATUS_COST = 1024 * 1024
/** A cookie below 2^53 is exact as a number. */
const COOKIE_HIGH_END = 2 ** 21

/** What the connections of one server have together. */
export interface SharedByConnections {
  readonly budget: InFlightBudget
  readonly buffers: ReadBuffers
}

/** What a transmission tells the connection that it belongs to. */
export interface TransmissionListener {
  /** No further request is read. Those under way go on; their replies are still sent if the socket lets them. */
  ending(reason: CloseReason): void
  /** Every call to the device has ended. Comes once, after `ending`. */
  drained(): void
  /** A device failed a request in a way that is not the client's doing. */
  failed(error: unknown): void
}

/**
 * The requests of one connection, from the handshake on. They go to the device as they come, many at once, and are
 * answered in the order in which they end.
 *
 * Everything under way has a cost until the kernel has taken its reply. When the connection or the server has too
 * much of it the socket is not read on, and the client, whose own socket fills, has to wait.
 */
export class Transmission implements RequestSink {
  readonly #socket: Socket
  readonly #device: BlockDevice
  readonly #limits: NbdLimits
  readonly #budget: InFlightBudget
  readonly #buffers: ReadBuffers
  readonly #listener: TransmissionListener
  readonly #policy: DurabilityPolicy
  readonly #reader: RequestReader
  readonly #replies: ReplySender
  readonly #rules: Parameters<typeof refusalOfRequest>[1]
  /** Requests and bytes whose replies the kernel has not taken. */
  #requestsInFlight = 0
  #bytesInFlight = 0
  /** Calls to the device that have not ended. */
  #calls = 0
  #full = false
  #inputEnded = false
  #ending = false
  #drained = false

  constructor(
    socket: Socket,
    queue: ByteQueue,
    agreement: Agreement,
    limits: NbdLimits,
    { budget, buffers }: SharedByConnections,
    listener: TransmissionListener
  ) {
    const { opened, structured, allocation } = agreement
    this.#socket = socket
    this.#device = opened.device
    this.#limits = limits
    this.#budget = budget
    this.#buffers = buffers
    this.#listener = listener
    this.#policy = new DurabilityPolicy(opened.durability)
    this.#reader = new RequestReader(queue, this)
    this.#rules = { device: opened.device, readOnly: opened.readOnly, structured, allocation }
    this.#replies = new ReplySender(
      socket,
      structured,
      (cost, replies) => this.#released(cost, replies),
      opened.mayAnswer
    )
  }

  /** Begins to read. */
  start(): void {
    this.#socket.on('data', (chunk: Buffer) => {
      if (this.#ending) return
      this.#reader.push(chunk)
      this.#read()
    })
    this.#socket.on('end', () => {
      this.#inputEnded = true
      this.#read()
    })
    this.#socket.resume()
    this.#read()
  }

  /** Hands over the replies that were waiting for the end of this turn of the event loop. */
  flushReplies(): void {
    this.#replies.flush()
  }

  /** Reads no further request; tells the listener, now, and again when the calls under way have ended. */
  end(reason: CloseReason): void {
    if (this.#ending) return
    this.#ending = true
    this.#budget.forget(this.#wake)
    const half = this.#reader.drop()
    if (half !== null) this.#released(costOf(half), 1)
    this.#listener.ending(reason)
    this.#checkDrained()
  }

  refusal(header: RequestHeader): Refusal | null {
    return refusalOfRequest(header, this.#rules)
  }

  admit(header: RequestHeader): boolean {
    const cost = costOf(header)
    const idle = this.#requestsInFlight === 0
    if (!idle) {
      // Our own replies will wake us: `#released` reads on.
      if (this.#requestsInFlight >= this.#limits.requestsInFlightMax) return false
      if (this.#bytesInFlight + cost > this.#limits.connectionBytesMax) return false
    }
    if (!this.#budget.tryAcquire(cost, idle)) {
      this.#budget.wait(this.#wake)
      return false
    }
    this.#requestsInFlight++
    this.#bytesInFlight += cost
    return true
  }

  refuse(header: RequestHeader, { error, text }: Refusal): boolean {
    // A refusal holds no data, but it counts: who floods us with nonsense and reads no answers has to wait too.
    if (this.#requestsInFlight >= this.#limits.requestsInFlightMax) return false
    this.#requestsInFlight++
    this.#replies.error(ticketOf(header, 0), error, text)
    return true
  }

  serve(header: RequestHeader, payload: Buffer): void {
    const { command, flags, length } = header
    const ticket = ticketOf(header, costOf(header))
    const offset = header.offset as ByteOffset
    if (isChange(command)) {
      const { sequenced } = this.#device.capabilities
      if (sequenced && header.cookieHigh >= COOKIE_HIGH_END) {
        this.end({ code: 'malformed', detail: 'a change whose cookie is no sequence' })
        this.#released(ticket.cost, 1)
        return
      }
      const change: ChangeOptions = {
        durable: this.#policy.mustBeDurable((flags & CommandFlag.fua) !== 0),
        ...(sequenced ? { sequence: sequence(header.cookieHigh * 2 ** 32 + header.cookieLow) } : {}),
      }
      const keepAllocated = (flags & CommandFlag.noHole) !== 0
      void this.#change(ticket, command, offset, byteLength(length), payload, keepAllocated, change)
      return
    }
    switch (command) {
      case Command.read:
        if (!this.#readAtOnce(ticket, offset, length)) void this.#readData(ticket, offset, length)
        return
      case Command.flush:
        this.#policy.flushSeen()
        void this.#flush(ticket)
        return
      case Command.blockStatus:
        void this.#blockStatus(ticket, offset, length, (flags & CommandFlag.requestOne) !== 0)
        return
      default:
        // CACHE is a hint; the page cache below already does what it asks for.
        this.#replies.success(ticket)
    }
  }

  #readAtOnce(ticket: Ticket, offset: ByteOffset, length: number): boolean {
    if (length === 0 || length > AT_ONCE_MAX || this.#device.readAtOnce === undefined) return false
    return this.#replies.dataAtOnce(ticket, offset, length, into => this.#device.readAtOnce!(offset, into))
  }

  async #readData(ticket: Ticket, offset: ByteOffset, length: number): Promise<void> {
    this.#calls++
    try {
      // Not zeroed: a device fills the buffer or fails, and after a failure nothing of it is sent. Then the buffer is left to
      // the device, as it is when another one is returned.
      const into = this.#buffers.take(length)
      const data = length > 0 ? await this.#device.read(offset, into) : into
      this.#replies.data(ticket, offset, data, data === into ? () => this.#buffers.giveBack(into) : undefined)
    } catch (error) {
      this.#fail(ticket, error, false)
    }
    this.#callEnded()
  }

  async #change(
    ticket: Ticket,
    command: number,
    offset: ByteOffset,
    length: ByteLength,
    data: Buffer,
    keepAllocated: boolean,
    options: ChangeOptions
  ): Promise<void> {
    this.#calls++
    try {
      if (length > 0) {
        if (command === Command.write) await this.#device.write({ offset, data, ...options })
        else if (command === Command.trim) await this.#device.trim({ offset, length, ...options })
        else await this.#device.zero({ offset, length, keepAllocated, ...options })
        const { fua, flush } = this.#device.capabilities
        if (options.durable && !fua && flush) await this.#device.flush()
      }
      this.#replies.success(ticket)
    } catch (error) {
      this.#fail(ticket, error, command !== Command.trim)
    }
    this.#callEnded()
  }

  async #flush(ticket: Ticket): Promise<void> {
    this.#calls++
    try {
      await this.#device.flush()
      this.#replies.success(ticket)
    } catch (error) {
      this.#fail(ticket, error, false)
    }
    this.#callEnded()
  }

  async #blockStatus(ticket: Ticket, offset: ByteOffset, length: number, one: boolean): Promise<void> {
    this.#calls++
    try {
      const range = byteLength(Math.min(length, STATUS_BYTES_MAX))
      // A device that does not know takes space everywhere, for all anybody can tell.
      const extents: readonly Extent[] = this.#device.capabilities.allocation
        ? await this.#device.allocation(offset, range)
        : [{ length: range, hole: false, zero: false }]
      this.#replies.blockStatus(ticket, one ? extents.slice(0, 1) : extents)
    } catch (error) {
      this.#fail(ticket, error, false)
    }
    this.#callEnded()
  }

  #fail(ticket: Ticket, error: unknown, growing: boolean): void {
    const number = errorNumberOf(error, growing)
    // A text that is not ours may say more than a stranger should read.
    const text = error instanceof XosanError ? errorText(error) : 'internal error'
    this.#replies.error(ticket, number, text)
    if (number === NbdError.io) this.#listener.failed(error)
    // A session that is over for its peer serves nothing any more; a guest's connection is not ours to break.
    if (number === NbdError.shutdown && this.#device.capabilities.sequenced) {
      this.end({ code: 'session-over', detail: reasonOf(error) })
    }
  }

  #callEnded(): void {
    this.#calls--
    this.#checkDrained()
  }

  #checkDrained(): void {
    if (!this.#ending || this.#calls > 0 || this.#drained) return
    this.#drained = true
    this.#listener.drained()
  }

  /** Takes back what requests held that the kernel has taken the replies of. */
  #released(cost: number, requests: number): void {
    this.#requestsInFlight -= requests
    this.#bytesInFlight -= cost
    this.#budget.release(cost)
    this.#wake()
  }

  readonly #wake = (): void => {
    if (this.#full) this.#read()
  }

  #read(): void {
    if (this.#ending) return
    const progress = this.#reader.read()
    // Serving a request may have ended the connection.
    if (this.#ending as boolean) return
    switch (progress) {
      case 'full':
        this.#full = true
        this.#socket.pause()
        return
      case 'malformed':
        this.end({ code: 'malformed', detail: 'a request without its magic number' })
        return
      case 'disconnect':
        this.end({ code: 'disconnected', detail: 'the client said goodbye' })
        return
      case 'hungry':
        if (this.#full) {
          this.#full = false
          this.#socket.resume()
        }
        if (this.#inputEnded) this.#endOfInput()
    }
  }

  #endOfInput(): void {
    this.end(
      this.#reader.atBoundary
        ? { code: 'ended', detail: 'the client closed its end' }
        : { code: 'truncated', detail: 'the client closed its end in the middle of a request' }
    )
  }
}

interface ChangeOptions {
  readonly durable: boolean
  readonly sequence?: Sequence
}

function costOf({ command, length }: RequestHeader): number {
  if (command === Command.read || command === Command.write) return REQUEST_COST + length
  return command === Command.blockStatus ? STATUS_COST : REQUEST_COST
}

const ticketOf = ({ cookieHigh, cookieLow }: RequestHeader, cost: number): Ticket => ({
  cookieHigh,
  cookieLow,
  cost,
})
