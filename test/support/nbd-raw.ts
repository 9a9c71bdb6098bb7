import assert from 'node:assert/strict'
import { connect, type Socket } from 'node:net'
import { ByteQueue } from '../../core/nbd-wire/byte-queue.ts'
import { Option, OptionReply } from '../../core/nbd-wire/constants.ts'
import { encodeClientFlags } from '../../core/nbd-wire/greeting.ts'
import { decodeOptionReplyHeader } from '../../core/nbd-wire/option-reply.ts'
import {
  encodeInfoRequest,
  encodeMetaContextRequest,
  encodeOption,
} from '../../core/nbd-wire/option-request.ts'
import { encodeRequest, newRequestHeader, type RequestHeader } from '../../core/nbd-wire/request.ts'

export interface OptionAnswer {
  readonly type: number
  readonly data: Buffer
}

export interface RawReply {
  readonly error: number
  readonly cookie: number
}

/** A unix socket's path, or a TCP address. */
type ServerAddress = string | { readonly host: string; readonly port: number }

/** A client of bytes, for tests that look at what the server really sends, or send what no client would. */
export class RawClient {
  readonly socket: Socket
  readonly #queue = new ByteQueue()
  #ended = false
  #wake: () => void = () => undefined

  private constructor(socket: Socket) {
    this.socket = socket
    socket.on('data', (chunk: Buffer) => {
      this.#queue.push(chunk)
      this.#wake()
    })
    const end = (): void => {
      this.#ended = true
      this.#wake()
    }
    socket.on('end', end)
    socket.on('close', end)
    socket.on('error', end)
  }

  /** Connects and says nothing. */
  static async connect(where: ServerAddress): Promise<RawClient> {
    const address = typeof where === 'string' ? { path: where } : where
    const socket = connect({ ...address, allowHalfOpen: true })
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve)
      socket.once('error', reject)
    })
    return new RawClient(socket)
  }

  /** Connects and gets as far as the options. @param flags what to answer to the greeting */
  static async greeted(where: ServerAddress, flags = 3): Promise<RawClient> {
    const client = await RawClient.connect(where)
    await client.read(18)
    client.send(encodeClientFlags(flags))
    return client
  }

  /** Connects and chooses an export by GO. */
  static async transmitting(
    path: string,
    options: { readonly structured?: boolean; readonly allocation?: boolean; readonly name?: string } = {}
  ): Promise<RawClient> {
    const client = await RawClient.greeted(path)
    const name = options.name ?? 'volume'
    if (options.structured === true || options.allocation === true) {
      await client.grant(Option.structuredReply, Buffer.alloc(0))
    }
    if (options.allocation === true) {
      const request = { name, queries: ['base:allocation'] }
      await client.grant(Option.setMetaContext, encodeMetaContextRequest(request))
    }
    await client.grant(Option.go, encodeInfoRequest({ name, wanted: [] }))
    return client
  }

  send(...parts: Uint8Array[]): void {
    this.socket.write(Buffer.concat(parts))
  }

  /** Waits for so many bytes; fails when the server ends before. */
  async read(count: number): Promise<Buffer> {
    while (this.#queue.length < count) {
      if (this.#ended) assert.fail(`the server ended after ${this.#queue.length} of ${count} bytes`)
      await new Promise<void>(resolve => (this.#wake = resolve))
    }
    return this.#queue.take(count)
  }

  /** Waits until the server has ended the connection. @returns what it had still sent */
  async readToEnd(): Promise<Buffer> {
    while (!this.#ended) await new Promise<void>(resolve => (this.#wake = resolve))
    return this.#queue.take(this.#queue.length)
  }

  /** Asks for an option. @returns all replies; the last one is an acknowledgement or an error */
  async option(option: number, data: Uint8Array): Promise<readonly OptionAnswer[]> {
    this.send(encodeOption(option, data))
    const answers: OptionAnswer[] = []
    for (;;) {
      const header = decodeOptionReplyHeader(await this.read(20))
      assert.equal(header.option, option, 'the reply names the option that was asked for')
      answers.push({ type: header.type, data: await this.read(header.length) })
      if (header.type === OptionReply.ack || header.type >= 0x8000_0000) return answers
    }
  }

  /** Asks for an option that must be granted. @returns the replies before the acknowledgement */
  async grant(option: number, data: Uint8Array): Promise<readonly OptionAnswer[]> {
    const answers = await this.option(option, data)
    const last = answers.at(-1)!
    assert.equal(last.type, OptionReply.ack, `option ${option}: ${last.data.toString()}`)
    return answers.slice(0, -1)
  }

  request(fields: Partial<RequestHeader>, payload?: Uint8Array): void {
    this.send(requestBytes(fields), payload ?? Buffer.alloc(0))
  }

  /** Reads a simple reply without its data. */
  async simpleReply(): Promise<RawReply> {
    const bytes = await this.read(16)
    assert.equal(bytes.readUInt32BE(0), 0x67446698, 'a simple reply')
    return { error: bytes.readUInt32BE(4), cookie: bytes.readUInt32BE(8) * 2 ** 32 + bytes.readUInt32BE(12) }
  }

  /** Reads one chunk of a structured reply. */
  async chunk(): Promise<{
    readonly flags: number
    readonly type: number
    readonly cookie: number
    readonly payload: Buffer
  }> {
    const bytes = await this.read(20)
    assert.equal(bytes.readUInt32BE(0), 0x668e33ef, 'a structured reply')
    const cookie = bytes.readUInt32BE(8) * 2 ** 32 + bytes.readUInt32BE(12)
    const payload = await this.read(bytes.readUInt32BE(16))
    return { flags: bytes.readUInt16BE(4), type: bytes.readUInt16BE(6), cookie, payload }
  }

  close(): void {
    this.socket.destroy()
  }
}

/** The bytes of a request header; what is not given is 0. */
export function requestBytes(fields: Partial<RequestHeader>): Buffer {
  const bytes = Buffer.alloc(28)
  encodeRequest(bytes, 0, { ...newRequestHeader(), ...fields })
  return bytes
}
