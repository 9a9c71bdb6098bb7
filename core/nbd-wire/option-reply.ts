import { Info, OPTION_REPLY_MAGIC, OptionReply } from './constants.ts'
import { violation } from './violation.ts'
import { readWide, writeWide } from './wide.ts'

export const OPTION_REPLY_HEADER_BYTES = 20

export interface OptionReplyHeader {
  /** The option that is answered. */
  readonly option: number
  readonly type: number
  /** Bytes of data that follow. */
  readonly length: number
}

/** One reply to an option, with its data. */
export function encodeOptionReply(
  option: number,
  type: number,
  data: Uint8Array = new Uint8Array(0)
): Buffer {
  const bytes = Buffer.allocUnsafe(OPTION_REPLY_HEADER_BYTES + data.length)
  bytes.writeUInt32BE(OPTION_REPLY_MAGIC.high, 0)
  bytes.writeUInt32BE(OPTION_REPLY_MAGIC.low, 4)
  bytes.writeUInt32BE(option, 8)
  bytes.writeUInt32BE(type, 12)
  bytes.writeUInt32BE(data.length, 16)
  bytes.set(data, OPTION_REPLY_HEADER_BYTES)
  return bytes
}

/** @throws XosanError PROTOCOL_VIOLATION on a wrong magic number */
export function decodeOptionReplyHeader(bytes: Buffer): OptionReplyHeader {
  if (bytes.readUInt32BE(0) !== OPTION_REPLY_MAGIC.high || bytes.readUInt32BE(4) !== OPTION_REPLY_MAGIC.low) {
    throw violation('an option reply without its magic number')
  }
  return { option: bytes.readUInt32BE(8), type: bytes.readUInt32BE(12), length: bytes.readUInt32BE(16) }
}

/** What GO, INFO and EXPORT_NAME tell about an export. */
export interface ExportInfo {
  /** In bytes. */
  readonly size: number
  /** Bits of `TransmissionFlag`. */
  readonly flags: number
}

export interface BlockSizeInfo {
  readonly minimum: number
  readonly preferred: number
  /** Largest payload of one request; 0xffffffff: no limit. */
  readonly maximum: number
}

export function encodeExportInfo(option: number, info: ExportInfo): Buffer {
  const data = Buffer.allocUnsafe(12)
  data.writeUInt16BE(Info.export, 0)
  writeWide(data, info.size, 2)
  data.writeUInt16BE(info.flags, 10)
  return encodeOptionReply(option, OptionReply.info, data)
}

export function encodeBlockSizeInfo(option: number, info: BlockSizeInfo): Buffer {
  const data = Buffer.allocUnsafe(14)
  data.writeUInt16BE(Info.blockSize, 0)
  data.writeUInt32BE(info.minimum, 2)
  data.writeUInt32BE(info.preferred, 6)
  data.writeUInt32BE(info.maximum, 10)
  return encodeOptionReply(option, OptionReply.info, data)
}

/** The canonical name of an export, for who asks for it. */
export function encodeNameInfo(option: number, name: string): Buffer {
  const text = Buffer.from(name)
  const data = Buffer.allocUnsafe(2 + text.length)
  data.writeUInt16BE(Info.name, 0)
  text.copy(data, 2)
  return encodeOptionReply(option, OptionReply.info, data)
}

export type InfoReply =
  | ({ readonly kind: 'export' } & ExportInfo)
  | ({ readonly kind: 'block-size' } & BlockSizeInfo)
  | { readonly kind: 'other' }

/** @throws XosanError PROTOCOL_VIOLATION when a known kind has the wrong length, or a size no volume can have */
export function decodeInfoReply(data: Buffer): InfoReply {
  if (data.length < 2) throw violation('an INFO reply without its kind')
  const kind = data.readUInt16BE(0)
  if (kind === Info.export) {
    if (data.length !== 12) throw violation(`an export INFO reply of ${data.length} bytes`)
    const size = readWide(data, 2)
    if (size > Number.MAX_SAFE_INTEGER) throw violation('an export larger than 2^53 - 1 bytes')
    return { kind: 'export', size, flags: data.readUInt16BE(10) }
  }
  if (kind === Info.blockSize) {
    if (data.length !== 14) throw violation(`a block-size INFO reply of ${data.length} bytes`)
    return {
      kind: 'block-size',
      minimum: data.readUInt32BE(2),
      preferred: data.readUInt32BE(6),
      maximum: data.readUInt32BE(10),
    }
  }
  return { kind: 'other' }
}

/** One export of a LIST. */
export function encodeServerReply(option: number, name: string): Buffer {
  const text = Buffer.from(name)
  const data = Buffer.allocUnsafe(4 + text.length)
  data.writeUInt32BE(text.length, 0)
  text.copy(data, 4)
  return encodeOptionReply(option, OptionReply.server, data)
}

/** One context of LIST_META_CONTEXT or SET_META_CONTEXT. @param id by which BLOCK_STATUS chunks will name it */
export function encodeMetaContextReply(option: number, id: number, context: string): Buffer {
  const text = Buffer.from(context)
  const data = Buffer.allocUnsafe(4 + text.length)
  data.writeUInt32BE(id, 0)
  text.copy(data, 4)
  return encodeOptionReply(option, OptionReply.metaContext, data)
}

/** @throws XosanError PROTOCOL_VIOLATION when it is shorter than an id */
export function decodeMetaContextReply(data: Buffer): { readonly id: number; readonly context: string } {
  if (data.length < 4) throw violation('a META_CONTEXT reply without its id')
  return { id: data.readUInt32BE(0), context: data.toString('utf8', 4) }
}
