/**
 * The primary's connection to one replica, and its care for it.
 *
 * An in-sync replica whose session is lost is connected again at once; if that does not succeed within the grace, or
 * if it fell silent, or lost power, or has lost its disk, it is taken out of the record and becomes stale. A
 * stale one is asked again and again; when it answers it is rebuilt from the write intents and put back. Whatever
 * goes wrong on the way starts the rebuild again from the intents, which lose nothing until it has succeeded.
 */
import { hasCode, reasonOf, type XosanError } from '../../core/errors.ts'
import {
  type AcceptAnswer,
  type EpochAnswer,
  type ProcessIdentity,
  type ReplicaAddress,
  type SessionName,
} from '../../core/mirror/messages.ts'
import { type Confirmation, promiseUntil } from '../../core/mirror/promise.ts'
import { type RegionSet } from '../../core/mirror/region-set.ts'
import { type MirrorTiming } from '../../core/mirror/timing.ts'
import { type ReplicaRecord } from '../../core/mirror/volume-record.ts'
import { type Clock, pause } from '../../core/ports/clock.ts'
import {
  type BootId,
  type Epoch,
  type Millis,
  millis,
  type RegionIndex,
  type Sequence,
  type SessionNumber,
  epoch as toEpoch,
} from '../../core/units.ts'
import { type Purpose } from '../../core/mirror/messages.ts'
import { type ReplicaPeer, type ReplicaSession } from './replica-peer.ts'

/** Why a session was ended from this side because nothing came back in time. */
export const SILENCE = 'no answer in time'

const STOPPED = 'the volume is not served here any more'

/** What a link asks of the mirror that it belongs to. */
export interface LinkOwner {
  readonly clock: Clock
  readonly timing: MirrorTiming
  readonly identity: ProcessIdentity
  readonly purpose: Purpose
  epoch(): Epoch
  /** Whether all in-sync replicas hold the same bytes, but for what is under way. */
  readonly reconciled: boolean
  address(replica: ReplicaRecord): ReplicaAddress
  nextSession(): SessionNumber
  mustAcknowledge(link: ReplicaLink): boolean
  /** A session is open, and the link's intents are known if it is in-sync. */
  connected(link: ReplicaLink): void
  disconnected(link: ReplicaLink, reason: string): void
  /** It could not be connected. */
  notConnected(link: ReplicaLink, reason: string): void
  promised(link: ReplicaLink, until: Millis): void
  /** Takes the replica out of the in-sync set. Resolves when that is done, or when it cannot be done now. */
  exclude(link: ReplicaLink, reason: string): Promise<void>
  /** Raises the epoch above one that a contender has reserved. */
  raise(): Promise<void>
  /** Copies to a connected stale replica what it lacks and puts it back. Rejects when its session is lost. */
  rebuild(link: ReplicaLink): Promise<void>
  /** Gives the host a new replica in the place of a lost one. */
  replace(link: ReplicaLink, reason: string): Promise<void>
  /** Resolves when something about the mirror's replicas has changed, or after a time. */
  changedWithin(ms: Millis): Promise<void>
}

const NOT_AWAY = Number.POSITIVE_INFINITY as Millis

/** A refusal after so long counts as the first one, in milliseconds. */
const REFUSALS_FORGOTTEN_MS = 60_000
/** The longest pause before a replica whose disk refused is asked again, as a multiple of the usual one. */
const REJOIN_BACKOFF_MAX = 16

/** A reason to take a replica out that no reconnecting mends. */
class ReplicaLost extends Error {}
/** The replica has accepted a higher epoch than ours. */
class EpochTaken extends Error {}
/** The replica is at work: its disk needs time for our epoch, or for what it was asked before. */
class Preparing extends Error {}

