import { REQUEST_MAGIC } from './constants.ts'
import { readWide, writeWide } from './wide.ts'

export const REQUEST_BYTES = 28

/** The header of a request. Mutable and reused: there is one for each request of a guest. */
export interface RequestHeader {
  /** Bits of `CommandFlag`. */
  flags: number
  /** One of `Command`. */
  command: number
  /** The client's 64 bits that the reply repeats, as two halves. */
  cookieHigh: number
  cookieLow: number
  /** In bytes; beyond 2^53 not exact, and beyond every volume. */
  offset: number
  /** In bytes. */
  length: number
}

export const newRequestHeader = (): RequestHeader => ({
  flags: 0,
  command: 0,
  cookieHigh: 0,
  cookieLow: 0,
  offset: 0,
  length: 0,
})

/** @param at where in the buffer to write `REQUEST_BYTES` bytes */
export function encodeRequest(bytes: Buffer, at: number, header: Readonly<RequestHeader>): void {
  bytes.writeUInt32BE(REQUEST_MAGIC, at)
  bytes.writeUInt16BE(header.flags, at + 4)
  bytes.writeUInt16BE(header.command, at + 6)
  bytes.writeUInt32BE(header.cookieHigh, at + 8)
  bytes.writeUInt32BE(header.cookieLow, at + 12)
  writeWide(bytes, header.offset, at + 16)
  bytes.writeUInt32BE(header.length, at + 24)
}

/** Fills the header. @returns false on a wrong magic number: nothing that follows can be understood */
export function decodeRequest(bytes: Buffer, at: number, into: RequestHeader): boolean {
  if (bytes.readUInt32BE(at) !== REQUEST_MAGIC) return false
  into.flags = bytes.readUInt16BE(at + 4)
  into.command = bytes.readUInt16BE(at + 6)
  into.cookieHigh = bytes.readUInt32BE(at + 8)
  into.cookieLow = bytes.readUInt32BE(at + 12)
  into.offset = readWide(bytes, at + 16)
  into.length = bytes.readUInt32BE(at + 24)
  return true
}
