import { type ByteQueue } from '../../core/nbd-wire/byte-queue.ts'
import { Chunk, CHUNK_DONE, Command } from '../../core/nbd-wire/constants.ts'
import { decodeReplyHeader, newReplyHeader, replyHeaderBytes } from '../../core/nbd-wire/reply-header.ts'
import {
  decodeBlockStatusPayload,
  decodeErrorPayload,
  OFFSET_BYTES,
} from '../../core/nbd-wire/structured-reply.ts'
import { violation } from '../../core/nbd-wire/violation.ts'
import { readWide } from '../../core/nbd-wire/wide.ts'
import { byteLength } from '../../core/units.ts'
import { errorFromReply } from '../nbd-socket/error-numbers.ts'
import { type ClientRequest, isComplete } from './nbd-client-request.ts'

/** Payload of an offset-hole chunk. */
const HOLE_BYTES = 12
/** Number, length, longest text and offset of an error chunk. */
const ERROR_BYTES_MAX = 2 + 4 + 4096 + 8
/** A million extents. */
const STATUS_BYTES_MAX = 8 * 1024 * 1024
const ERROR_TYPE_BIT = 0x8000

export interface ReplySource {
  /** The request under way with this cookie. @returns undefined when there is none */
  find(cookieHigh: number, cookieLow: number): ClientRequest | undefined
  /** The last part of a reply has come. `request.error` tells how it ended. */
  finished(request: ClientRequest, cookieHigh: number, cookieLow: number): void
}

/**
 * Puts the bytes from a server together into replies. Data of a READ go from the socket's chunk straight into the
 * caller's buffer. Believes nothing: an answer to what was not asked, of another kind or length, or to a part of a
 * buffer twice, is a PROTOCOL_VIOLATION.
 */
export class ReplyReader {
  readonly #queue: ByteQueue
  readonly #source: ReplySource
  readonly #structured: boolean
  readonly #allocationId: number | null
  readonly #peer: string
  readonly #header = newReplyHeader()
  #request: ClientRequest | null = null
  /** Where data that are coming in go; empty between data. */
  #target: Uint8Array | null = null
  #filled = 0

  constructor(
    queue: ByteQueue,
    source: ReplySource,
    agreement: { readonly structured: boolean; readonly allocationId: number | null },
    peer: string
  ) {
    this.#queue = queue
    this.#source = source
    this.#structured = agreement.structured
    this.#allocationId = agreement.allocationId
    this.#peer = peer
  }

  /** Takes what has arrived. @throws XosanError PROTOCOL_VIOLATION: the connection is of no more use */
  push(chunk: Buffer): void {
    this.#queue.push(chunk)
    this.read()
  }