export class ReplicaLink {
  readonly record: ReplicaRecord
  readonly peer: ReplicaPeer
  readonly #owner: LinkOwner
  #session: ReplicaSession | null = null
  #name: SessionName | null = null
  #sequence = 0
  #confirmation: Confirmation | null = null
  #confirming = false
  /** Since when the replica must acknowledge and there is no session; infinite while there is one. */
  #awaySince = NOT_AWAY
  /** When the last request was sent that the replica has answered, but for heartbeats; at first, when this link was made. */
  #answeredSentAt: Millis
  #stopPulse: () => void
  /** Boot in which the replica was last known to hold everything; null until it answered. */
  boot: BootId | null = null
  /** It may lack un-flushed writes of this epoch and earlier ones, in regions that are not reconciled yet. */
  lostAt: Epoch | null = null
  /** Regions that may differ, as the replica said when the volume was opened. */
  intents: RegionSet | null = null
  /** Being put back: it must acknowledge, but is not read yet. */
  promoted = false
  /** It has lost writes while this primary relied on it: its host lost power, its disk failed, or it is gone. */
  hasLost = false
  /** It is connected and receives what is written, while it is brought up to date. */
  rebuilding = false
  /** It is to be taken out because of its disk: it refused what another one has done. */
  refused = false
  /** What its disk refused last. */
  refusal: XosanError | null = null
  /** Regions that it could not read. When it is brought up to date they are written anew, which mends most disks. */
  readonly unreadable = new Set<RegionIndex>()
  /** How often it was refused, of late, and when last. */
  #refusals = 0
  #refusedAt = Number.NEGATIVE_INFINITY as Millis
  #stopped = false

  constructor(record: ReplicaRecord, peer: ReplicaPeer, owner: LinkOwner) {
    this.record = record
    this.peer = peer
    this.#owner = owner
    this.#answeredSentAt = owner.clock.now()
    this.#stopPulse = peer.onPulse(() => this.#pulse())
  }

  get session(): ReplicaSession | null {
    return this.#session
  }

  get name(): SessionName | null {
    return this.#name
  }

  /** The number that the last change sent in this session carried. */
  get lastSequence(): Sequence {
    return this.#sequence as Sequence
  }

  /** Number for the next change; the caller sends it before it gives up control. */
  nextSequence(): Sequence {
    return ++this.#sequence as Sequence
  }

