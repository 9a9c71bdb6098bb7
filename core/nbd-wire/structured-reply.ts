import { AllocationFlag, STRUCTURED_REPLY_MAGIC } from './constants.ts'
import { violation } from './violation.ts'
import { writeWide } from './wide.ts'

export const STRUCTURED_REPLY_BYTES = 20
/** Before the data of an OFFSET_DATA chunk. */
export const OFFSET_BYTES = 8

/** The header of one chunk of a structured reply. @param length bytes of payload that follow */
export function encodeChunkHeader(
  bytes: Buffer,
  at: number,
  chunk: {
    readonly flags: number
    readonly type: number
    readonly cookieHigh: number
    readonly cookieLow: number
    readonly length: number
  }
): void {
  bytes.writeUInt32BE(STRUCTURED_REPLY_MAGIC, at)
  bytes.writeUInt16BE(chunk.flags, at + 4)
  bytes.writeUInt16BE(chunk.type, at + 6)
  bytes.writeUInt32BE(chunk.cookieHigh, at + 8)
  bytes.writeUInt32BE(chunk.cookieLow, at + 12)
  bytes.writeUInt32BE(chunk.length, at + 16)
}

/** What precedes the data in an OFFSET_DATA chunk: where in the export they belong. */
export const encodeDataOffset = (bytes: Buffer, at: number, offset: number): void =>
  writeWide(bytes, offset, at)

/** Longest message of an error chunk, in bytes: the limit of every string of the protocol. */
const MESSAGE_BYTES_MAX = 4096

/** Payload of an ERROR chunk: number, and a text for people. */
export function encodeErrorPayload(error: number, message: string): Buffer {
  let text = Buffer.from(message)
  if (text.length > MESSAGE_BYTES_MAX) text = text.subarray(0, MESSAGE_BYTES_MAX)
  const bytes = Buffer.allocUnsafe(6 + text.length)
  bytes.writeUInt32BE(error, 0)
  bytes.writeUInt16BE(text.length, 4)
  text.copy(bytes, 6)
  return bytes
}

/**
 * Payload of an ERROR or ERROR_OFFSET chunk (which has 8 bytes more at its end, of no use here).
 * @throws XosanError PROTOCOL_VIOLATION when lengths do not fit together, or when the error is 0
 */
export function decodeErrorPayload(bytes: Buffer): { readonly error: number; readonly message: string } {
  if (bytes.length < 6) throw violation('an error chunk without its number')
  const end = 6 + bytes.readUInt16BE(4)
  if (bytes.length !== end && bytes.length !== end + OFFSET_BYTES) {
    throw violation('an error chunk whose message has another length than it says')
  }
  const error = bytes.readUInt32BE(0)
  if (error === 0) throw violation('an error chunk that reports success')
  return { error, message: bytes.toString('utf8', 6, end) }
}

/** A run of bytes in a BLOCK_STATUS reply; the same shape as a device's extents. */
interface StatusExtent {
  readonly length: number
  readonly hole: boolean
  readonly zero: boolean
}

/** Payload of a BLOCK_STATUS chunk of base:allocation. @param extents each shorter than 2^32 bytes */
export function encodeBlockStatusPayload(contextId: number, extents: readonly StatusExtent[]): Buffer {
  const bytes = Buffer.allocUnsafe(4 + 8 * extents.length)
  bytes.writeUInt32BE(contextId, 0)
  let at = 4
  for (const { length, hole, zero } of extents) {
    bytes.writeUInt32BE(length, at)
    bytes.writeUInt32BE((hole ? AllocationFlag.hole : 0) | (zero ? AllocationFlag.zero : 0), at + 4)
    at += 8
  }
  return bytes
}

/** @throws XosanError PROTOCOL_VIOLATION when it holds no extent, part of one, or an empty one */
export function decodeBlockStatusPayload(bytes: Buffer): {
  readonly contextId: number
  readonly extents: readonly StatusExtent[]
} {
  if (bytes.length < 12 || bytes.length % 8 !== 4) throw violation(`a status chunk of ${bytes.length} bytes`)
  const extents: StatusExtent[] = []
  for (let at = 4; at < bytes.length; at += 8) {
    const length = bytes.readUInt32BE(at)
    const flags = bytes.readUInt32BE(at + 4)
    if (length === 0) throw violation('an empty extent')
    extents.push({
      length,
      hole: (flags & AllocationFlag.hole) !== 0,
      zero: (flags & AllocationFlag.zero) !== 0,
    })
  }
  return { contextId: bytes.readUInt32BE(0), extents }
}
