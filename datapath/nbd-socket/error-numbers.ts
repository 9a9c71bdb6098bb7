import { z } from 'zod'
import { type ErrorCode, XosanError } from '../../core/errors.ts'
import { NbdError } from '../../core/nbd-wire/constants.ts'

/**
 * What a device's refusal becomes on the wire. Codes that are not here become EIO. A client of ours finds the code
 * itself in the text of the error chunk.
 */
const NUMBERS: Partial<Record<ErrorCode, number>> = {
  OUT_OF_RANGE: NbdError.invalid,
  INVALID_ARGUMENT: NbdError.invalid,
  READ_ONLY: NbdError.permission,
  NO_SPACE: NbdError.noSpace,
  UNSUPPORTED: NbdError.notSupported,
  // The right to use this connection is gone for good; whoever holds it must open anew.
  EPOCH_STALE: NbdError.shutdown,
  SESSION_STALE: NbdError.shutdown,
  SEQUENCE_BROKEN: NbdError.shutdown,
  REPLICA_GONE: NbdError.shutdown,
}

/** Codes that a server may put into our process by naming them. */
const ACCEPTED: ReadonlySet<string> = new Set<ErrorCode>([
  ...(Object.keys(NUMBERS) as ErrorCode[]),
  'DISK_FAILED',
  'REPLICA_BUSY',
  'REPLICA_CORRUPT',
  'STORE_MISSING',
  'INTERNAL',
])

/**
 * The number of an error.
 * @param growing for WRITE and WRITE_ZEROES, where running off the end is "no space" by the protocol
 */
export function errorNumberOf(error: unknown, growing: boolean): number {
  if (!(error instanceof XosanError)) return NbdError.io
  if (growing && error.code === 'OUT_OF_RANGE') return NbdError.noSpace
  return NUMBERS[error.code] ?? NbdError.io
}

/** The operator's sentence, and after it in brackets the code with its parameters. */
export const errorText = (error: XosanError): string =>
  `${error.message} [${error.code} ${JSON.stringify(error.parameters)}]`

const parameters = z.record(z.string(), z.union([z.string(), z.number(), z.boolean()]))

/**
 * The error that a reply stands for: the one of its text when a XOSAN server wrote it, else the nearest one to its
 * number.
 * @param peer name of the server, for the message
 */
export function errorFromReply(number: number, text: string, peer: string): XosanError {
  const named = errorInText(text)
  if (named !== null) return named
  const reason = `${peer} answered with NBD error ${number}${text === '' ? '' : `: ${text}`}`
  switch (number) {
    case NbdError.permission:
      return new XosanError('READ_ONLY', { reason })
    case NbdError.noSpace:
      return new XosanError('NO_SPACE', { needed: 'more', free: 'too few', reason })
    case NbdError.invalid:
    case NbdError.overflow:
      return new XosanError('INVALID_ARGUMENT', { what: 'the request', reason })
    case NbdError.notSupported:
      return new XosanError('UNSUPPORTED', { what: 'the request', reason })
    case NbdError.shutdown:
      return new XosanError('PEER_UNREACHABLE', { host: peer, reason })
    default:
      return new XosanError('DISK_FAILED', { path: peer, reason })
  }
}

/** The error that a XOSAN server named in a text; null when there is none, or one that no server may put here. */
export function errorInText(text: string): XosanError | null {
  const bracket = /\[([A-Z_]+) (\{.*\})\]$/s.exec(text)
  if (bracket === null || !ACCEPTED.has(bracket[1]!)) return null
  const parsed = parameters.safeParse(parseJson(bracket[2]!))
  return parsed.success ? new XosanError(bracket[1]! as ErrorCode, parsed.data) : null
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}