  /** Works on what is there. @throws XosanError PROTOCOL_VIOLATION */
  read(): void {
    for (;;) {
      if (this.#target !== null) {
        this.#filled += this.#queue.drain(this.#target, this.#filled)
        if (this.#filled < this.#target.length) return
        this.#target = null
        this.#endOfPart()
      } else if (this.#request === null) {
        if (!this.#readHeader()) return
      } else if (!this.#readPayload(this.#request)) return
    }
  }

  /** @returns false when bytes are missing */
  #readHeader(): boolean {
    if (!this.#queue.contiguous(4)) return false
    const bytes = replyHeaderBytes(this.#queue.head, this.#queue.position)
    if (!this.#queue.contiguous(bytes)) return false
    decodeReplyHeader(this.#queue.head, this.#queue.position, this.#header)
    this.#queue.skip(bytes)
    const { cookieHigh, cookieLow, structured, error } = this.#header
    const request = this.#source.find(cookieHigh, cookieLow)
    if (request === undefined) throw violation('a reply to a request that is not under way')
    if (structured && !this.#structured) throw violation('a structured reply that was not agreed on')
    if (!structured && this.#structured && request.command === Command.read) {
      throw violation('a simple reply to a READ, although structured ones were agreed on')
    }
    if (!structured && error === 0 && request.command === Command.blockStatus) {
      throw violation('a BLOCK_STATUS answered without a status')
    }
    this.#request = request
    return true
  }

  /** @returns false when bytes are missing */
  #readPayload(request: ClientRequest): boolean {
    if (!this.#header.structured) {
      if (this.#header.error !== 0) request.error = errorFromReply(this.#header.error, '', this.#peer)
      else if (request.command === Command.read) {
        this.#receive(request, 0, request.length)
        return true
      }
      this.#endOfPart()
      return true
    }
    const { type, length } = this.#header
    if (type === Chunk.offsetData) return this.#readData(request, length)
    this.#checkLength(request, type, length)
    if (this.#queue.length < length) return false
    this.#digest(request, type, this.#queue.take(length))
    this.#endOfPart()
    return true
  }

  #readData(request: ClientRequest, length: number): boolean {
    if (request.command !== Command.read || length <= OFFSET_BYTES) throw violation('data nobody asked for')
    if (!this.#queue.contiguous(OFFSET_BYTES)) return false
    const offset = readWide(this.#queue.head, this.#queue.position)
    this.#queue.skip(OFFSET_BYTES)
    this.#receive(request, offset - request.offset, length - OFFSET_BYTES)
    return true
  }

  /** Checked before the payload is waited for, so that no server can make us keep more than a fitting one. */
  #checkLength(request: ClientRequest, type: number, length: number): void {
    const fits =
      type === Chunk.none
        ? length === 0
        : type === Chunk.offsetHole
          ? length === HOLE_BYTES && request.command === Command.read
          : type === Chunk.blockStatus
            ? length <= STATUS_BYTES_MAX && request.command === Command.blockStatus
            : (type & ERROR_TYPE_BIT) !== 0 && length <= ERROR_BYTES_MAX
    if (!fits) throw violation(`a chunk of type ${type} with ${length} bytes`)
  }

  #digest(request: ClientRequest, type: number, payload: Buffer): void {
    switch (type) {
      case Chunk.none:
        return
      case Chunk.offsetHole: {
        const { from, to } = this.#part(
          request,
          readWide(payload, 0) - request.offset,
          payload.readUInt32BE(8)
        )
        request.into!.fill(0, from, to)
        return
      }
      case Chunk.blockStatus: {
        const { contextId, extents } = decodeBlockStatusPayload(payload)
        if (contextId !== this.#allocationId || request.extents.length > 0) {
          throw violation('a status of a context that was not asked for')
        }
        request.extents = extents.map(extent => ({ ...extent, length: byteLength(extent.length) }))
        return
      }
      default: {
        const { error, message } = decodeErrorPayload(payload)
        request.error ??= errorFromReply(error, message, this.#peer)
      }
    }
  }

  #receive(request: ClientRequest, from: number, length: number): void {
    const part = this.#part(request, from, length)
    this.#target = request.into!.subarray(part.from, part.to)
    this.#filled = 0
  }

  #part(
    request: ClientRequest,
    from: number,
    length: number
  ): { readonly from: number; readonly to: number } {
    if (from < 0 || from > request.length || length > request.length - from) {
      throw violation('data beside the range that was asked for')
    }
    const part = { from, to: from + length }
    request.parts.push(part)
    return part
  }

  #endOfPart(): void {
    const request = this.#request!
    const { structured, flags, cookieHigh, cookieLow } = this.#header
    this.#request = null
    if (structured && (flags & CHUNK_DONE) === 0) return
    if (request.error === null) {
      if (request.command === Command.read && !isComplete(request)) {
        throw violation('a READ answered in part, or twice')
      }
      if (request.command === Command.blockStatus && request.extents.length === 0) {
        throw violation('a BLOCK_STATUS answered without a status')
      }
    }
    this.#source.finished(request, cookieHigh, cookieLow)
  }
}
