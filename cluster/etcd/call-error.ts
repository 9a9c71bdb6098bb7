/**
 * What the end of a call says about the change that it asked for. Being wrong in one direction loses a write to the
 * right to write (see docs/internals/coordinator.md), being wrong in the other costs a repetition: so a failure is
 * certain only when it is in the table below, and unknown when it is anything else.
 */

/**
 * Answers of etcd that come before the request is handed to raft, or that raft gives on the very member that was
 * asked, before anything is appended or sent on. They are compared as a whole, because neither the gRPC status nor a
 * part of the text is enough: `UNAVAILABLE` also stands for "server stopped" and `RESOURCE_EXHAUSTED` also for
 * "database space exceeded", both of which can come after the change was made.
 */
const NOTHING_DONE: ReadonlySet<string> = new Set([
  // The check that `hasleader` asks for; made before the handler runs.
  'etcdserver: no leader',
  'etcdserver: not capable',
  'etcdserver: rpc not supported for learner',
  // Too much is waiting to be applied on this member; asked before the proposal.
  'etcdserver: too many requests',
  // raft on this member has no leader, hands leadership over, or has too much uncommitted.
  'raft proposal dropped',
])

const COMPACTED = 'etcdserver: mvcc: required revision has been compacted'

/** Refusals of the request as such, made before any effect; the same request will be refused again. */
const REFUSED: ReadonlySet<string> = new Set([
  'etcdserver: request is too large',
  'etcdserver: too many operations in txn request',
  'etcdserver: duplicate key given in txn request',
  'etcdserver: key is not provided',
  COMPACTED,
  // Changes of the membership. Some are refused for now only; whoever asks looks at the members first.
  'etcdserver: member not found',
  'etcdserver: Peer URLs already exists',
  'etcdserver: member ID already exist',
  'etcdserver: unhealthy cluster',
  'etcdserver: re-configuration failed due to not enough started members',
  'etcdserver: too many learner members in cluster',
  'etcdserver: can only promote a learner member',
  'etcdserver: can only promote a learner member which is in sync with leader',
])

/** A call to one member failed. */
export class EtcdCallError extends Error {
  /** What etcd or gRPC said, for comparison. */
  readonly details: string
  /** True when the request certainly has no effect, now and later. */
  readonly nothingDone: boolean
  /** True when, moreover, it would be refused again. */
  readonly refused: boolean

  constructor(member: string, details: string, options?: ErrorOptions) {
    super(`${member}: ${details}`, options)
    this.name = 'EtcdCallError'
    this.details = details
    this.refused = REFUSED.has(details)
    this.nothingDone = this.refused || NOTHING_DONE.has(details)
  }
}

/** The history that a page of a list, or a compaction, is about is gone already. */
export const isCompacted = (error: unknown): boolean =>
  error instanceof EtcdCallError && error.details === COMPACTED
