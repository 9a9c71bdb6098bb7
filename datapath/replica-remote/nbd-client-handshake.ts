import { XosanError } from '../../core/errors.ts'
import {
  BASE_ALLOCATION,
  HandshakeFlag,
  Info,
  isErrorReply,
  Option,
  OptionReply,
  PAYLOAD_BYTES_MAX,
  TransmissionFlag,
} from '../../core/nbd-wire/constants.ts'
import { decodeGreeting, encodeClientFlags, GREETING_BYTES } from '../../core/nbd-wire/greeting.ts'
import {
  decodeInfoReply,
  decodeMetaContextReply,
  decodeOptionReplyHeader,
  type ExportInfo,
  OPTION_REPLY_HEADER_BYTES,
} from '../../core/nbd-wire/option-reply.ts'
import {
  encodeInfoRequest,
  encodeMetaContextRequest,
  encodeOption,
} from '../../core/nbd-wire/option-request.ts'
import { violation } from '../../core/nbd-wire/violation.ts'
import { type HandshakeStream } from '../nbd-socket/handshake-stream.ts'

/** Data of one option reply, in bytes; error texts and contexts need a fraction. */
const REPLY_BYTES_MAX = 64 * 1024
/** Replies to one option; GO gives a handful. */
const REPLIES_MAX = 64

/** What the server has agreed to. */
export interface ServerAgreement {
  /** In bytes. */
  readonly size: number
  /** Bits of `TransmissionFlag`. */
  readonly flags: number
  readonly structured: boolean
  /** The server's number of base:allocation; null when it does not serve it. */
  readonly allocationId: number | null
  /** Largest payload of one request, in bytes. */
  readonly payloadMax: number
}

/**
 * Takes the server's greeting.
 * @param peer name of the server, for errors
 * @throws XosanError PEER_UNREACHABLE when it left; PROTOCOL_VIOLATION for another greeting
 */
export async function greetServer(stream: HandshakeStream, peer: string): Promise<void> {
  const offered = decodeGreeting(await new Conversation(stream, peer).read(GREETING_BYTES))
  if ((offered & HandshakeFlag.fixedNewstyle) === 0) throw violation('the server lacks fixed newstyle')
  await stream.write(encodeClientFlags(offered & (HandshakeFlag.fixedNewstyle | HandshakeFlag.noZeroes)))
}

/**
 * Asks for TLS, after the greeting. What the server said until its answer was said in clear and is forgotten.
 * @throws XosanError PEER_NOT_TRUSTED when the server goes no further or says more than its answer: it is not asked
 *   anything in clear; PEER_UNREACHABLE, PROTOCOL_VIOLATION
 */
export async function askForTls(stream: HandshakeStream, peer: string): Promise<void> {
  const { granted, reason } = await new Conversation(stream, peer).ask(Option.startTls, Buffer.alloc(0))
  if (!granted) throw new XosanError('PEER_NOT_TRUSTED', { host: peer, reason: `no TLS: ${reason}` })
  if (stream.buffered > 0) {
    throw new XosanError('PEER_NOT_TRUSTED', { host: peer, reason: 'it spoke on in clear after STARTTLS' })
  }
}

/**
 * The client's side of fixed newstyle negotiation after the greeting: structured replies and base:allocation if the
 * server has them, then GO.
 *
 * @param peer name of the server, for errors
 * @throws XosanError EXPORT_REFUSED when the server says no; UNSUPPORTED when it cannot serve single bytes;
 * PEER_UNREACHABLE when it left; PROTOCOL_VIOLATION when it breaks the protocol
 */
export async function clientHandshake(
  stream: HandshakeStream,
  exportName: string,
  peer: string
): Promise<ServerAgreement> {
  const conversation = new Conversation(stream, peer)
  const structured = (await conversation.ask(Option.structuredReply, Buffer.alloc(0))).granted
  let allocationId: number | null = null
  if (structured) {
    const request = { name: exportName, queries: [BASE_ALLOCATION] }
    const answer = await conversation.ask(Option.setMetaContext, encodeMetaContextRequest(request))
    for (const data of answer.of(OptionReply.metaContext)) {
      const { id, context } = decodeMetaContextReply(data)
      if (context !== BASE_ALLOCATION || allocationId !== null) throw violation(`unasked context ${context}`)
      allocationId = id
    }
    if (!answer.granted) allocationId = null
  }

  const go = await conversation.ask(
    Option.go,
    encodeInfoRequest({ name: exportName, wanted: [Info.blockSize] })
  )
  if (!go.granted) {
    throw new XosanError('EXPORT_REFUSED', {
      host: peer,
      name: exportName,
      reason: go.reason,
      reply: go.type,
    })
  }
  let info: ExportInfo | null = null
  let payloadMax = PAYLOAD_BYTES_MAX
  for (const data of go.of(OptionReply.info)) {
    const reply = decodeInfoReply(data)
    if (reply.kind === 'export') info = reply
    if (reply.kind !== 'block-size') continue
    if (reply.minimum > 1) {
      const reason = `it serves blocks of ${reply.minimum} bytes only`
      throw new XosanError('UNSUPPORTED', { what: `NBD server ${peer}`, reason })
    }
    if (reply.maximum === 0) throw violation('a largest request of 0 bytes')
    payloadMax = Math.min(payloadMax, reply.maximum)
  }
  if (info === null) throw violation('GO was granted without telling the size')
  if ((info.flags & TransmissionFlag.hasFlags) === 0) throw violation('transmission flags that are none')
  return { size: info.size, flags: info.flags, structured, allocationId, payloadMax }
}

/** All replies to one option. */
interface Answer {
  readonly granted: boolean
  /** Type of the last reply. */
  readonly type: number
  /** The text of an error reply. */
  readonly reason: string
  /** Data of the replies of one type. */
  of(type: number): Buffer[]
}

class Conversation {
  readonly #stream: HandshakeStream
  readonly #peer: string

  constructor(stream: HandshakeStream, peer: string) {
    this.#stream = stream
    this.#peer = peer
  }

  async read(count: number): Promise<Buffer> {
    const bytes = await this.#stream.read(count)
    if (bytes !== null) return bytes
    throw new XosanError('PEER_UNREACHABLE', { host: this.#peer, reason: 'it left during the handshake' })
  }

  async ask(option: number, data: Uint8Array): Promise<Answer> {
    await this.#stream.write(encodeOption(option, data))
    const replies: { type: number; data: Buffer }[] = []
    while (replies.length < REPLIES_MAX) {
      const header = decodeOptionReplyHeader(await this.read(OPTION_REPLY_HEADER_BYTES))
      const { type, length } = header
      if (header.option !== option) throw violation('a reply to another option than the one asked')
      if (length > REPLY_BYTES_MAX) throw violation(`an option reply of ${length} bytes`)
      const reply = length === 0 ? Buffer.alloc(0) : await this.read(length)
      if (type === OptionReply.ack || isErrorReply(type)) {
        return {
          granted: type === OptionReply.ack,
          type,
          reason: reply.length > 0 ? reply.toString('utf8') : `option reply 0x${type.toString(16)}`,
          of: wanted => replies.filter(each => each.type === wanted).map(each => each.data),
        }
      }
      replies.push({ type, data: reply })
    }
    throw violation('no end of replies to an option')
  }
}
