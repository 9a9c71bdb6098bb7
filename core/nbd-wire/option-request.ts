import { OPTION_MAGIC, STRING_BYTES_MAX } from './constants.ts'
import { violation } from './violation.ts'

export const OPTION_HEADER_BYTES = 16

/** The header of one option that a client asks for. */
export interface OptionHeader {
  readonly option: number
  /** Bytes of data that follow. */
  readonly length: number
}

/** One option with its data. */
export function encodeOption(option: number, data: Uint8Array): Buffer {
  const bytes = Buffer.allocUnsafe(OPTION_HEADER_BYTES + data.length)
  bytes.writeUInt32BE(OPTION_MAGIC.high, 0)
  bytes.writeUInt32BE(OPTION_MAGIC.low, 4)
  bytes.writeUInt32BE(option, 8)
  bytes.writeUInt32BE(data.length, 12)
  bytes.set(data, OPTION_HEADER_BYTES)
  return bytes
}

/** @throws XosanError PROTOCOL_VIOLATION on a wrong magic number */
export function decodeOptionHeader(bytes: Buffer): OptionHeader {
  if (bytes.readUInt32BE(0) !== OPTION_MAGIC.high || bytes.readUInt32BE(4) !== OPTION_MAGIC.low) {
    throw violation('an option without its magic number')
  }
  return { option: bytes.readUInt32BE(8), length: bytes.readUInt32BE(12) }
}

/** Data of INFO and GO: which export, and what the client wants to be told beyond the compulsory. */
export interface InfoRequest {
  readonly name: string
  /** Numbers of `Info`; unknown ones are to be ignored. */
  readonly wanted: readonly number[]
}

export function encodeInfoRequest(request: InfoRequest): Buffer {
  const name = Buffer.from(request.name)
  const bytes = Buffer.allocUnsafe(4 + name.length + 2 + 2 * request.wanted.length)
  bytes.writeUInt32BE(name.length, 0)
  name.copy(bytes, 4)
  bytes.writeUInt16BE(request.wanted.length, 4 + name.length)
  request.wanted.forEach((info, index) => bytes.writeUInt16BE(info, 6 + name.length + 2 * index))
  return bytes
}

/** @throws XosanError PROTOCOL_VIOLATION when lengths do not fit together; the session goes on with ERR_INVALID */
export function decodeInfoRequest(data: Buffer): InfoRequest {
  const cursor = new Cursor(data)
  const name = cursor.string()
  const wanted = Array.from({ length: cursor.count16(2) }, () => cursor.u16())
  cursor.end()
  return { name, wanted }
}

/** Data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export interface MetaContextRequest {
  readonly name: string
  /** Contexts, or namespaces that end in a colon. */
  readonly queries: readonly string[]
}

export function encodeMetaContextRequest(request: MetaContextRequest): Buffer {
  const strings = [request.name, ...request.queries].map(text => Buffer.from(text))
  const parts = strings.map(text => {
    const part = Buffer.allocUnsafe(4 + text.length)
    part.writeUInt32BE(text.length, 0)
    text.copy(part, 4)
    return part
  })
  const count = Buffer.allocUnsafe(4)
  count.writeUInt32BE(request.queries.length, 0)
  parts.splice(1, 0, count)
  return Buffer.concat(parts)
}

/** @throws XosanError PROTOCOL_VIOLATION when lengths do not fit together */
export function decodeMetaContextRequest(data: Buffer): MetaContextRequest {
  const cursor = new Cursor(data)
  const name = cursor.string()
  const queries = Array.from({ length: cursor.count32(4) }, () => cursor.string())
  cursor.end()
  return { name, queries }
}

/**
 * An export name as it came. Bytes that are no UTF-8 become replacement characters: such a name can only fail to be
 * found. A NUL at the end stays; whoever resolves the name knows whether his clients send one.
 * @throws XosanError PROTOCOL_VIOLATION when it is longer than the protocol allows
 */
export function decodeName(data: Buffer): string {
  if (data.length > STRING_BYTES_MAX) throw violation(`a name of ${data.length} bytes`)
  return data.toString('utf8')
}

/** Reads fields one after another and refuses to run past the end. */
class Cursor {
  readonly #data: Buffer
  #at = 0

  constructor(data: Buffer) {
    this.#data = data
  }

  u16(): number {
    this.#need(2)
    this.#at += 2
    return this.#data.readUInt16BE(this.#at - 2)
  }

  u32(): number {
    this.#need(4)
    this.#at += 4
    return this.#data.readUInt32BE(this.#at - 4)
  }

  string(): string {
    const length = this.u32()
    this.#need(length)
    this.#at += length
    return decodeName(this.#data.subarray(this.#at - length, this.#at))
  }

  /** A 16-bit count of elements that take at least so many bytes each; checked before anything is made for them. */
  count16(elementBytes: number): number {
    const count = this.u16()
    this.#need(count * elementBytes)
    return count
  }

  count32(elementBytes: number): number {
    const count = this.u32()
    this.#need(count * elementBytes)
    return count
  }

  end(): void {
    if (this.#at !== this.#data.length) throw violation('bytes after the end of an option')
  }

  #need(count: number): void {
    if (count > this.#data.length - this.#at) throw violation('an option shorter than its own lengths say')
  }
}
