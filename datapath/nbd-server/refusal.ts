import { type ErrorCode, type XosanError } from '../../core/errors.ts'
import { OptionReply } from '../../core/nbd-wire/constants.ts'

/** Which error reply an option gets; what is not here is a refusal of policy, with the sentence that says why. */
const REPLIES: Partial<Record<ErrorCode, number>> = {
  PROTOCOL_VIOLATION: OptionReply.errorInvalid,
  INVALID_ARGUMENT: OptionReply.errorInvalid,
  EXPORT_UNKNOWN: OptionReply.errorUnknown,
  REPLICA_GONE: OptionReply.errorUnknown,
  UNSUPPORTED: OptionReply.errorUnsupported,
  DEADLINE_EXCEEDED: OptionReply.errorShutdown,
  STORE_MISSING: OptionReply.errorShutdown,
  NO_REPLICA_REACHABLE: OptionReply.errorShutdown,
  COORDINATOR_UNAVAILABLE: OptionReply.errorShutdown,
}

/** The type of the error reply to an option that failed; its text is the error's sentence. */
export const refusalOf = (error: XosanError): number => REPLIES[error.code] ?? OptionReply.errorPolicy
