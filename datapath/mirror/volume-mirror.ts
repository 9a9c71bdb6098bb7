/**
 * One volume on its primary. The parts: `MirrorState` (core) decides about the guest's requests and the
 * `RequestCarrier` does what it decides; one `ReplicaLink` for each replica keeps it connected; `Membership` takes
 * replicas out and brings them back, and `Reconciliation` says which bytes count after a takeover, both with the
 * `CopyEngine`. Here is how they come to life, and how they end.
 */
import { reasonOf, XosanError } from '../../core/errors.ts'
import { type ProcessIdentity, type Purpose, type ReplicaAddress } from '../../core/mirror/messages.ts'
import { type OpenOutcome, openVolume } from '../../core/mirror/open-procedure.ts'
import { changeRecord } from '../../core/mirror/record-keeper.ts'
import { type MirrorTiming } from '../../core/mirror/timing.ts'
import { closeVolume, replicasOf } from '../../core/mirror/volume-change.ts'
import { type ReplicaRecord } from '../../core/mirror/volume-record.ts'
import { type Wait } from '../../core/mirror/waits.ts'
import { type Clock, pause } from '../../core/ports/clock.ts'
import {
  type ByteLength,
  type ByteOffset,
  type Epoch,
  type Millis,
  type RegionIndex,
  type ReplicaId,
  type SessionNumber,
} from '../../core/units.ts'
import { type Extent } from '../block-device.ts'
import { CopyEngine, type CopyHost } from '../resync/copy-engine.ts'
import { DiskRefusals } from './disk-refusals.ts'
import { IntentRound } from './intent-round.ts'
import { Membership } from './membership.ts'
import { MirrorContext, type MirrorOptions } from './mirror-context.ts'
import {
  isHolding,
  type MirrorPhase,
  replicasOfMirror,
  type ReplicaStatus,
  waitsOf,
} from './mirror-status.ts'
import { openError } from './open-error.ts'
import { Reconciliation } from './reconciliation.ts'
import { Recurring } from './recurring.ts'
import { type LinkOwner, ReplicaLink } from './replica-link.ts'
import { type RequestCarrier } from './request-carrier.ts'
import { within } from './within.ts'

export class VolumeMirror implements LinkOwner, CopyHost {
  readonly #context: MirrorContext
  readonly #reconciliation: Reconciliation
  readonly #membership: Membership
  readonly #refusals: DiskRefusals
  readonly sourceRefused: CopyHost['sourceRefused'] = (...refusal) => this.#refusals.ofSource(...refusal)
  #engine: CopyEngine | null = null
  #phase: MirrorPhase = 'closed'
  #overtaken = false
  #session = 0
  #recurring: Recurring | null = null
  /** Each opening has its own; what belongs to an earlier one finds that it is over. */
  #opening = { over: true }
  #closing: Promise<void> | null = null

