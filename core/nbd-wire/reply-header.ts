import { SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC } from './constants.ts'
import { SIMPLE_REPLY_BYTES } from './simple-reply.ts'
import { STRUCTURED_REPLY_BYTES } from './structured-reply.ts'
import { violation } from './violation.ts'

/** The first bytes of either kind of reply as a client sees them. Mutable and reused. */
export interface ReplyHeader {
  structured: boolean
  cookieHigh: number
  cookieLow: number
  /** Simple replies: 0 or one of `NbdError`. */
  error: number
  /** Structured replies: `CHUNK_DONE` or 0. */
  flags: number
  /** Structured replies: one of `Chunk`. */
  type: number
  /** Structured replies: bytes of payload that follow. */
  length: number
}

export const newReplyHeader = (): ReplyHeader => ({
  structured: false,
  cookieHigh: 0,
  cookieLow: 0,
  error: 0,
  flags: 0,
  type: 0,
  length: 0,
})

/**
 * How long the header is that begins here, in bytes.
 * @param at where its first four bytes are
 * @throws XosanError PROTOCOL_VIOLATION when they are the magic number of neither kind
 */
export function replyHeaderBytes(bytes: Buffer, at: number): number {
  const magic = bytes.readUInt32BE(at)
  if (magic === SIMPLE_REPLY_MAGIC) return SIMPLE_REPLY_BYTES
  if (magic === STRUCTURED_REPLY_MAGIC) return STRUCTURED_REPLY_BYTES
  throw violation(`a reply that begins with 0x${magic.toString(16)}`)
}

/** Fills the header from bytes of which `replyHeaderBytes` has told the length. */
export function decodeReplyHeader(bytes: Buffer, at: number, into: ReplyHeader): void {
  into.structured = bytes.readUInt32BE(at) === STRUCTURED_REPLY_MAGIC
  into.cookieHigh = bytes.readUInt32BE(at + 8)
  into.cookieLow = bytes.readUInt32BE(at + 12)
  if (into.structured) {
    into.error = 0
    into.flags = bytes.readUInt16BE(at + 4)
    into.type = bytes.readUInt16BE(at + 6)
    into.length = bytes.readUInt32BE(at + 16)
  } else {
    into.error = bytes.readUInt32BE(at + 4)
    into.flags = 0
    into.type = 0
    into.length = 0
  }
}
