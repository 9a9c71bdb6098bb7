import { GREETING_MAGIC, HandshakeFlag, OPTION_MAGIC } from './constants.ts'
import { violation } from './violation.ts'

export const GREETING_BYTES = 18
export const CLIENT_FLAGS_BYTES = 4

/** What a server says first ("fixed newstyle negotiation"): two magic numbers and 16 flags. */
export function encodeGreeting(flags: number): Buffer {
  const bytes = Buffer.allocUnsafe(GREETING_BYTES)
  bytes.writeUInt32BE(GREETING_MAGIC.high, 0)
  bytes.writeUInt32BE(GREETING_MAGIC.low, 4)
  bytes.writeUInt32BE(OPTION_MAGIC.high, 8)
  bytes.writeUInt32BE(OPTION_MAGIC.low, 12)
  bytes.writeUInt16BE(flags, 16)
  return bytes
}

/** @returns the server's handshake flags. @throws XosanError PROTOCOL_VIOLATION when it is no newstyle greeting */
export function decodeGreeting(bytes: Buffer): number {
  if (bytes.readUInt32BE(0) !== GREETING_MAGIC.high || bytes.readUInt32BE(4) !== GREETING_MAGIC.low) {
    throw violation('the greeting is not that of an NBD server')
  }
  if (bytes.readUInt32BE(8) !== OPTION_MAGIC.high || bytes.readUInt32BE(12) !== OPTION_MAGIC.low) {
    throw violation('the server speaks only the old NBD handshake')
  }
  return bytes.readUInt16BE(16)
}

/** The client's answer to the greeting. */
export function encodeClientFlags(flags: number): Buffer {
  const bytes = Buffer.allocUnsafe(CLIENT_FLAGS_BYTES)
  bytes.writeUInt32BE(flags, 0)
  return bytes
}

/** @throws XosanError PROTOCOL_VIOLATION when the client claims what no server offered: the protocol says to close */
export function decodeClientFlags(bytes: Buffer): { readonly noZeroes: boolean } {
  const flags = bytes.readUInt32BE(0)
  if ((flags & ~(HandshakeFlag.fixedNewstyle | HandshakeFlag.noZeroes)) !== 0) {
    throw violation(`unknown client flags 0x${flags.toString(16)}`)
  }
  return { noZeroes: (flags & HandshakeFlag.noZeroes) !== 0 }
}