  /** Cares for the replica until the mirror stops. */
  async run(): Promise<void> {
    while (!this.#stopped) {
      if (this.#owner.mustAcknowledge(this)) await this.#stayConnected()
      else await this.#rejoin()
    }
  }

  stop(reason: string): void {
    this.#stopped = true
    this.#stopPulse()
    this.#session?.abort(reason)
  }

  /** Ends the session of a replica that has given no sign of life for too long. */
  checkSilence(now: Millis): void {
    if (this.peer.local || this.#session === null || this.#confirmation === null) return
    const { pulse } = this.peer
    const heard = pulse.incarnation === this.#confirmation.incarnation ? pulse.renewedSentAt : -1
    if (now - Math.max(heard, this.#confirmation.sentAt) > this.#owner.timing.replicaSilenceMs) {
      this.#session.abort(SILENCE)
    }
  }

  // -- in-sync ----------------------------------------------------------------------------------------------------

  async #stayConnected(): Promise<void> {
    const owner = this.#owner
    if (this.#awaySince === NOT_AWAY) this.#awaySince = owner.clock.now()
    while (this.#isWanted()) {
      try {
        const session = await this.#connect(true)
        owner.connected(this)
        const reason = await session.closed
        this.#lost(reason)
        // What was silent for so long has used up whatever patience there is for one that is at work.
        if (reason === SILENCE) this.#awaySince = (owner.clock.now() - owner.timing.requestTimeMs) as Millis
        if ((reason === SILENCE || this.refused) && this.#isWanted()) await this.#exclude(reason)
        return
      } catch (error) {
        this.#lost(reasonOf(error))
        if (!this.#isWanted()) return
        if (error instanceof EpochTaken) {
          await owner.raise()
        } else {
          const { requestTimeMs, reconnectGraceMs } = owner.timing
          const patience = error instanceof Preparing ? requestTimeMs : reconnectGraceMs
          if (error instanceof ReplicaLost || owner.clock.now() - this.#awaySince >= patience) {
            await this.#exclude(reasonOf(error))
          } else {
            await pause(owner.clock, owner.timing.retryDelayMs)
          }
        }
      }
    }
  }

  /** Asked again after each wait, because the answer changes meanwhile. */
  #isWanted(): boolean {
    return !this.#stopped && this.#owner.mustAcknowledge(this)
  }

  async #exclude(reason: string): Promise<void> {
    const owner = this.#owner
    await owner.exclude(this, reason)
    // It is the last one that has everything: there is nothing to do but to wait for it, or for another.
    if (this.#isWanted()) {
      await owner.changedWithin(owner.timing.rejoinIntervalMs)
    }
  }

  async #connect(inSync: boolean): Promise<ReplicaSession> {
    const owner = this.#owner
    const address = owner.address(this.record)
    this.#requireSignOfLife()
    let epoch = owner.epoch()
    let answer = await this.#confirm(address, epoch)
    if (answer.kind === 'refused' && answer.accepted < owner.epoch()) {
      // It missed the last change of membership, or a contender that came to nothing had its word.
      epoch = owner.epoch()
      this.#check(await this.#accept(address, epoch, inSync))
      answer = await this.#confirm(address, epoch)
    }
    this.#check(answer)
    if (inSync) this.#requireUnbroken(answer)
    this.boot = answer.identity.boot
    this.lostAt = answer.lostAt
    const name = { address, epoch, session: owner.nextSession() }
    const session = await peerCall(() => this.peer.openSession(name))
    if (this.#stopped) session.abort(STOPPED)
    this.#session = session
    this.refused = false
    this.hasLost = false
    this.#name = name
    this.#sequence = 0
    if (this.intents === null || !inSync) this.intents = await peerCall(() => this.peer.intents(name))
    if (inSync && owner.reconciled) await this.tellReconciled()
    // What follows this opening has links of its own, and must not take this one's session for theirs.
    if (this.#stopped) throw new Error(STOPPED)
    this.#awaySince = NOT_AWAY
    this.#pulse()
    return session
  }

  /**
   * A replica that hears this primary and is not heard would renew its promise with each confirmation, for a primary
   * that cannot serve by it, and nobody else could take the volume over.
   */
  #requireSignOfLife(): void {
    if (this.peer.local) return
    const heard = Math.max(this.#answeredSentAt, this.peer.pulse.renewedSentAt)
    if (this.#owner.clock.now() - heard > this.#owner.timing.promiseTimeMs)
      throw new Error('its host answers no heartbeats')
  }

  /** What was written since the volume was opened must still be there, flushed or not. */
  #requireUnbroken({ identity, lostAt }: EpochAnswer & { kind: 'ok' }): void {
    if (this.boot !== null && this.boot !== identity.boot) {
      this.hasLost = true
      throw new ReplicaLost('its host was started anew')
    }
    if (lostAt !== null && lostAt !== this.lostAt) {
      this.hasLost = true
      throw new ReplicaLost('a sync of its disk failed')
    }
  }

  /**
   * Makes durable what the replica has. One that cannot is not asked again: a second sync may succeed without the
   * pages that the first one lost.
   * @throws when the replica is away, or when it failed; then its session is over
   */
  async flush(): Promise<void> {
    const session = this.#session
    if (session === null) throw new Error('the replica is away')
    try {
      await session.flush()
    } catch (error) {
      this.reject(session, error)
      throw error
    }
  }

  /** Ends a session that answered with an error. */
  reject(session: ReplicaSession, error: unknown): void {
    if (this.#session !== session) return
    // A disk that refuses one change will refuse it again: connecting anew mends nothing.
    if (hasCode(error, 'NO_SPACE') || hasCode(error, 'DISK_FAILED')) this.#noteRefusal()
    session.abort(reasonOf(error))
  }

  #noteRefusal(): void {
    const now = this.#owner.clock.now()
    this.refused = true
    this.#refusals = now - this.#refusedAt > REFUSALS_FORGOTTEN_MS ? 1 : this.#refusals + 1
    this.#refusedAt = now
  }

  /** Lets the replica forget that it lost writes: it has them again, durably. */
  async tellReconciled(): Promise<void> {
    if (this.lostAt === null || this.#name === null) return
    await this.peer.clear({ name: this.#name, upTo: this.lastSequence, regions: [], reconciled: true })
    this.lostAt = null
  }

  async #accept(address: ReplicaAddress, epoch: Epoch, inSync: boolean): Promise<AcceptAnswer> {
    const { identity: asker, purpose, clock } = this.#owner
    const voidUpTo = toEpoch(epoch - 1)
    const sentAt = clock.now()
    const request = { address, epoch, asker, purpose, inSync, voidUpTo }
    const answer = await peerCall(() => this.peer.accept(request))
    this.#answeredSentAt = sentAt
    return answer
  }

  async #confirm(address: ReplicaAddress, epoch: Epoch): Promise<EpochAnswer> {
    const { identity: asker, purpose, clock } = this.#owner
    const sentAt = clock.now()
    const answer = await peerCall(() => this.peer.confirm({ address, epoch, asker, purpose }))
    this.#answeredSentAt = sentAt
    if (answer.kind === 'ok') {
      const { identity, takenAway } = answer
      this.#confirmation = { incarnation: identity.incarnation, sentAt, takenAway }
    }
    return answer
  }

  /** @throws unless the replica did what it was asked */
  #check(answer: AcceptAnswer | EpochAnswer): asserts answer is { kind: 'accepted' | 'ok' } & typeof answer {
    switch (answer.kind) {
      case 'accepted':
      case 'ok':
        return
      case 'gone':
        this.hasLost = true
        throw new ReplicaLost(`the replica is gone: ${answer.reason}`)
      case 'failed':
        throw new ReplicaLost(`its disk failed: ${answer.reason}`)
      case 'refused':
        throw new EpochTaken(`it has accepted epoch ${answer.accepted}`)
      case 'higher-epoch':
        throw new EpochTaken(`it has accepted epoch ${answer.epoch}`)
      case 'promised':
        throw new Error('it owes a promise to another host')
      case 'preparing':
        throw new Preparing(`it is about to accept: ${answer.reason}`)
    }
  }

  #lost(reason: string): void {
    const session = this.#session
    session?.abort(reason)
    this.#session = null
    this.#name = null
    // Another try that failed changes nothing for anybody: two that try and fail would wake each other without end.
    if (session === null) this.#owner.notConnected(this, reason)
    else this.#owner.disconnected(this, reason)
  }

  /** A heartbeat was answered: the promise is longer, unless it must be asked for again. */
  #pulse(): void {
    const confirmation = this.#confirmation
    if (confirmation === null || this.peer.local) return
    const { pulse } = this.peer
    this.#owner.promised(this, promiseUntil(confirmation, pulse, this.#owner.timing.promiseTimeMs))
    const taken = pulse.incarnation === confirmation.incarnation && pulse.takenAway !== confirmation.takenAway
    if (taken && this.#session !== null && !this.#confirming) void this.#confirmAgain(this.#session)
  }

  /** The peer took some volume away from this process. Was it this one? */
  async #confirmAgain(session: ReplicaSession): Promise<void> {
    this.#confirming = true
    try {
      this.#check(await this.#confirm(this.#owner.address(this.record), this.#owner.epoch()))
      this.#pulse()
    } catch (error) {
      session.abort(reasonOf(error))
    } finally {
      this.#confirming = false
    }
  }

  // -- stale ------------------------------------------------------------------------------------------------------

  async #rejoin(): Promise<void> {
    const owner = this.#owner
    try {
      if (this.refused) {
        // Each attempt copies until the disk refuses again. It is left alone for longer and longer.
        const steps = Math.min(2 ** (this.#refusals - 1), REJOIN_BACKOFF_MAX)
        await pause(owner.clock, millis(owner.timing.rejoinIntervalMs * steps))
        if (this.#stopped || owner.mustAcknowledge(this)) return
      }
      const address = owner.address(this.record)
      const answer = await this.#accept(address, owner.epoch(), false)
      if (answer.kind === 'gone') {
        if (!this.#stopped) await owner.replace(this, answer.reason)
      } else {
        this.#check(answer)
        await this.#connect(false)
        await owner.rebuild(this)
        // In-sync again, with the session that saw all of it.
        const reason = await this.#session!.closed
        this.#lost(reason)
        if (reason === SILENCE || this.refused) {
          if (this.#isWanted()) await this.#exclude(reason)
        }
        return
      }
    } catch (error) {
      if (this.#session === null && hasCode(error, 'NO_SPACE')) this.#noteRefusal()
      this.#lost(reasonOf(error))
      if (!this.#stopped && error instanceof EpochTaken) await owner.raise()
    }
    if (!this.#stopped && !owner.mustAcknowledge(this)) {
      await pause(owner.clock, owner.timing.rejoinIntervalMs)
    }
  }
}

/** Calls whose refusal says how the replica itself is say so with these codes. */
async function peerCall<Result>(call: () => Promise<Result>): Promise<Result> {
  try {
    return await call()
  } catch (error) {
    if (hasCode(error, 'EPOCH_STALE')) throw new EpochTaken(error.message)
    if (hasCode(error, 'REPLICA_BUSY')) throw new Preparing(error.message)
    if (hasCode(error, 'REPLICA_GONE') || hasCode(error, 'DISK_FAILED')) throw new ReplicaLost(error.message)
    if (hasCode(error, 'REPLICA_CORRUPT')) throw new ReplicaLost(error.message)
    throw error
  }
}
