/**
 * Which member to ask.
 *
 * A request that was sent and not answered leaves its caller in doubt for a whole round, so nothing is sent to a
 * member of which nothing was heard just before: all members are first asked for their status at the same time, which
 * costs them nothing (no disk, no other member), and the first one that knows a leader is taken. So a host that died
 * with its member, or a lost quorum, is found out before the request leaves, and then it certainly did nothing.
 */
import { XosanError, hasCode, reasonOf } from '../../core/errors.ts'
import { type Clock, type Timer } from '../../core/ports/clock.ts'
import { type Random } from '../../core/ports/random.ts'
import { type Millis, millis } from '../../core/units.ts'
import { EtcdCallError } from './call-error.ts'
import { type EtcdMember, type EtcdTls, MemberLink, channelCredentials, nameOf } from './member-link.ts'
import { STATUS } from './protocol.ts'
import { type Reply, statusReply } from './replies.ts'

/** The members that may be asked, and how we prove who we are. */
export interface EtcdTarget {
  /** In any order; the one that answers first is used. */
  readonly members: readonly EtcdMember[]
  /** Null: no encryption, on 127.0.0.0/8 only. */
  readonly tls: EtcdTls | null
}

/** A member that has answered within this time is asked without asking for its status first. */
const FRESH_MS = 1_000
/** A status takes a round trip; longer than this, and the member is of no use whatever the reason. */
const STATUS_MS = 1_000
/** Between two rounds while no member is of use. An election takes about a second. */
const PAUSE_MS = 100
/** A member that failed is used again at once only if no other answers. */
const DOUBTED_MS = 5_000

export class Members {
  readonly #clock: Clock
  readonly #random: Random
  readonly #pauses = new Set<() => void>()
  #links: readonly MemberLink[]
  #tls: EtcdTls | null
  #favourite: MemberLink | null = null
  #asking: Promise<MemberLink> | null = null
  #cluster: string | null = null
  #revision = 0
  #closed = false

  /** @throws INVALID_ARGUMENT */
  constructor(target: EtcdTarget, clock: Clock, random: Random) {
    this.#clock = clock
    this.#random = random
    const credentials = channelCredentials(target.tls, checked(target.members))
    this.#tls = target.tls
    this.#links = target.members.map(member => new MemberLink(member, credentials(member), clock))
  }

  /** The highest revision that any member has told. */
  get revision(): number {
    return this.#revision
  }

  get closed(): boolean {
    return this.#closed
  }

  /**
   * Uses other members, or other certificates, from now on. Members and certificates that stay the same (the same
   * object, for certificates) keep their connections; calls that are under way on others end as cut off.
   * @throws INVALID_ARGUMENT, with nothing changed
   */
  retarget(target: EtcdTarget): void {
    const credentials = channelCredentials(target.tls, checked(target.members))
    if (this.#closed) return
    const old = this.#links
    const kept = (member: EtcdMember): MemberLink | undefined =>
      target.tls !== this.#tls
        ? undefined
        : old.find(link => link.name === nameOf(member) && link.member.tlsName === member.tlsName)
    this.#links = target.members.map(
      member => kept(member) ?? new MemberLink(member, credentials(member), this.#clock)
    )
    this.#tls = target.tls
    for (const link of old) if (!this.#links.includes(link)) link.close()
  }

  /**
   * A member that is likely to answer.
   * @param latest reading of the clock after which to give up
   * @throws COORDINATOR_UNAVAILABLE
   */
  async choose(latest: Millis): Promise<MemberLink> {
    for (;;) {
      this.#checkOpen()
      const favourite = this.#favourite
      if (favourite !== null && favourite.answeredAgoMs < FRESH_MS && this.#links.includes(favourite)) {
        return favourite
      }
      try {
        this.#asking ??= this.#ask().finally(() => (this.#asking = null))
        this.#favourite = await this.#within(this.#asking, latest)
        return this.#favourite
      } catch (error) {
        if (!hasCode(error, 'COORDINATOR_UNAVAILABLE') || this.#clock.now() + PAUSE_MS >= latest) throw error
        await this.pause(PAUSE_MS)
      }
    }
  }

  /**
   * Takes note of an answer.
   * @throws COORDINATOR_UNAVAILABLE when it comes from another cluster than all answers before
   */
  heard({ header }: Reply, from: string): void {
    this.#cluster ??= header.cluster_id
    if (header.cluster_id !== this.#cluster) {
      throw unavailable(`${from} belongs to the cluster ${header.cluster_id}, not to ${this.#cluster}`)
    }
    this.#revision = Math.max(this.#revision, header.revision)
  }

  /** Waits about that long, or until this is closed. */
  async pause(aboutMs: number): Promise<void> {
    if (this.#closed) return
    await new Promise<void>(resolve => {
      const end = (): void => {
        timer.cancel()
        this.#pauses.delete(end)
        resolve()
      }
      // Random, so that clients that lost a member together do not all come back together.
      const timer: Timer = this.#clock.after(millis(aboutMs * (0.5 + this.#random.fraction())), end)
      this.#pauses.add(end)
    })
  }

  close(): void {
    this.#closed = true
    for (const link of this.#links) link.close()
    for (const end of [...this.#pauses]) end()
  }

  /** @throws COORDINATOR_UNAVAILABLE with what each member said */
  async #ask(): Promise<MemberLink> {
    const reasons: string[] = []
    let second: MemberLink | null = null
    const first = await new Promise<MemberLink | null>(resolve => {
      const asked = this.#links.map(async link => {
        const doubted = link.failedAgoMs < DOUBTED_MS
        try {
          const status = await link.call(STATUS, statusReply, {}, STATUS_MS)
          this.heard(status, link.name)
          if (status.leader === '0') reasons.push(`${link.name}: it knows no leader`)
          else if (status.isLearner) reasons.push(`${link.name}: it is still learning`)
          else if (doubted) second ??= link
          else resolve(link)
        } catch (error) {
          reasons.push(error instanceof EtcdCallError ? error.message : reasonOf(error))
        }
      })
      void Promise.all(asked).then(() => resolve(second))
    })
    if (first === null) throw unavailable(reasons.join('; '))
    return first
  }

  /** Whoever has little time does not wait for a round that others began. */
  async #within(asking: Promise<MemberLink>, latest: Millis): Promise<MemberLink> {
    let timer: Timer | null = null
    const late = new Promise<never>((_, reject) => {
      timer = this.#clock.after(millis(Math.max(latest - this.#clock.now(), 0)), () =>
        reject(unavailable('no member answers in time'))
      )
    })
    try {
      return await Promise.race([asking, late])
    } finally {
      ;(timer as Timer | null)?.cancel()
    }
  }

  #checkOpen(): void {
    if (this.#closed) throw unavailable('this client is closed')
  }
}

export const unavailable = (reason: string, cause?: unknown): XosanError =>
  new XosanError('COORDINATOR_UNAVAILABLE', { reason }, { cause })

function checked(members: readonly EtcdMember[]): readonly EtcdMember[] {
  if (members.length > 0) return members
  throw new XosanError('INVALID_ARGUMENT', { what: 'the list of etcd members', reason: 'it is empty' })
}
