import { ERRORS, reasonOf, XosanError, type ErrorCode } from '../core/errors.ts'
import { type Json } from '../rpc/wire.ts'

interface Spoken {
  readonly code: string
  /** The text that goes with the code in XenServer's storage manager, which XenCenter and Xen Orchestra know. */
  readonly text: string
}

const failure = (number: number, text: string): Spoken => ({ code: `SR_BACKEND_FAILURE_${number}`, text })

const INVALID_ARGUMENT = failure(1, 'Invalid argument')
const SR_IN_USE = failure(16, 'The SR device is currently in use')
const VDI_IN_USE = failure(24, 'The VDI is currently in use')
const UNIMPLEMENTED = failure(38, 'The requested method is not supported/implemented')
const SR_NOT_EMPTY = failure(39, 'The SR is not empty')
const SR_EXISTS = failure(42, 'The SR already exists')
const NO_SPACE = failure(44, 'There is insufficient space')
const VDI_UNAVAILABLE = failure(46, 'The VDI is not available')
const SR_UNAVAILABLE = failure(47, 'The SR is not available')
const IO_ERROR = failure(200, 'General IO error')
const GENERAL = failure(202, 'General backend error')

/**
 * Numbers and texts are those of XE_SR_ERRORCODES.xml (xapi-project/sm). Codes that are not here are spoken between
 * hosts, or mean that something went wrong which xapi has no word for: a general error.
 */
const SPOKEN: Readonly<Partial<Record<ErrorCode, Spoken>>> = {
  EPOCH_STALE: VDI_UNAVAILABLE,
  SESSION_STALE: VDI_UNAVAILABLE,
  ACTIVATED_ON_ANOTHER_HOST: VDI_IN_USE,
  NO_REPLICA_REACHABLE: VDI_UNAVAILABLE,
  DEADLINE_EXCEEDED: SR_UNAVAILABLE,
  REPLICA_GONE: VDI_UNAVAILABLE,
  REPLICA_PRESENT: VDI_UNAVAILABLE,
  REPLICA_LOCKED: VDI_UNAVAILABLE,
  REPLICA_CORRUPT: VDI_UNAVAILABLE,
  STORE_MISSING: SR_UNAVAILABLE,
  DISK_FAILED: IO_ERROR,
  NO_SPACE,
  COORDINATOR_UNAVAILABLE: SR_UNAVAILABLE,
  COORDINATOR_OUTCOME_UNKNOWN: SR_UNAVAILABLE,
  COORDINATOR_COMPACTED: SR_UNAVAILABLE,
  COORDINATOR_FOREIGN: SR_UNAVAILABLE,
  RECORD_INVALID: SR_UNAVAILABLE,
  DATABASE_DAMAGED: SR_UNAVAILABLE,
  DATABASE_FOREIGN: SR_UNAVAILABLE,
  TOO_FEW_HOSTS: SR_UNAVAILABLE,
  SR_NOT_FOUND: SR_UNAVAILABLE,
  NOT_IN_CLUSTER: SR_UNAVAILABLE,
  HOST_IN_ANOTHER_SR: SR_EXISTS,
  CLOCKS_DIFFER: SR_UNAVAILABLE,
  SR_EXISTS,
  SR_BUSY: SR_IN_USE,
  SR_NOT_EMPTY,
  VOLUME_NOT_FOUND: VDI_UNAVAILABLE,
  VERSION_DIFFERENT: SR_UNAVAILABLE,
  INVALID_ARGUMENT,
  EXPORT_UNKNOWN: INVALID_ARGUMENT,
  EXPORT_REFUSED: VDI_UNAVAILABLE,
  OUT_OF_RANGE: INVALID_ARGUMENT,
  READ_ONLY: UNIMPLEMENTED,
  UNSUPPORTED: UNIMPLEMENTED,
  DAEMON_UNREACHABLE: SR_UNAVAILABLE,
  DATAPATH_UNREACHABLE: SR_UNAVAILABLE,
  PEER_UNREACHABLE: SR_UNAVAILABLE,
}

/**
 * What an entry script prints when its call has failed. `params` has the shape that the storage manager of SMAPIv1
 * gives them, since that is what clients format: an empty one, the text of the code with our sentence and what to
 * do, and an empty one.
 */
export function smapiError(thrown: unknown): Json {
  const error =
    thrown instanceof XosanError ? thrown : new XosanError('INTERNAL', { reason: reasonOf(thrown) })
  const { code, text } = SPOKEN[error.code] ?? GENERAL
  return {
    code,
    params: ['', `${text} [opterr=${error.message} ${ERRORS[error.code].next}]`, ''],
    // xapi shows this trace beside its own; ours is in xosand's log, so it only says which error it was.
    backtrace: { error: `${error.code}: ${error.message}`, files: ['xosand'], lines: [0] },
  }
}
