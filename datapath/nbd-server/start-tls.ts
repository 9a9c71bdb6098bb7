import { HandshakeFlag, Option, OptionReply } from '../../core/nbd-wire/constants.ts'
import { CLIENT_FLAGS_BYTES, decodeClientFlags, encodeGreeting } from '../../core/nbd-wire/greeting.ts'
import { encodeOptionReply } from '../../core/nbd-wire/option-reply.ts'
import { decodeOptionHeader, OPTION_HEADER_BYTES } from '../../core/nbd-wire/option-request.ts'
import { violation } from '../../core/nbd-wire/violation.ts'
import { type HandshakeStream } from '../nbd-socket/handshake-stream.ts'

/** Data of an option that is only refused, in bytes: nothing that a client sends before TLS needs more. */
const OPTION_BYTES_MAX = 8192
/** Options before TLS; clients ask for it first, or give up at the first refusal. */
const OPTIONS_MAX = 16

/** What a client has said when the handshake goes on inside of TLS. */
export interface Greeted {
  /** It wants no 124 zeros after the answer to EXPORT_NAME. */
  readonly noZeroes: boolean
}

/**
 * The server's side of the handshake as far as it is spoken in clear: greeting, flags, and STARTTLS. Every other option
 * is refused with ERR_TLS_REQD, as the protocol says for a server in FORCEDTLS mode ("TLS support" in its document).
 *
 * @returns null when the client left
 * @throws XosanError PROTOCOL_VIOLATION for what is no handshake; for bytes after STARTTLS that came before our answer:
 *   they were said in clear, by anybody, and would be read as if they had come through TLS
 */
export async function startTls(stream: HandshakeStream): Promise<Greeted | null> {
  await stream.write(encodeGreeting(HandshakeFlag.fixedNewstyle | HandshakeFlag.noZeroes))
  const flags = await stream.read(CLIENT_FLAGS_BYTES)
  if (flags === null) return null
  const { noZeroes } = decodeClientFlags(flags)
  for (let count = 0; count < OPTIONS_MAX; count++) {
    const bytes = await stream.read(OPTION_HEADER_BYTES)
    if (bytes === null) return null
    const { option, length } = decodeOptionHeader(bytes)
    if (length > OPTION_BYTES_MAX) throw violation(`an option with ${length} bytes of data before TLS`)
    if ((await stream.read(length)) === null && length > 0) return null
    if (option === Option.startTls && length === 0) {
      if (stream.buffered > 0) throw violation('bytes in clear after STARTTLS')
      await stream.write(encodeOptionReply(option, OptionReply.ack))
      return { noZeroes }
    }
    switch (option) {
      case Option.exportName:
        // This one has no error reply.
        throw violation('EXPORT_NAME before TLS')
      case Option.abort:
        await stream.write(encodeOptionReply(option, OptionReply.ack))
        return null
      case Option.startTls:
        await stream.write(encodeOptionReply(option, OptionReply.errorInvalid))
        break
      default:
        await stream.write(encodeOptionReply(option, OptionReply.errorTlsRequired))
    }
  }
  throw violation(`${OPTIONS_MAX} options before TLS`)
}
