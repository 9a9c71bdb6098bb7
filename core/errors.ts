/**
 * Every way in which XOSAN can say no. One table: the sentence for the operator, what XOSAN does next, and
 * whether the same request can succeed later without anybody changing anything.
 */

interface ErrorEntry {
  /** One sentence for the operator; `{name}` is replaced by the parameter of that name. */
  readonly sentence: string
  /** What XOSAN does next, or what the operator should do. */
  readonly next: string
  /** True when repeating the same request later may succeed. */
  readonly retriable: boolean
}

export const ERRORS = {
  // -- the right to write ---------------------------------------------------------------------------------------
  EPOCH_STALE: {
    sentence: 'The request carries epoch {epoch}, but this replica has accepted epoch {accepted}.',
    next: 'The sender stops writing and opens the volume again if the record still names it.',
    retriable: false,
  },
  SESSION_STALE: {
    sentence: 'The request belongs to session {session}, but session {current} is the open one.',
    next: 'The sender opens a new session and sends its unanswered writes again.',
    retriable: false,
  },
  SEQUENCE_BROKEN: {
    sentence: 'A change numbered {sequence} arrived where {expected} was due.',
    next: 'The session is closed; the sender opens a new one and sends its unanswered writes again.',
    retriable: false,
  },
  ACTIVATED_ON_ANOTHER_HOST: {
    sentence: 'Volume {volume} is active on host {host}.',
    next: 'Deactivate it there first, or wait until that host is known to be dead.',
    retriable: true,
  },
  NO_REPLICA_REACHABLE: {
    sentence: 'No in-sync replica of volume {volume} can be reached: {reason}.',
    next: 'The volume waits. Start a host that holds an in-sync replica (see `xosan volume show`).',
    retriable: true,
  },
  DEADLINE_EXCEEDED: {
    sentence: '{what} did not finish within {deadlineMs} ms.',
    next: 'Try again; see `xosan status` for what is slow or away.',
    retriable: true,
  },
  WRITES_LOST: {
    sentence:
      'Writes of volume {volume} that were not flushed are lost: every host that held them lost power.',
    next: 'This flush fails, once. Treat it as a disk that lost power: check the file system in the guest.',
    retriable: false,
  },
  UNREADABLE: {
    sentence: 'Bytes {offset} to {end} cannot be read from the disk of the last replica that has them.',
    next: 'The client gets an error for this read; a write to the same place mends it. Restore what was there.',
    retriable: true,
  },
  // -- replicas -------------------------------------------------------------------------------------------------
  REPLICA_GONE: {
    sentence: 'The replica {replica} of volume {volume} is not here: {reason}.',
    next: 'The primary gives this host a new replica and copies it in full.',
    retriable: false,
  },
  REPLICA_PRESENT: {
    sentence: 'Replica {present} of volume {volume} is here already, where {wanted} is meant.',
    next: 'Nothing is touched: files of a replica go only when a tombstone names its id.',
    retriable: false,
  },
  REPLICA_LOCKED: {
    sentence: 'The files of {path} are in use by another process.',
    next: 'Only one datapath process may serve a replica; end the other one.',
    retriable: true,
  },
  REPLICA_BUSY: {
    sentence: 'The replica of volume {volume} cannot be used yet: {reason}.',
    next: 'It is tried again, and the others serve. If it lasts, the disk of that host is slow or hangs: look at it.',
    retriable: true,
  },
  REPLICA_CORRUPT: {
    sentence: 'The replica file {path} is damaged: {reason}.',
    next: 'The replica is taken out and copied anew from another host.',
    retriable: false,
  },
  STORE_MISSING: {
    sentence: 'The store of SR {sr} is not at {path}: {reason}.',
    next: 'Mount the file system that holds it; nothing is written until its id is found.',
    retriable: true,
  },
  DISK_FAILED: {
    sentence: 'The disk below {path} failed: {reason}.',
    next: 'The replica on this host is out; others serve, and it comes back when its disk is well. Replace the disk.',
    retriable: false,
  },
  NO_SPACE: {
    sentence: 'There is not enough space: {needed} bytes are needed, {free} are free.',
    next: 'A replica that has space goes on without this one. If none has, writes of new blocks wait; free space or add a host.',
    retriable: true,
  },
  // -- coordinator ----------------------------------------------------------------------------------------------
  COORDINATOR_UNAVAILABLE: {
    sentence: 'The coordinator cannot be reached: {reason}.',
    next: 'Healthy volumes go on; changes of membership wait until it is back.',
    retriable: true,
  },
  COORDINATOR_OUTCOME_UNKNOWN: {
    sentence: 'The coordinator did not say whether it made the change: {reason}.',
    next: 'The change is made again until its outcome is certain.',
    retriable: true,
  },
  COORDINATOR_COMPACTED: {
    sentence: 'The history after revision {revision} is no longer kept.',
    next: 'The watcher reads everything anew.',
    retriable: true,
  },
  RECORD_INVALID: {
    sentence: 'The record {key} cannot be understood: {reason}.',
    next: 'Nothing is changed. It may have been written by a newer version: upgrade this host.',
    retriable: false,
  },
  DATABASE_DAMAGED: {
    sentence: 'The database {path} is damaged: {reason}.',
    next: 'A catalogue is set aside and filled anew from the coordinator; a coordinator must be recovered.',
    retriable: false,
  },
  DATABASE_FOREIGN: {
    sentence: 'The database {path} cannot be used by this version: {reason}.',
    next: 'Nothing is changed. Upgrade this host, or correct the path.',
    retriable: false,
  },
  COORDINATOR_FOREIGN: {
    sentence: 'This is not the coordinator that this host has followed: {reason}.',
    next: 'The catalogue keeps what it knows and follows nothing. Connect the right coordinator, or recover the SR.',
    retriable: false,
  },
  TOO_FEW_HOSTS: {
    sentence: '{copies} replicas need as many hosts with a store, but there are {hosts}.',
    next: 'Start or add hosts, or ask for fewer copies.',
    retriable: true,
  },
  // -- SRs and volumes ------------------------------------------------------------------------------------------
  SR_NOT_FOUND: {
    sentence: 'There is no SR {sr} here.',
    next: 'Check the sr_uuid of the device-config; `xosan status` lists the SRs that this host knows.',
    retriable: false,
  },
  SR_EXISTS: {
    sentence: 'SR {sr} exists already.',
    next: 'Nothing is changed. Introduce it instead of creating it, or destroy it first.',
    retriable: false,
  },
  SR_BUSY: {
    sentence: 'SR {sr} is being {operation}.',
    next: 'Try again when that is done; if its host died, another one clears up within a minute.',
    retriable: true,
  },
  SR_NOT_EMPTY: {
    sentence: 'SR {sr} still holds {volumes} volumes.',
    next: 'Destroy its volumes first.',
    retriable: false,
  },
  VOLUME_NOT_FOUND: {
    sentence: 'There is no volume {volume} in SR {sr}.',
    next: 'Scan the SR to see what it holds.',
    retriable: false,
  },
  VERSION_DIFFERENT: {
    sentence: 'Host {host} runs version {version} of XOSAN, this one {own}.',
    next: 'Bring all hosts to the same version.',
    retriable: false,
  },
  // -- requests -------------------------------------------------------------------------------------------------
  INVALID_ARGUMENT: {
    sentence: '{what} is not valid: {reason}.',
    next: 'Correct it and call again.',
    retriable: false,
  },
  OUT_OF_RANGE: {
    sentence: 'Bytes {offset} to {end} are outside of the volume of {size} bytes.',
    next: 'The request is refused; the volume is unchanged.',
    retriable: false,
  },
  READ_ONLY: {
    sentence: 'This connection may not change the volume.',
    next: 'The request is refused; the volume is unchanged.',
    retriable: false,
  },
  UNSUPPORTED: {
    sentence: '{what} is not supported: {reason}.',
    next: 'See the documentation for what is.',
    retriable: false,
  },
  EXPORT_UNKNOWN: {
    sentence: 'There is no export named {name} here.',
    next: 'The connection is refused. Attach the volume, or correct the name.',
    retriable: true,
  },
  EXPORT_REFUSED: {
    sentence: '{host} refused to serve export {name}: {reason}.',
    next: 'The client decides whether to open another session.',
    retriable: true,
  },
  // -- the lab --------------------------------------------------------------------------------------------------
  ROOT_REQUIRED: {
    sentence: '{what} needs root.',
    next: 'Run the same command as root, for example with `sudo`.',
    retriable: false,
  },
  PROGRAM_MISSING: {
    sentence: '{what} needs the program {program}, which is not installed (package {package}).',
    next: 'Install that package, on Debian with `apt-get install`, and run the same command again.',
    retriable: false,
  },
  LAB_NETWORK_BROKEN: {
    sentence: 'The network of the lab is not as it should be: {reason}.',
    next: '`xosan lab up` makes what is missing of it; `xosan lab down --keep`, then `lab up`, make it anew.',
    retriable: false,
  },
  // -- trust ----------------------------------------------------------------------------------------------------
  NOT_IN_CLUSTER: {
    sentence: 'This host is in no SR.',
    next: 'Create an SR on a host of the pool (`xe sr-create type=xosan ...`), or let this host join one.',
    retriable: false,
  },
  HOST_IN_ANOTHER_SR: {
    sentence: 'Host {host} is in SR {sr} already, and a host can be in one XOSAN SR only.',
    next: 'Use that SR, or destroy it first.',
    retriable: false,
  },
  AUTHORITY_ELSEWHERE: {
    sentence: 'Host {host} does not hold the key of the authority, so it can let nobody in.',
    next: 'Another host is asked. If the one that holds it is lost, remove it (`xosan host remove`): another one takes its place.',
    retriable: false,
  },
  SUCCESSION_WAITS: {
    sentence:
      'Another host takes the place of the one that held the key of the authority, for which every other host is needed. Host {host}: {reason}.',
    next: 'Start that host, or remove it first (`xosan host remove`), and try again; what was begun goes on then.',
    retriable: true,
  },
  SUCCESSION_ELSEWHERE: {
    sentence: 'Host {host} takes the place of the one that held the key of the authority: {reason}.',
    next: 'Give the command on that host. Only if that host is lost for good, remove it instead (`xosan host remove`).',
    retriable: true,
  },
  CLOCKS_DIFFER: {
    sentence: "The time of day on host {host} differs from this host's by {hours} hours.",
    next: 'Set the clocks of both hosts (certificates end at a time of day), and try again.',
    retriable: false,
  },
  PEER_NOT_TRUSTED: {
    sentence: '{host} could not show that it is the host it should be: {reason}.',
    next: 'The connection is closed. Check that the host is a member, and the clocks of both.',
    retriable: false,
  },
  ENROLMENT_REFUSED: {
    sentence: 'The host was not let in: {reason}.',
    next: 'Nothing is changed. Ask for another ticket; each is good once, for one host, for ten minutes.',
    retriable: false,
  },
  CERTIFICATE_REFUSED: {
    sentence: 'Host {host} was given no new certificate: {reason}.',
    next: 'It goes on with the one that it has, and asks again every day. Warnings begin 60 days before its end.',
    retriable: true,
  },
  TRUST_FILE_UNSAFE: {
    sentence: '{path} cannot be trusted: {reason}.',
    next: 'Nothing starts with it. If others could read a key, remove this host and let it join again.',
    retriable: false,
  },
  // -- daemon ---------------------------------------------------------------------------------------------------
  DAEMON_UNREACHABLE: {
    sentence: 'xosand does not answer on {path}: {reason}.',
    next: 'See `systemctl status xosand`; running VMs are not affected.',
    retriable: true,
  },
  DATAPATH_UNREACHABLE: {
    sentence: 'Datapath process {index} of this host does not answer: {reason}.',
    next: 'It is started again by itself; the call can be repeated then.',
    retriable: true,
  },
  PEER_UNREACHABLE: {
    sentence: 'Host {host} does not answer: {reason}.',
    next: 'Check that host and the network between; replicas on other hosts serve meanwhile.',
    retriable: true,
  },
  PROTOCOL_VIOLATION: {
    sentence: 'The other side broke the protocol: {reason}.',
    next: 'The connection is closed; nothing else is affected.',
    retriable: false,
  },
  INTERNAL: {
    sentence: 'XOSAN itself went wrong: {reason}.',
    next: 'Please report it with the log of xosand and the datapath processes.',
    retriable: false,
  },
} as const satisfies Record<string, ErrorEntry>

export type ErrorCode = keyof typeof ERRORS
export type ErrorParameters = Readonly<Record<string, string | number | boolean>>

/** An error with a code of the table above. `message` is the sentence with its parameters filled in. */
export class XosanError extends Error {
  readonly code: ErrorCode
  readonly parameters: ErrorParameters

  constructor(code: ErrorCode, parameters: ErrorParameters = {}, options?: ErrorOptions) {
    super(sentenceOf(code, parameters), options)
    this.name = 'XosanError'
    this.code = code
    this.parameters = parameters
  }

  get retriable(): boolean {
    return ERRORS[this.code].retriable
  }
}

/** The operator's sentence of a code. Parameters that are missing show as their name. */
export function sentenceOf(code: ErrorCode, parameters: ErrorParameters): string {
  return ERRORS[code].sentence.replace(/\{(\w+)\}/g, (_, name: string) => String(parameters[name] ?? name))
}

/** True when an error carries this code. */
export const hasCode = (error: unknown, code: ErrorCode): error is XosanError =>
  error instanceof XosanError && error.code === code

/** The text of anything that was thrown. */
export const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))
