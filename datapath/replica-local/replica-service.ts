/**
 * One replica as its host offers it to primaries: the local files, and the right to change them.
 *
 * Messages about the right are handled one after the other. Whatever gives the right to somebody else, or opens a new
 * session, first makes the earlier sessions void, then waits until all I/O that they had submitted has ended, and only
 * then answers: after the answer nothing of before can still reach the disk.
 *
 * A disk may hang, and then that wait has no end. Whoever asks hears in time that the replica is busy, and may ask again;
 * nothing is opened or given to anybody before the disk has answered every call of before.
 */
import { hasCode, reasonOf, XosanError } from '../../core/errors.ts'
import {
  type AcceptAnswer,
  type AcceptRequest,
  type ClearRequest,
  type ConfirmRequest,
  type EpochAnswer,
  type FinishRequest,
  type ProcessIdentity,
  type RaiseRequest,
  type ReplicaAddress,
  type SessionName,
} from '../../core/mirror/messages.ts'
import { type PromiseGiver } from '../../core/mirror/promise.ts'
import { RegionSet } from '../../core/mirror/region-set.ts'
import { type AcceptVerdict, ReplicaRights } from '../../core/mirror/replica-rights.ts'
import { ANSWER_SHARE_OF_CALL, type MirrorTiming } from '../../core/mirror/timing.ts'
import { type Clock } from '../../core/ports/clock.ts'
import {
  type ByteOffset,
  type Epoch,
  millis,
  type Millis,
  REGION_BYTES,
  type RegionIndex,
  type VolumeKey,
} from '../../core/units.ts'
import { digestsOf } from './block-digests.ts'
import { BoundedTurn } from './bounded-turn.ts'
import { type LocalReplica } from './local-replica.ts'
import { ReplicaSessionDevice } from './replica-session.ts'

/** What all replicas of a datapath process share. */
export interface ReplicaServiceContext {
  readonly identity: ProcessIdentity
  readonly clock: Clock
  readonly timing: MirrorTiming
  readonly promises: PromiseGiver
  /** Since when nothing that was promised before is known: the start of this process, on its clock. */
  readonly startedAt: Millis
  /** Whether this very process is the primary of a volume, as far as it knows. */
  readonly isServing: (volume: VolumeKey) => boolean
}

export class ReplicaService {
  readonly replica: LocalReplica
  readonly #context: ReplicaServiceContext
  readonly #rights: ReplicaRights
  readonly #turn: BoundedTurn
  #session: ReplicaSessionDevice | null = null
  /** An epoch is being accepted. */
  #accepting = false

  constructor(replica: LocalReplica, context: ReplicaServiceContext) {
    this.replica = replica
    this.#context = context
    this.#turn = new BoundedTurn(context.clock, replica.volume)
    this.#rights = new ReplicaRights(replica.acceptedEpoch, context.startedAt, context.timing.promiseTimeMs)
  }

  /** The process that holds the replica's epoch now. */
  get holder(): ProcessIdentity | null {
    return this.#rights.holder
  }

  /** Whether a session may change the replica now. */
  get inSession(): boolean {
    return this.#rights.session !== null
  }

  /** What a request for an epoch waits for, in words for an administrator. */
  get doing(): string {
    return this.#turn.doing ?? 'an earlier message is being carried out'
  }

  /**
   * How a request for an epoch is refused without a wait; null when it is to be carried out, in its turn. The turn may
   * be held by a flush that takes long, and a contender must hear of a live primary at once all the same.
   */
  refusalOf(request: AcceptRequest): AcceptAnswer | null {
    const { identity } = this.#context
    if (this.replica.failure !== undefined) return null
    const difference = differenceOf(this.replica, request.address)
    if (difference !== null) return { kind: 'gone', identity, reason: difference }
    const verdict = this.#judge(request)
    return verdict.kind === 'accept' ? null : { ...verdict, identity }
  }

