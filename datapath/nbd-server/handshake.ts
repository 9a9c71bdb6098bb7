import { reasonOf, XosanError } from '../../core/errors.ts'
import {
  BASE_ALLOCATION,
  HandshakeFlag,
  Info,
  Option,
  OptionReply,
  PAYLOAD_BYTES_MAX,
} from '../../core/nbd-wire/constants.ts'
import { encodeExportNameReply } from '../../core/nbd-wire/export-name-reply.ts'
import { CLIENT_FLAGS_BYTES, decodeClientFlags, encodeGreeting } from '../../core/nbd-wire/greeting.ts'
import {
  encodeBlockSizeInfo,
  encodeExportInfo,
  encodeMetaContextReply,
  encodeNameInfo,
  encodeOptionReply,
  encodeServerReply,
} from '../../core/nbd-wire/option-reply.ts'
import {
  decodeInfoRequest,
  decodeMetaContextRequest,
  decodeName,
  decodeOptionHeader,
  OPTION_HEADER_BYTES,
  type OptionHeader,
} from '../../core/nbd-wire/option-request.ts'
import { errorText } from '../nbd-socket/error-numbers.ts'
import { type HandshakeStream } from '../nbd-socket/handshake-stream.ts'
import { type CloseReason } from './close-reason.ts'
import { type ConnectionInfo, type ExportResolver, type OpenedExport, type OpenRequest } from './export.ts'
import { refusalOf } from './refusal.ts'
import { type Greeted } from './start-tls.ts'
import { transmissionFlags } from './transmission-flags.ts'

/** Data of one option, in bytes. The largest sensible one is a list of contexts; names have 4,096 at most. */
const OPTION_BYTES_MAX = 64 * 1024
/** By which BLOCK_STATUS names base:allocation; any number would do. */
export const ALLOCATION_CONTEXT_ID = 1
/** Any alignment is served; whole pages cost least. */
const BLOCK_SIZES = { minimum: 1, preferred: 4096, maximum: PAYLOAD_BYTES_MAX } as const

/** What client and server have agreed on when the first request comes. */
export interface Agreement {
  readonly opened: OpenedExport
  /** Replies to READ come in chunks. */
  readonly structured: boolean
  /** BLOCK_STATUS may be asked for base:allocation. */
  readonly allocation: boolean
}

/**
 * The server's side of fixed newstyle negotiation: the client asks for options one by one, and each gets its answer,
 * until one of them chooses an export. An option that cannot be understood or granted gets an error reply and the
 * client may go on; what breaks the framing itself ends the connection.
 *
 * INFO only describes. GO and EXPORT_NAME open, and the export that they opened is then the caller's to close.
 */
export class ServerHandshake {
  readonly #stream: HandshakeStream
  readonly #exports: ExportResolver
  readonly #connection: ConnectionInfo
  readonly #opening: () => void
  readonly #greeted: Greeted | null
  #noZeroes = false
  #structured = false
  /** Name of the export for which base:allocation was agreed on. */
  #allocationFor: string | null = null

  /**
   * @param opening called when the client has chosen an export and it is our turn: its time limit ends there
   * @param greeted what was said in clear before TLS; null when nothing was said yet
   */
  constructor(
    stream: HandshakeStream,
    exports: ExportResolver,
    connection: ConnectionInfo,
    opening: () => void,
    greeted: Greeted | null
  ) {
    this.#greeted = greeted
    this.#stream = stream
    this.#exports = exports
    this.#connection = connection
    this.#opening = opening
  }

  /**
   * Negotiates to the end.
   * @returns what was agreed on, or why the connection is to be closed
   * @throws XosanError PROTOCOL_VIOLATION when the client breaks the framing
   */
  async run(): Promise<Agreement | CloseReason> {
    const greeted = this.#greeted ?? (await this.#greet())
    if (greeted === null) return LEFT
    this.#noZeroes = greeted.noZeroes
    for (;;) {
      const bytes = await this.#stream.read(OPTION_HEADER_BYTES)
      if (bytes === null) return LEFT
      const header = decodeOptionHeader(bytes)
      if (header.length > OPTION_BYTES_MAX) {
        await this.#reply(header.option, OptionReply.errorTooBig)
        return { code: 'malformed', detail: `option ${header.option} with ${header.length} bytes of data` }
      }
      const data = await this.#stream.read(header.length)
      if (data === null) return header.length === 0 ? LEFT : CUT
      const outcome = await this.#answer(header, data)
      if (outcome !== null) return outcome
    }
  }

