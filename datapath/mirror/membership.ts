/**
 * Who is in-sync: takes replicas out, and brings them back. One change at a time, each through the record first.
 */
import { changeMembershipOf } from '../../core/mirror/membership-procedure.ts'
import { changeMembership, replaceReplica, replicasOf } from '../../core/mirror/volume-change.ts'
import { type ReplicaRecord, type VolumeState } from '../../core/mirror/volume-record.ts'
import { type Epoch, type ReplicaId } from '../../core/units.ts'
import { type MirrorContext } from './mirror-context.ts'
import { type Reconciliation } from './reconciliation.ts'
import { type ReplicaLink } from './replica-link.ts'
import { type ReplicaSession } from './replica-peer.ts'
import { Mutex } from './signal.ts'

/** Whether to give up when the coordinator cannot be reached and certainly did nothing; asked before each new try. */
type MayGiveUp = () => boolean

const atOnce: MayGiveUp = () => true
const never: MayGiveUp = () => false

/** What only the mirror as a whole can do. */
interface MembershipOwner {
  /** True once the opening that this belongs to is over. */
  readonly stopped: boolean
  /** Regions are there to be copied, or replicas to copy them. */
  kick(): void
  /** Adds a replica and cares for it. */
  add(record: ReplicaRecord): void
  /** Another host is the primary. */
  replaced(): void
  /** Every in-sync replica has lost power: opens the volume like after a crash. */
  openAgain(): void
}

export class Membership {
  readonly #context: MirrorContext
  readonly #reconciliation: Reconciliation
  readonly #owner: MembershipOwner
  readonly #turn = new Mutex()

  constructor(context: MirrorContext, reconciliation: Reconciliation, owner: MembershipOwner) {
    this.#context = context
    this.#reconciliation = reconciliation
    this.#owner = owner
  }

  /** Runs an action while nobody changes the membership. */
  async undisturbed<Result>(action: () => Promise<Result>): Promise<Result> {
    return this.#turn.run(action)
  }

  /**
   * Takes a replica out of the in-sync set, if one that holds everything stays and answers. Else nothing happens: the
   * volume waits for this one or for another.
   *
   * The one that stays first flushes. The replica that goes may hold acknowledged writes in its page cache that the
   * other has lost in a power cut nobody has noticed yet; a flush in an unbroken session says that it has not, and
   * that it will not lose them later either.
   */
  async exclude(link: ReplicaLink, reason: string): Promise<void> {
    const { links, plan, state } = this.#context
    const { replica } = link.record
    await this.#turn.run(async () => {
      // While it waited for its turn the volume may have been opened anew, with another link to the same replica.
      if (this.#owner.stopped || links.get(replica) !== link || !this.#context.mustAcknowledge(link)) return
      const others = [...links.values()].filter(other => other !== link && this.#context.mayBeRead(other))
      const whole = others.filter(other => this.#reconciliation.isWhole(other) && !other.hasLost)
      if (!whole.some(({ session }) => session !== null)) {
        // With nobody left who has lost nothing, it is a takeover, in which the one that lost least is found.
        if (link.hasLost && whole.length === 0) this.#owner.openAgain()
        return
      }
      state.acknowledgeOnlyDurable(true)
      try {
        if (!(await this.#flushOneOf(whole)) || !this.#context.mustAcknowledge(link)) return
        this.#context.logOf('replica taken out', link, reason)
        // Without the coordinator it is tried once: the replica may be back before the coordinator is.
        const done = await this.#change(record => record.inSync && record.replica !== replica, atOnce)
        if (done) plan.drop(replica)
      } finally {
        state.acknowledgeOnlyDurable(false)
        this.#context.carrier.drain()
      }
    })
  }

  /** @returns whether one of the replicas has made durable all that it holds; those that fail are disconnected */
  async #flushOneOf(links: readonly ReplicaLink[]): Promise<boolean> {
    return Promise.any(links.map(async link => link.flush())).then(
      () => true,
      () => false
    )
  }

  /** Raises the epoch and changes nothing else: a contender's reservation is void by it. */
  async raise(): Promise<void> {
    await this.#turn.run(async () => {
      if (!this.#owner.stopped) await this.#change(record => record.inSync, never)
    })
  }

  /** Gives a host whose replica is lost a new one. It becomes in-sync like any stale one, by a copy in full. */
  async replace(link: ReplicaLink, reason: string): Promise<void> {
    const { options, keeper, links, state } = this.#context
    const { random, identity, sr, volume } = options
    const { layers, size } = keeper.state
    const wanted = random.uuid() as ReplicaId
    const lost = link.record.replica
    // Since the replica was asked the volume may have been opened anew, with another link to it, which asks for itself.
    const isCurrent = (): boolean => links.get(lost) === link
    const address = { sr, volume, replica: wanted, layers, size }
    const { store, replica } = await link.peer.create(address, false, lost)
    await this.#turn.run(async () => {
      if (this.#owner.stopped || !isCurrent() || this.#context.mustAcknowledge(link)) return
      this.#context.logOf('replica replaced', link, reason)
      const done = await this.#changeRecord(
        (record, from) =>
          replaceReplica(record, identity.host, from, random.uuid(), lost, { replica, store }),
        never
      )
      if (!done || !isCurrent()) return
      link.stop('it was replaced')
      links.delete(lost)
      state.removeLink(lost)
      const record = replicasOf(this.#context.keeper.state).find(other => other.replica === replica)
      if (record !== undefined) this.#owner.add(record)
      this.#context.syncStandings()
    })
  }

