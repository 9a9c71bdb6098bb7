import { SIMPLE_REPLY_MAGIC } from './constants.ts'

export const SIMPLE_REPLY_BYTES = 16

/** The reply of old: an error number or success, and after a successful READ the data. */
export function encodeSimpleReply(
  bytes: Buffer,
  at: number,
  error: number,
  cookieHigh: number,
  cookieLow: number
): void {
  bytes.writeUInt32BE(SIMPLE_REPLY_MAGIC, at)
  bytes.writeUInt32BE(error, at + 4)
  bytes.writeUInt32BE(cookieHigh, at + 8)
  bytes.writeUInt32BE(cookieLow, at + 12)
}
