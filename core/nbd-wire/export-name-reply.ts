import { type ExportInfo } from './option-reply.ts'
import { writeWide } from './wide.ts'

/** Reserved bytes that follow for clients that did not ask to go without. */
const ZEROES = 124

/**
 * The answer to EXPORT_NAME, the oldest way to choose an export: size, flags and 124 zeros, which clients with
 * NO_ZEROES do without. It has no form for an error: a server that has no such export can only close.
 */
export function encodeExportNameReply(info: ExportInfo, noZeroes: boolean): Buffer {
  const bytes = Buffer.alloc(10 + (noZeroes ? 0 : ZEROES))
  writeWide(bytes, info.size, 0)
  bytes.writeUInt16BE(info.flags, 8)
  return bytes
}
