/**
 * What whoever looks after the members needs from etcd: who they are, how they fare, adding and removing one, and
 * forgetting old history.
 */
import { type Clock } from '../../core/ports/clock.ts'
import { type Random } from '../../core/ports/random.ts'
import { type Millis, millis } from '../../core/units.ts'
import { isCompacted } from './call-error.ts'
import { Calls } from './calls.ts'
import { type EtcdMember, MemberLink, channelCredentials, nameOf } from './member-link.ts'
import { type EtcdTarget, Members, unavailable } from './members.ts'
import {
  COMPACT,
  MEMBER_ADD,
  MEMBER_LIST,
  MEMBER_PROMOTE,
  MEMBER_REMOVE,
  RANGE,
  STATUS,
  TXN,
} from './protocol.ts'
import {
  type StatusReply,
  compactReply,
  memberAddReply,
  membersReply,
  rangeReply,
  statusReply,
  txnReply,
} from './replies.ts'

export interface EtcdAdminOptions {
  readonly target: EtcdTarget
  readonly clock: Clock
  readonly random: Random
  /** After this long a call ends by itself. */
  readonly callTimeMs?: Millis
}

/** A member as the cluster has recorded it. */
export interface EtcdMemberRecord {
  /** A 64-bit number, as text. */
  readonly id: string
  /** Empty until it has started for the first time. */
  readonly name: string
  readonly peerUrls: readonly string[]
  /** Empty until it has started for the first time. */
  readonly clientUrls: readonly string[]
  /** It receives everything but has no vote. */
  readonly learner: boolean
}

/** A change of the membership takes a round of the old members, and of the new ones. */
const CALL_TIME_MS = millis(10_000)
/** Outside of every namespace, which end with a slash. */
const MARK = Buffer.from('history-mark')
/** Two calls that are asked of one member each time find the same one, unless it has just failed. */
const SAME_MEMBER_ATTEMPTS = 5

/**
 * Calls that change the members throw COORDINATOR_OUTCOME_UNKNOWN or COORDINATOR_UNAVAILABLE as `Coordinator` does;
 * after either, look at `members` before trying again.
 */
export class EtcdAdmin {
  #target: EtcdTarget
  readonly #clock: Clock
  readonly #members: Members
  readonly #calls: Calls
  /** To the members whose status was asked for, whatever they know of a leader; by name. */
  readonly #links = new Map<string, MemberLink>()
  readonly #callTimeMs: Millis

  /** @throws INVALID_ARGUMENT when the members or the certificates cannot be used */
  constructor(options: EtcdAdminOptions) {
    this.#target = options.target
    this.#clock = options.clock
    this.#callTimeMs = options.callTimeMs ?? CALL_TIME_MS
    this.#members = new Members(options.target, options.clock, options.random)
    this.#calls = new Calls(this.#members, options.clock, this.#callTimeMs)
  }

  /** Asks other members, or with other certificates, from now on. @throws INVALID_ARGUMENT, with nothing changed */
  retarget(target: EtcdTarget): void {
    this.#members.retarget(target)
    const known = target.members.map(nameOf)
    for (const [name, link] of this.#links) {
      if (target.tls === this.#target.tls && known.includes(name)) continue
      link.close()
      this.#links.delete(name)
    }
    this.#target = target
  }

  /**
   * All members, linearizably. etcd 3.4 tells what the member that is asked has applied so far; so it is asked for a
   * read first, for which it waits until it has applied all that was decided.
   */
  async members(): Promise<readonly EtcdMemberRecord[]> {
    for (let attempt = 1; ; attempt++) {
      const read = await this.#calls.call(RANGE, rangeReply, { key: MARK, count_only: true }, 'reads')
      const { members, header } = await this.#calls.call(MEMBER_LIST, membersReply, {}, 'reads')
      if (header.member_id === read.header.member_id) return members.map(recordOf)
      if (attempt === SAME_MEMBER_ATTEMPTS) throw unavailable('each call was answered by another member')
    }
  }

  /** Adds a member that has no vote yet, so that a mistake in it cannot cost the quorum. It may be started then. */
  async addLearner(peerUrls: readonly string[]): Promise<EtcdMemberRecord> {
    const request = { peerURLs: peerUrls, isLearner: true }
    const { member } = await this.#calls.call(MEMBER_ADD, memberAddReply, request, 'changes')
    return recordOf(member)
  }

  /** Gives a learner its vote. Refused, as unavailable, while it has not caught up. */
  async promote(id: string): Promise<readonly EtcdMemberRecord[]> {
    const { members } = await this.#calls.call(MEMBER_PROMOTE, membersReply, { ID: id }, 'changes')
    return members.map(recordOf)
  }

  async remove(id: string): Promise<readonly EtcdMemberRecord[]> {
    const { members } = await this.#calls.call(MEMBER_REMOVE, membersReply, { ID: id }, 'changes')
    return members.map(recordOf)
  }

  /**
   * What one member says of itself, also while there is no quorum.
   * @throws EtcdCallError when it does not answer in time
   */
  async status(member: EtcdMember, timeMs: number = this.#callTimeMs): Promise<StatusReply> {
    const name = nameOf(member)
    let link = this.#links.get(name)
    if (link === undefined) {
      const credentials = channelCredentials(this.#target.tls, [member])
      link = new MemberLink(member, credentials(member), this.#clock, false)
      this.#links.set(name, link)
    }
    return link.call(STATUS, statusReply, {}, timeMs)
  }

  /**
   * Lets etcd forget old history, keeping at least the last `keepRevisions`. To be called now and then by any host, in
   * place of etcd's own compaction: versions in use (Debian 12's 3.4.23) lose the removals of exactly the revision at
   * which they compact, for a watch that has yet to read them (etcd issues 18089, 19179). So history is only ever cut
   * at a revision that removes nothing: that of a mark, which is put for this purpose.
   */
  async trimHistory(keepRevisions: number): Promise<void> {
    const { kvs, header } = await this.#calls.call(RANGE, rangeReply, { key: MARK }, 'reads')
    const marked = kvs[0]?.mod_revision ?? 0
    if (marked > 0 && header.revision - marked < keepRevisions) return
    if (marked > 0) await this.#compact(marked)
    const compare = [{ key: MARK, target: 'MOD', result: 'EQUAL', mod_revision: marked }]
    const success = [{ request_put: { key: MARK, value: Buffer.alloc(0) } }]
    await this.#calls.call(TXN, txnReply, { compare, success, failure: [] }, 'changes')
  }

  close(): void {
    this.#members.close()
    for (const link of this.#links.values()) link.close()
  }

  async #compact(revision: number): Promise<void> {
    try {
      await this.#calls.call(COMPACT, compactReply, { revision }, 'changes')
    } catch (error) {
      // Another host was faster.
      if (!(error instanceof Error && isCompacted(error.cause))) throw error
    }
  }
}

const recordOf = (member: {
  ID: string
  name: string
  peerURLs: string[]
  clientURLs: string[]
  isLearner: boolean
}): EtcdMemberRecord => ({
  id: member.ID,
  name: member.name,
  peerUrls: member.peerURLs,
  clientUrls: member.clientURLs,
  learner: member.isLearner,
})