  /**
   * Copies to a connected stale replica what it lacks and puts it back.
   * @throws when its session is lost: then all of it begins anew, from the intents
   */
  async rebuild(link: ReplicaLink): Promise<void> {
    const { plan, clearing, changed, state, unreconciled } = this.#context
    const { replica } = link.record
    const session = new Watched(link.session!, () => changed.notify())
    this.#context.troubles.delete(replica)
    // New writes first, then the question what it missed before: so nothing falls between.
    link.rebuilding = true
    this.#context.syncStandings()
    state.connected(replica)
    this.#context.carrier.drain()
    // A change that was sent before is among the source's intents only once the source has answered it.
    const upTo = state.lastNumber
    while (!state.serving || !this.#sourceHas(upTo)) await session.orLost(changed.next())
    const source = this.#reconciliation.source!
    const missed = await source.peer.intents(source.name!)
    session.check()
    missed.union(link.intents!)
    // Where in-sync replicas may still differ this one is like some of them at best, and not like those that another
    // source would make them.
    missed.union(unreconciled)
    for (const region of link.unreadable) missed.add(region)
    clearing.inherited(missed)
    plan.add(replica, missed)
    this.#context.log('rebuilding', { replica, regions: missed.count })
    this.#owner.kick()
    while (plan.needs(replica)) await session.orLost(changed.next())
    await this.#putBack(link, session)
  }

  /** Whether there is a source, and it has answered every change up to a number. */
  #sourceHas(upTo: number): boolean {
    const { source } = this.#reconciliation
    return source !== null && this.#context.state.caughtUp(source.record.replica, upTo)
  }

  /**
   * Puts a replica that has been rebuilt back among those that count. From here it must acknowledge; what was sent
   * to it before is finished; everything that it has is durable; only then does the record say so.
   */
  async #putBack(link: ReplicaLink, session: Watched): Promise<void> {
    const { state, changed, plan } = this.#context
    const { replica } = link.record
    await this.#turn.run(async () => {
      session.check()
      link.promoted = true
      try {
        this.#context.syncStandings()
        const upTo = state.lastNumber
        while (!state.caughtUp(replica, upTo)) await session.orLost(changed.next())
        await link.flush()
        session.check()
        // Before it counts: what it says of a loss that is made good could make the volume wait for another one.
        await link.tellReconciled()
        session.check()
        // Once the session is lost its host may have lost power, and with it what came after the flush. What was tried
        // before, and may have been done, is settled by a change without it.
        const inSync = (record: ReplicaRecord): boolean =>
          record.inSync || (record.replica === replica && !session.isLost)
        const isChanged = await this.#change(inSync, () => session.isLost)
        if (!isChanged || !this.#context.isInSync(replica)) throw new Error('the record did not change')
        plan.drop(replica)
        link.unreadable.clear()
        this.#context.logOf('replica is in-sync', link, '')
      } finally {
        link.promoted = false
        this.#context.syncStandings()
      }
    })
  }

  /**
   * Changes who is in-sync, with the turn held.
   * @returns whether the record says so now
   */
  async #change(inSync: (record: ReplicaRecord) => boolean, mayGiveUp: MayGiveUp): Promise<boolean> {
    const { identity, random } = this.#context.options
    return this.#changeRecord(
      (state, from) => changeMembership(state, identity.host, from, random.uuid(), inSync),
      mayGiveUp
    )
  }

  async #changeRecord(
    change: (state: VolumeState, from: Epoch) => VolumeState | null,
    mayGiveUp: MayGiveUp
  ): Promise<boolean> {
    const { options, keeper, links } = this.#context
    const { identity, timing } = options
    const isOver = (): boolean => this.#owner.stopped || mayGiveUp()
    const steps = changeMembershipOf(keeper, identity.host, change, isOver, timing.retryDelayMs)
    const outcome = await this.#context.run(steps)
    if (this.#owner.stopped) return false
    if (outcome.kind === 'replaced') this.#owner.replaced()
    if (outcome.kind !== 'changed') {
      // What was begun counts no more, on either side.
      if (outcome.kind !== 'replaced') this.#context.syncStandings()
      return false
    }
    for (const replica of outcome.behind) links.get(replica)?.session?.abort('it did not store the new epoch')
    this.#context.log('membership changed', { epoch: keeper.state.epoch })
    this.#reconciliation.recordChanged()
    this.#context.syncStandings()
    this.#owner.kick()
    return true
  }
}

/** A session that a rebuild depends on from its first to its last step. */
class Watched {
  #lost: string | null = null

  /** @param changed called when the session ends */
  constructor(session: ReplicaSession, changed: () => void) {
    void session.closed.then(reason => {
      this.#lost = reason
      changed()
    })
  }

  get isLost(): boolean {
    return this.#lost !== null
  }

  /** @throws when the session has ended */
  check(): void {
    if (this.#lost !== null) throw new Error(this.#lost)
  }

  /** Waits for something, and fails when the session has ended meanwhile. */
  async orLost(what: Promise<void>): Promise<void> {
    this.check()
    await what
    this.check()
  }
}