  async #greet(): Promise<Greeted | null> {
    // One write for each part: tapdisk takes each with a single recv and gives up on a short one.
    await this.#stream.write(encodeGreeting(HandshakeFlag.fixedNewstyle | HandshakeFlag.noZeroes))
    const flags = await this.#stream.read(CLIENT_FLAGS_BYTES)
    return flags === null ? null : decodeClientFlags(flags)
  }

  async #answer({ option }: OptionHeader, data: Buffer): Promise<Agreement | CloseReason | null> {
    switch (option) {
      case Option.exportName:
        return this.#exportName(data)
      case Option.abort:
        await this.#reply(option, OptionReply.ack)
        return { code: 'disconnected', detail: 'the client aborted the handshake' }
      default:
        try {
          return await this.#answerOption(option, data)
        } catch (error) {
          if (!(error instanceof XosanError)) throw error
          await this.#stream.write(encodeOptionReply(option, refusalOf(error), Buffer.from(errorText(error))))
          return null
        }
    }
  }

  async #answerOption(option: number, data: Buffer): Promise<Agreement | null> {
    switch (option) {
      case Option.list:
        expectNoData(data)
        for (const name of await this.#exports.list()) {
          await this.#stream.write(encodeServerReply(option, name))
        }
        await this.#reply(option, OptionReply.ack)
        return null
      case Option.info:
      case Option.go:
        return this.#infoOrGo(option, data)
      case Option.structuredReply:
        expectNoData(data)
        this.#structured = true
        await this.#reply(option, OptionReply.ack)
        return null
      case Option.listMetaContext:
      case Option.setMetaContext:
        await this.#metaContext(option, data)
        return null
      case Option.startTls:
        // Inside of TLS there is no second one; a listener without TLS does not know it.
        await this.#reply(
          option,
          this.#greeted === null ? OptionReply.errorUnsupported : OptionReply.errorInvalid
        )
        return null
      default:
        await this.#reply(option, OptionReply.errorUnsupported)
        return null
    }
  }

  async #exportName(data: Buffer): Promise<Agreement | CloseReason> {
    const name = decodeName(data)
    this.#opening()
    let opened: OpenedExport
    try {
      opened = await this.#open(name, 'export-name')
    } catch (error) {
      return { code: 'refused', detail: reasonOf(error) }
    }
    const agreement = this.#agreement(name, opened)
    const flags = transmissionFlags(opened.device.capabilities, opened.readOnly, agreement.structured)
    await this.#stream.write(encodeExportNameReply({ size: opened.device.size, flags }, this.#noZeroes))
    return agreement
  }

  async #infoOrGo(option: number, data: Buffer): Promise<Agreement | null> {
    const { name, wanted } = decodeInfoRequest(data)
    if (option === Option.info) {
      const { size, capabilities, readOnly } = await this.#exports.info(name)
      const flags = transmissionFlags(capabilities, readOnly, this.#structured)
      await this.#describe(option, name, wanted, size, flags)
      return null
    }
    this.#opening()
    const opened = await this.#open(name, 'go')
    const flags = transmissionFlags(opened.device.capabilities, opened.readOnly, this.#structured)
    await this.#describe(option, name, wanted, opened.device.size, flags)
    return this.#agreement(name, opened)
  }

  async #open(name: string, convention: OpenRequest['convention']): Promise<OpenedExport> {
    const connection = this.#connection
    return this.#exports.open({ name, convention, caller: connection.caller, connection })
  }

  async #describe(
    option: number,
    name: string,
    wanted: readonly number[],
    size: number,
    flags: number
  ): Promise<void> {
    await this.#stream.write(encodeExportInfo(option, { size, flags }))
    if (wanted.includes(Info.blockSize)) await this.#stream.write(encodeBlockSizeInfo(option, BLOCK_SIZES))
    if (wanted.includes(Info.name)) await this.#stream.write(encodeNameInfo(option, name))
    await this.#reply(option, OptionReply.ack)
  }

  async #metaContext(option: number, data: Buffer): Promise<void> {
    const { name, queries } = decodeMetaContextRequest(data)
    const setting = option === Option.setMetaContext
    // Every SET replaces the one before, also one that fails.
    if (setting) this.#allocationFor = null
    if (!this.#structured) {
      throw new XosanError('INVALID_ARGUMENT', {
        what: 'the option',
        reason: 'metadata contexts need structured replies, which were not asked for',
      })
    }
    await this.#exports.info(name)
    const matches = setting
      ? queries.includes(BASE_ALLOCATION)
      : queries.length === 0 || queries.some(query => query === 'base:' || query === BASE_ALLOCATION)
    if (matches) {
      if (setting) this.#allocationFor = name
      const id = setting ? ALLOCATION_CONTEXT_ID : 0
      await this.#stream.write(encodeMetaContextReply(option, id, BASE_ALLOCATION))
    }
    await this.#reply(option, OptionReply.ack)
  }

  #agreement(name: string, opened: OpenedExport): Agreement {
    return { opened, structured: this.#structured, allocation: this.#allocationFor === name }
  }

  async #reply(option: number, type: number): Promise<void> {
    await this.#stream.write(encodeOptionReply(option, type))
  }
}

const LEFT: CloseReason = { code: 'ended', detail: 'the client left during the handshake' }
const CUT: CloseReason = { code: 'truncated', detail: 'the client left in the middle of an option' }

function expectNoData(data: Buffer): void {
  if (data.length > 0) {
    throw new XosanError('INVALID_ARGUMENT', { what: 'the option', reason: 'it takes no data' })
  }
}