  constructor(options: MirrorOptions) {
    this.#context = new MirrorContext(options, {
      hurry: region => {
        this.#context.plan.hurry(region)
        this.#engine?.kick()
      },
      weighRefusals: () => this.#refusals.weigh(),
    })
    this.#reconciliation = new Reconciliation(this.#context)
    this.#refusals = new DiskRefusals(this.#context, this.#reconciliation)
    const isStopped = (): boolean => this.#opening.over
    this.#membership = new Membership(this.#context, this.#reconciliation, {
      get stopped() {
        return isStopped()
      },
      kick: () => this.#engine?.kick(),
      add: record => this.#care(this.#addLink(record)),
      replaced: () => this.#replaced(),
      openAgain: () => this.#openAgain(),
    })
  }

  // -- what others see ------------------------------------------------------------------------------------------

  get phase(): MirrorPhase {
    if (this.#phase !== 'serving') return this.#phase
    if (this.#closing !== null) return 'closing'
    return isHolding(this.#context) ? 'holding' : 'serving'
  }

  /** What it waits for; empty while it serves. */
  waits(): Wait[] {
    return waitsOf(this.#context, this.phase)
  }

  /** It serves no more: it is being closed, or was, or another host took the volume. */
  get ending(): boolean {
    return this.#closing !== null || this.#phase === 'replaced'
  }

  /** Another host has had the volume since this one opened it. */
  get overtaken(): boolean {
    return this.#overtaken
  }

  /** The record names this host, as far as it knows, and somebody serves by it. */
  get holdsRight(): boolean {
    return this.#phase === 'serving'
  }

  /** Size in bytes. @throws INTERNAL before the first open */
  get size(): ByteLength {
    return this.#context.keeper.state.size
  }

  /** Every configured replica is in-sync, and they all hold the same bytes. */
  get allInSync(): boolean {
    return this.#phase === 'serving' && this.#reconciliation.done && this.#context.keeper.allInSync
  }

  replicas(): ReplicaStatus[] {
    return replicasOfMirror(this.#context)
  }

  /** Resolves when something about the replicas, the phase or the record has changed. */
  async changed(): Promise<void> {
    return this.#context.changed.next()
  }

  /** The same, or after a time. */
  async changedWithin(ms: Millis): Promise<void> {
    return this.#context.changed.nextWithin(this.clock, ms)
  }

  // -- open -----------------------------------------------------------------------------------------------------

  /**
   * Becomes the primary and serves.
   * @param deadline moment of the clock after which no new attempt begins
   * @throws ACTIVATED_ON_ANOTHER_HOST, NO_REPLICA_REACHABLE, VOLUME_NOT_FOUND
   */
  async open(deadline: Millis): Promise<void> {
    this.#setPhase('opening')
    const outcome = await this.#openRecord(deadline)
    if (outcome.kind !== 'opened') {
      this.#setPhase('closed')
      throw openError(outcome, this.#context.options)
    }
    const isServing = await this.#establish(outcome).catch((error: unknown) => {
      // Whoever opens the volume next must not find this one at work beside it.
      this.#stop(reasonOf(error))
      this.#setPhase('closed')
      throw error
    })
    const { volume } = this.#context.options
    if (!isServing) throw new XosanError('ACTIVATED_ON_ANOTHER_HOST', { volume, host: 'another' })
  }

  async #openRecord(deadline: Millis): Promise<OpenOutcome> {
    const { identity, purpose, timing, resumed } = this.#context.options
    const cancelled = (): boolean => this.#closing !== null
    const resumes = resumed || this.#context.opened
    this.#context.inquiries.forgetAnswers()
    return this.#context.run(
      openVolume({ host: identity.host, purpose, deadline, timing, cancelled, resumes })
    )
  }

  /**
   * Connects the replicas of an opened volume and serves as soon as every in-sync one has told its intents.
   * @returns whether it serves, or is to be closed; false when another opening has followed, and another host has won
   */
  async #establish({ keeper, accepted }: OpenOutcome & { kind: 'opened' }): Promise<boolean> {
    const opening: { over: boolean } = (this.#opening = { over: false })
    const { state, changed, links, options } = this.#context
    // What the process of before had acknowledged is in doubt once; after that, this one knows what it did.
    if (options.resumed && !this.#context.opened) state.assumeUnflushed()
    this.#context.reset(keeper)
    this.#reconciliation.forget()
    this.#engine = new CopyEngine(this.#context.plan, this, options.batches)
    const losses = [...accepted.values()].map(({ lostAt }) => lostAt)
    state.opened(keeper.state.epoch, losses)
    state.keepLinks(new Set(replicasOf(keeper.state).map(({ replica }) => replica)))
    for (const record of replicasOf(keeper.state)) {
      const link = this.#addLink(record)
      const answer = accepted.get(record.replica)
      link.boot = answer?.identity.boot ?? null
      link.lostAt = answer?.lostAt ?? null
    }
    this.#context.syncStandings()
    for (const link of links.values()) this.#care(link)
    const round = new IntentRound(this.#context)
    const recurring = (this.#recurring = new Recurring(this.clock))
    recurring.every(options.timing.heartbeatIntervalMs, () => this.#context.checkSilence())
    recurring.every(options.timing.rejoinIntervalMs, () => this.#refusals.retry())
    recurring.every(options.timing.clearIntervalMs, () => void round.run())

    while (!opening.over && this.#closing === null && !this.#allReady()) await changed.next()
    if (opening.over) {
      // Every in-sync replica lost power meanwhile: the opening that follows decides.
      while (this.#phase === 'opening') await changed.next()
      return this.#phase === 'serving'
    }
    // Closed before it could serve: nothing was written, so there is nothing but the record to put right.
    if (this.#closing === null) {
      this.#reconciliation.begin()
      this.#engine.kick()
    }
    this.#setPhase('serving')
    return true
  }

  #allReady(): boolean {
    return this.#context.relied().every(link => link.session !== null && link.intents !== null)
  }

  /** Opens like after a crash: every in-sync replica that answers has lost power. A flush tells the guest what was lost. */
  #openAgain(): void {
    this.#context.log('opening again')
    this.#stop('every in-sync replica was lost')
    this.#setPhase('opening')
    void this.#openUntilDecided()
  }

  /** Goes on until it is decided: nobody else asks again for a guest that waits. */
  async #openUntilDecided(): Promise<void> {
    for (;;) {
      try {
        const outcome = await this.#openRecord(Number.POSITIVE_INFINITY as Millis)
        if (outcome.kind === 'opened') await this.#establish(outcome)
        // Told to end: the record may still name this host, and closing puts that right.
        else this.#setPhase(this.#closing === null ? 'replaced' : 'serving')
        return
      } catch (error) {
        // The record cannot be understood, say: somebody has to mend it, or to bring a newer version.
        this.#context.log('opening again waits', { reason: reasonOf(error) })
        this.#stop(reasonOf(error))
        await pause(this.clock, this.timing.rejoinIntervalMs)
      }
    }
  }

  // -- close ----------------------------------------------------------------------------------------------------

  /**
   * Ends the service in order: everything flushed, intents cleared, the record without a primary.
   * @throws DEADLINE_EXCEEDED when it is not done by then; it goes on, and a further call waits for it
   */
  async close(deadlineMs: Millis): Promise<void> {
    this.#closing ??= this.#close()
    this.#context.changed.notify()
    await within(this.clock, deadlineMs, 'Closing the volume', this.#closing)
  }

  async #close(): Promise<void> {
    while (this.#phase === 'opening') await this.#context.changed.next()
    if (this.#phase === 'serving') {
      await this.#finish()
      this.#setPhase('closing')
      await this.#giveUpRight()
    }
    this.#stop('the volume was closed')
    this.#setPhase('closed')
  }

  /**
   * Nothing is under way any more, and all of it is durable everywhere. A write that is on one replica and not on
   * another would be forgotten with its intent, so the intents go only after the last answer.
   */
  async #finish(): Promise<void> {
    const { state, changed, keeper, options } = this.#context
    if (!state.serving) return
    const reconciled = (): boolean => this.#context.unreconciled.isEmpty
    state.hold()
    this.#engine?.stop()
    while (!this.#opening.over) {
      if (state.runningCount > 0) {
        await changed.next()
        continue
      }
      const relied = this.#context.relied()
      const names = relied.map(link => link.name)
      try {
        await Promise.all(relied.map(async link => link.flush()))
      } catch {
        // A replica was lost: it comes back, or is taken out, and then the others are asked.
        await changed.nextWithin(this.clock, this.timing.retryDelayMs)
        continue
      }
      const clearIntents = keeper.allInSync && reconciled()
      await Promise.all(
        relied.map(async ({ peer }, index) => {
          // Only a convenience for the next open, which asks each replica anyway.
          const request = { name: names[index]!, asker: options.identity, clearIntents }
          await peer.finish(request).catch(() => undefined)
        })
      )
      return
    }
  }

  async #giveUpRight(): Promise<void> {
    const { keeper } = this.#context
    await this.#membership.undisturbed(async () => {
      const { epoch } = keeper.state
      const outcome = await this.#context.run(
        changeRecord(keeper, {
          decide: closeVolume,
          // At another epoch the right is not the one that this opening got.
          isDone: state => state.primary !== this.identity.host || state.epoch !== epoch,
          mayGiveUp: () => false,
          retryDelayMs: this.timing.retryDelayMs,
        })
      )
      // Whoever opens a volume raises its epoch, and who closes it does not.
      this.#overtaken ||= outcome.kind !== 'changed' || keeper.state.epoch !== epoch
    })
  }

  /** Stops everything at once and leaves the record as it is. */
  #stop(reason: string): void {
    const { state, links, changed } = this.#context
    this.#opening.over = true
    this.#recurring?.stop()
    state.hold()
    this.#engine?.stop()
    for (const link of links.values()) {
      link.stop(reason)
      state.disconnected(link.record.replica)
    }
    links.clear()
    this.#reconciliation.forget()
    changed.notify()
  }

  /** Another host is the primary. What the client asked stays open: to fail it would be an error that is none. */
  #replaced(): void {
    this.#context.log('replaced')
    this.#overtaken = true
    const wasClosing = this.#phase === 'closing'
    this.#stop('another host took the volume')
    if (!wasClosing) this.#setPhase('replaced')
  }

  #setPhase(phase: MirrorPhase): void {
    this.#phase = phase
    if (phase === 'replaced') this.#overtaken = true
    this.#context.changed.notify()
  }

  // -- requests of the guest ------------------------------------------------------------------------------------

  get requests(): RequestCarrier {
    return this.#context.carrier
  }

  /** Extents of a range; what cannot be known now counts as data. */
  async allocation(offset: ByteOffset, length: ByteLength): Promise<Extent[]> {
    const all = [{ length, hole: false, zero: false }]
    const session = this.#reconciliation.done ? this.source()?.session : null
    if (session == null) return all
    const extents = await session.allocation(offset, length).catch(() => all)
    return this.#context.state.promisesHold(this.clock.now()) ? extents : all
  }

  // -- for the links --------------------------------------------------------------------------------------------

  get clock(): Clock {
    return this.#context.options.clock
  }
  get timing(): MirrorTiming {
    return this.#context.options.timing
  }
  get identity(): ProcessIdentity {
    return this.#context.options.identity
  }
  get purpose(): Purpose {
    return this.#context.options.purpose
  }
  get reconciled(): boolean {
    return this.#reconciliation.done
  }

  epoch(): Epoch {
    return this.#context.keeper.state.epoch
  }

  address(record: ReplicaRecord): ReplicaAddress {
    return this.#context.addressOf(record, this.#context.keeper.state)
  }

  nextSession(): SessionNumber {
    return ++this.#session as SessionNumber
  }

  mustAcknowledge(link: ReplicaLink): boolean {
    return this.#context.mustAcknowledge(link)
  }

  connected(link: ReplicaLink): void {
    this.#context.state.connected(link.record.replica)
    this.#context.troubles.delete(link.record.replica)
    if (this.#context.state.serving) this.#reconciliation.update(link)
    this.#context.carrier.drain()
    this.#engine?.kick()
    this.#context.changed.notify()
  }

  notConnected(link: ReplicaLink, reason: string): void {
    const { links, troubles } = this.#context
    const { replica } = link.record
    if (links.get(replica) !== link) return
    if (!troubles.has(replica)) this.#context.logOf('replica not connected', link, reason)
    troubles.set(replica, reason)
  }

  disconnected(link: ReplicaLink, reason: string): void {
    const { links, plan, state } = this.#context
    const { replica } = link.record
    if (links.get(replica) !== link) return
    this.#context.troubles.set(replica, reason)
    link.rebuilding = false
    if (!this.mustAcknowledge(link)) plan.drop(replica)
    state.disconnected(replica)
    this.#context.syncStandings()
    if (state.serving) this.#reconciliation.update(link)
    this.#context.logOf('replica disconnected', link, reason)
    this.#engine?.kick()
  }

  promised(link: ReplicaLink, until: Millis): void {
    const { links, state, carrier, changed } = this.#context
    if (links.get(link.record.replica) !== link) return
    const before = state.runningCount
    state.promised(link.record.replica, until)
    carrier.drain()
    // Changes that waited for nothing but this have ended, and a close may wait for that.
    if (state.runningCount !== before) changed.notify()
  }

  async exclude(link: ReplicaLink, reason: string): Promise<void> {
    return this.#membership.exclude(link, reason)
  }

  async raise(): Promise<void> {
    return this.#membership.raise()
  }

  async replace(link: ReplicaLink, reason: string): Promise<void> {
    return this.#membership.replace(link, reason)
  }

  async rebuild(link: ReplicaLink): Promise<void> {
    return this.#membership.rebuild(link)
  }

  // -- for the copy engine --------------------------------------------------------------------------------------

  get guestBusy(): boolean {
    return this.#context.carrier.guestBusy
  }

  async lock(offset: ByteOffset, length: ByteLength): Promise<() => void> {
    return this.#context.carrier.lock(offset, length)
  }

  source(): ReplicaLink | null {
    return this.#context.state.serving ? this.#reconciliation.source : null
  }

  link(replica: ReplicaId): ReplicaLink | undefined {
    return this.#context.links.get(replica)
  }

  isUnreconciled(region: RegionIndex): boolean {
    return this.#context.unreconciled.has(region)
  }

  copied(region: RegionIndex): void {
    this.#reconciliation.copied(region)
    this.#context.changed.notify()
  }

  // -- inner ----------------------------------------------------------------------------------------------------

  #addLink(record: ReplicaRecord): ReplicaLink {
    const link = new ReplicaLink(record, this.#context.options.peer(record.host), this)
    this.#context.links.set(record.replica, link)
    this.#context.state.addLink(record.replica, link.peer.local)
    return link
  }

  #care(link: ReplicaLink): void {
    link.run().catch(async (error: unknown) => {
      // A record that cannot be understood, say. The volume waits, and the others of this process go on.
      this.#context.logOf('caring for a replica failed', link, reasonOf(error))
      await pause(this.clock, this.timing.rejoinIntervalMs)
      if (this.#context.links.get(link.record.replica) === link) this.#care(link)
    })
  }
}