  /** Gives an epoch to who asks for it; this may take as long as the disk needs to flush. */
  async accept(request: AcceptRequest): Promise<AcceptAnswer> {
    return this.#turn.run('an epoch is being accepted', async () => {
      this.#accepting = true
      try {
        return await this.#answer(request.address, async () => this.#accept(request))
      } finally {
        this.#accepting = false
      }
    })
  }

  #judge(request: AcceptRequest): AcceptVerdict {
    const { identity, clock, promises } = this.#context
    const now = clock.now()
    return this.#rights.judge(request, now, process => {
      // Nobody beats for the process that the replica is in: it lives as long as it serves the volume.
      if (process.incarnation !== identity.incarnation) return promises.renewedAt(process.incarnation)
      return this.#context.isServing(request.address.volume) ? now : null
    })
  }

  async #accept(request: AcceptRequest): Promise<AcceptAnswer> {
    const { identity, promises } = this.#context
    const verdict = this.#judge(request)
    if (verdict.kind !== 'accept') return { ...verdict, identity }
    this.#turn.reached('requests of before are coming to their end')
    // From here the heartbeats of the one that loses by it renew nothing for this volume.
    const loser = this.#rights.accept(request)
    if (loser !== null) promises.takeAwayFrom(loser.incarnation)
    if (this.#rights.session === null) await this.#endSession('another epoch was accepted')
    this.#turn.reached('what was written before is made durable')
    // Whoever takes the volume by this answer may leave behind others that hold the same writes: durable first, so
    // that a power cut from here on loses none of them.
    if (request.inSync) await this.replica.flush()
    const { size } = request.address
    if (size > this.replica.size) await this.replica.resize(size)
    if (request.epoch > this.replica.acceptedEpoch) {
      await this.replica.acceptEpoch(request.epoch, { rebuilding: !request.inSync })
    }
    return { kind: 'accepted', identity, lostAt: this.replica.lostAt }
  }

  /** @throws REPLICA_BUSY */
  async confirm(request: ConfirmRequest): Promise<EpochAnswer> {
    const { address, epoch, asker, purpose } = request
    return this.#answer(address, async () => {
      const early = this.#notAccepted(epoch)
      if (early !== null) return early
      const confirm = async (): Promise<EpochAnswer> =>
        this.#answer(address, async () => {
          const { acceptedEpoch } = this.replica
          // It could not be stored, as when a volume has grown and the disk is full: then nobody has it.
          if (epoch > acceptedEpoch) {
            return { kind: 'refused', identity: this.#context.identity, accepted: acceptedEpoch }
          }
          const now = this.#context.clock.now()
          return this.#epochAnswer(this.#rights.confirm(epoch, asker, purpose, now), asker)
        })
      return this.#turn.run('an epoch is being confirmed', confirm, this.#patienceMs)
    })
  }

  /** The refusal of an epoch that this replica has left, or has yet to accept: neither need wait for a long flush. */
  #notAccepted(epoch: Epoch): EpochAnswer | null {
    const { identity } = this.#context
    const { accepted } = this.#rights
    if (epoch < accepted) return { kind: 'refused', identity, accepted }
    const { acceptedEpoch } = this.replica
    if (!this.#accepting || epoch <= acceptedEpoch) return null
    return { kind: 'refused', identity, accepted: acceptedEpoch }
  }

  /** @throws REPLICA_BUSY */
  async raise(request: RaiseRequest): Promise<EpochAnswer> {
    const raise = async (): Promise<EpochAnswer> =>
      this.#answer(request.address, async () => {
        const { from, to, asker, inSync } = request
        if (!this.#rights.raise(from, to, asker)) return this.#epochAnswer(false, asker)
        if (to > this.replica.acceptedEpoch) await this.replica.acceptEpoch(to, { rebuilding: !inSync })
        return this.#epochAnswer(true, asker)
      })
    return this.#turn.run('an epoch is being stored', raise, this.#patienceMs)
  }

  /** @throws EPOCH_STALE, SESSION_STALE, REPLICA_GONE, DISK_FAILED; REPLICA_BUSY before the time of a call is over */
  async openSession(name: SessionName): Promise<ReplicaSessionDevice> {
    let wanted = true
    const open = async (): Promise<ReplicaSessionDevice> => {
      const session = await this.#openSession(name)
      if (!wanted) session.abort('nobody waits for it any more')
      return session
    }
    const patienceMs = millis(this.#patienceMs * ANSWER_SHARE_OF_CALL)
    try {
      return await this.#turn.run('requests of before are coming to their end', open, patienceMs)
    } finally {
      wanted = false
    }
  }

  async #openSession(name: SessionName): Promise<ReplicaSessionDevice> {
    this.#requireAddress(name.address)
    if (!this.#rights.openSession(name.epoch, name.session)) throw this.#stale(name)
    await this.#endSession('a new session was opened')
    if (this.replica.failure !== undefined) throw this.replica.failure
    const session = new ReplicaSessionDevice(this.replica, name.session, name.epoch)
    this.#session = session
    void session.closed.then(() => {
      if (this.#session === session) this.#rights.closeSession(name.session)
    })
    return session
  }

  /** The regions with a write intent. @throws EPOCH_STALE, SESSION_STALE */
  intents(name: SessionName): RegionSet {
    this.#requireSession(name)
    return this.replica.intents.copy()
  }

  /**
   * Digests of the blocks of a region.
   * @returns null when what is read here might not become durable with a flush
   * @throws EPOCH_STALE, SESSION_STALE, OUT_OF_RANGE, DISK_FAILED
   */
  async digests(name: SessionName, region: RegionIndex): Promise<Uint8Array | null> {
    this.#requireSession(name)
    const offset = (region * REGION_BYTES) as ByteOffset
    const length = Math.max(0, Math.min(REGION_BYTES, this.replica.size - offset))
    if (!this.replica.flushCoversReads) return null
    const bytes = await this.replica.read(offset, Buffer.allocUnsafe(length))
    this.#requireSession(name)
    return digestsOf(bytes)
  }

  /** Clears intents in order with the session's changes. @throws EPOCH_STALE, SESSION_STALE, INVALID_ARGUMENT */
  async clear({ name, upTo, regions, reconciled }: ClearRequest): Promise<void> {
    const session = this.#requireSession(name)
    const clean = new RegionSet(this.replica.intents.size)
    let before = 0
    for (const { first, end } of regions) {
      // Sorted and apart, so that the work is bounded by the volume and not by the message.
      if (first < before || end > clean.size || first > end) {
        throw new XosanError('INVALID_ARGUMENT', {
          what: 'a range of regions',
          reason: 'it is outside of the volume, or out of order',
        })
      }
      for (let region = first; region < end; region++) {
        if (!session.changedAfter(region, upTo)) clean.add(region as RegionIndex)
      }
      before = end
    }
    this.replica.clearIntents(clean)
    if (reconciled && this.replica.mayHaveLost) await this.replica.clearLost()
  }

  /**
   * The primary closes the volume: whatever it sent is flushed, and nothing is owed to it any more.
   * @throws REPLICA_BUSY when that takes longer than a call; it goes on
   */
  async finish({ name, asker, clearIntents }: FinishRequest): Promise<void> {
    const finish = async (): Promise<void> => {
      this.#requireSession(name)
      if (clearIntents) {
        await this.replica.flush()
        this.replica.clearIntents(this.replica.intents.copy())
        if (this.replica.mayHaveLost) await this.replica.clearLost()
      }
      await this.replica.markClean()
      this.#rights.release(name.epoch, asker)
    }
    await this.#turn.run('it is being closed in order', finish, this.#patienceMs)
  }

  /** Ends every session and releases the files. */
  async close(): Promise<void> {
    await this.#turn.run('its files are being closed', async () => {
      await this.#endSession('the replica is closed')
      await this.replica.close()
    })
  }

  /** Whoever sent a message has given up by then. */
  get #patienceMs(): Millis {
    return this.#context.timing.callTimeoutMs
  }

  async #endSession(reason: string): Promise<void> {
    this.#session?.abort(reason)
    this.#session = null
    await this.replica.drained()
  }

  #epochAnswer(granted: boolean, asker: ProcessIdentity): EpochAnswer {
    const { identity, promises } = this.#context
    if (!granted) return { kind: 'refused', identity, accepted: this.#rights.accepted }
    const takenAway = promises.takenAwayFrom(asker.incarnation)
    return { kind: 'ok', identity, takenAway, lostAt: this.replica.lostAt }
  }

  /** Checks that this is the replica that is meant; says so when its disk fails on the way. */
  async #answer<Answer>(
    address: ReplicaAddress,
    action: () => Promise<Answer>
  ): Promise<Answer | { kind: 'gone' | 'failed'; identity: ProcessIdentity; reason: string }> {
    const { identity } = this.#context
    const difference = differenceOf(this.replica, address)
    if (difference !== null) return { kind: 'gone', identity, reason: difference }
    const { failure } = this.replica
    if (failure !== undefined) return { kind: kindOf(failure), identity, reason: reasonOf(failure) }
    try {
      return await action()
    } catch (error) {
      if (hasCode(error, 'REPLICA_CORRUPT')) return { kind: 'gone', identity, reason: error.message }
      if (!hasCode(error, 'DISK_FAILED') && !hasCode(error, 'NO_SPACE')) throw error
      return { kind: 'failed', identity, reason: error.message }
    }
  }

  #requireAddress(address: ReplicaAddress): void {
    const reason = differenceOf(this.replica, address)
    if (reason === null) return
    throw new XosanError('REPLICA_GONE', { volume: address.volume, replica: address.replica, reason })
  }

  #requireSession(name: SessionName): ReplicaSessionDevice {
    this.#requireAddress(name.address)
    const session = this.#session
    // Numbers begin anew with each epoch: a message that comes late must not meet a session of the same number.
    const same = session !== null && session.number === name.session && session.epoch === name.epoch
    if (!same || this.#rights.session !== name.session) throw this.#stale(name)
    return session
  }

  #stale({ epoch, session }: SessionName): XosanError {
    const { accepted } = this.#rights
    if (epoch !== accepted) return new XosanError('EPOCH_STALE', { epoch, accepted })
    return new XosanError('SESSION_STALE', { session, current: this.#rights.session ?? 0 })
  }
}

/** What is damaged is as good as gone; what failed may be well again. */
const kindOf = ({ code }: XosanError): 'gone' | 'failed' => (code === 'REPLICA_CORRUPT' ? 'gone' : 'failed')

/** How a replica differs from the one that is meant; null when it does not. */
function differenceOf(replica: LocalReplica, address: ReplicaAddress): string | null {
  if (replica.replica !== address.replica) return 'another replica of the volume is in its place'
  if (replica.store !== address.store) return 'it is in another store'
  if (replica.layers.at(-1) !== address.layers.at(-1)) return 'it has another top layer'
  return null
}
