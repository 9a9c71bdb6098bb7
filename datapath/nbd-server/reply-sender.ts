import { type Socket } from 'node:net'
import { Chunk, CHUNK_DONE } from '../../core/nbd-wire/constants.ts'
import { encodeSimpleReply, SIMPLE_REPLY_BYTES } from '../../core/nbd-wire/simple-reply.ts'
import {
  encodeBlockStatusPayload,
  encodeChunkHeader,
  encodeDataOffset,
  encodeErrorPayload,
  OFFSET_BYTES,
  STRUCTURED_REPLY_BYTES,
} from '../../core/nbd-wire/structured-reply.ts'
import { type Extent } from '../block-device.ts'
import { BatchedWriter } from '../nbd-socket/batched-writer.ts'
import { ALLOCATION_CONTEXT_ID } from './handshake.ts'

/** The longest read that is put where it leaves from, in bytes; a longer one is worth a thread of its own. */
export const AT_ONCE_MAX = 64 * 1024

/** Which request a reply belongs to, and what its reply releases once it is written. */
export interface Ticket {
  readonly cookieHigh: number
  readonly cookieLow: number
  readonly cost: number
}

/**
 * Writes the replies of one connection. With structured replies agreed on, READ and errors come as chunks (so that an
 * error has a text, and may come instead of data); all other successes stay simple, which the protocol allows and
 * is less to write.
 */
export class ReplySender {
  readonly #writer: BatchedWriter
  readonly #structured: boolean

  /**
   * @param written called with the costs and the number of replies that the kernel has taken
   * @param mayAnswer asked again of replies that were held up on their way; see `OpenedExport`
   */
  constructor(
    socket: Socket,
    structured: boolean,
    written: (cost: number, replies: number) => void,
    mayAnswer?: () => boolean
  ) {
    this.#writer = new BatchedWriter(socket, written, mayAnswer)
    this.#structured = structured
  }

  /** Sends what is waiting for the end of this turn of the event loop. */
  flush(): void {
    this.#writer.flush()
  }

  success(ticket: Ticket): void {
    this.#simple(0, ticket)
    this.#writer.message(ticket.cost)
  }

  /** @param data handed over until `taken` is called */
  data(ticket: Ticket, offset: number, data: Uint8Array, taken?: () => void): void {
    if (!this.#structured) {
      this.#simple(0, ticket)
    } else if (data.length === 0) {
      this.#chunk(ticket, Chunk.none, 0)
    } else {
      this.#chunk(ticket, Chunk.offsetData, OFFSET_BYTES + data.length)
      // The place first: making room may begin a new slab.
      const at = this.#writer.reserve(OFFSET_BYTES)
      encodeDataOffset(this.#writer.slab, at, offset)
    }
    if (data.length > 0) this.#writer.append(data, taken)
    this.#writer.message(ticket.cost)
  }

  /**
   * Sends data that are put where they leave from.
   * @param length 1 to `AT_ONCE_MAX`
   * @param fill puts the data there, or returns false: then nothing is sent
   */
  dataAtOnce(ticket: Ticket, offset: number, length: number, fill: (into: Uint8Array) => boolean): boolean {
    const header = this.#structured ? STRUCTURED_REPLY_BYTES + OFFSET_BYTES : SIMPLE_REPLY_BYTES
    const at = this.#writer.reserve(header + length)
    const { slab } = this.#writer
    if (!fill(slab.subarray(at + header, at + header + length))) {
      this.#writer.giveBack(at)
      return false
    }
    const { cookieHigh, cookieLow } = ticket
    if (this.#structured) {
      const chunk = {
        flags: CHUNK_DONE,
        type: Chunk.offsetData,
        cookieHigh,
        cookieLow,
        length: OFFSET_BYTES + length,
      }
      encodeChunkHeader(slab, at, chunk)
      encodeDataOffset(slab, at + STRUCTURED_REPLY_BYTES, offset)
    } else {
      encodeSimpleReply(slab, at, 0, cookieHigh, cookieLow)
    }
    this.#writer.message(ticket.cost)
    return true
  }

  blockStatus(ticket: Ticket, extents: readonly Extent[]): void {
    const payload = encodeBlockStatusPayload(ALLOCATION_CONTEXT_ID, extents)
    this.#chunk(ticket, Chunk.blockStatus, payload.length)
    this.#writer.append(payload)
    this.#writer.message(ticket.cost)
  }

  /** @param error one of `NbdError` @param text for people, and for the client of ours */
  error(ticket: Ticket, error: number, text: string): void {
    if (this.#structured) {
      const payload = encodeErrorPayload(error, text)
      this.#chunk(ticket, Chunk.error, payload.length)
      this.#writer.append(payload)
    } else {
      this.#simple(error, ticket)
    }
    this.#writer.message(ticket.cost)
  }

  #simple(error: number, { cookieHigh, cookieLow }: Ticket): void {
    const at = this.#writer.reserve(SIMPLE_REPLY_BYTES)
    encodeSimpleReply(this.#writer.slab, at, error, cookieHigh, cookieLow)
  }

  /** The header of the only, and so last, chunk of a reply. */
  #chunk({ cookieHigh, cookieLow }: Ticket, type: number, length: number): void {
    const at = this.#writer.reserve(STRUCTURED_REPLY_BYTES)
    encodeChunkHeader(this.#writer.slab, at, { flags: CHUNK_DONE, type, cookieHigh, cookieLow, length })
  }
}
