/**
 * One volume on its primary: asks `core/mirror` what to do, does it, and reports back what came of it.
 *
 * The parts: `MirrorState` decides about the guest's requests; procedures of the core change the record; one
 * `ReplicaLink` for each replica keeps it connected or brings it back; the `CopyEngine` makes replicas the same.
 */
import { reasonOf, XosanError } from '../../core/errors.ts'
import { changeMembershipOf } from '../../core/mirror/membership-procedure.ts'
import { type ProcessIdentity, type Purpose, type ReplicaAddress } from '../../core/mirror/messages.ts'
import { MirrorState, type MirrorRequest, type RequestShape } from '../../core/mirror/mirror-state.ts'
import { type OpenOutcome, openVolume } from '../../core/mirror/open-procedure.ts'
import { changeRecord, type RecordKeeper } from '../../core/mirror/record-keeper.ts'
import { RegionSet } from '../../core/mirror/region-set.ts'
import { ResyncPlan } from '../../core/mirror/resync-plan.ts'
import { type Step, type Steps } from '../../core/mirror/steps.ts'
import { type MirrorTiming } from '../../core/mirror/timing.ts'
import { changeMembership, closeVolume, replaceReplica, replicasOf } from '../../core/mirror/volume-change.ts'
import { type ReplicaRecord, type VolumeState } from '../../core/mirror/volume-record.ts'
import { IntentClearing } from '../../core/mirror/write-intent.ts'
import { type Clock, type Timer } from '../../core/ports/clock.ts'
import { type Random } from '../../core/ports/random.ts'
import {
  type ByteLength,
  type ByteOffset,
  type Epoch,
  type HostId,
  type Millis,
  REGION_BYTES,
  type RegionIndex,
  type ReplicaId,
  type SessionNumber,
  type SrId,
  type VolumeKey,
} from '../../core/units.ts'
import { type Extent } from '../block-device.ts'
import { CopyEngine, type CopyHost } from '../resync/copy-engine.ts'
import { performStep, runSteps } from './procedure-runner.ts'
import { type RecordStore } from './record-store.ts'
import { type LinkOwner, ReplicaLink } from './replica-link.ts'
import { type ReplicaPeer } from './replica-peer.ts'
import { Mutex, pause, Signal } from './signal.ts'

export interface MirrorOptions {
  readonly sr: SrId
  readonly volume: VolumeKey
  readonly identity: ProcessIdentity
  readonly purpose: Purpose
  readonly clock: Clock
  readonly random: Random
  readonly records: RecordStore
  readonly peer: (host: HostId) => ReplicaPeer
  readonly timing: MirrorTiming
  readonly log: (event: string, facts: Readonly<Record<string, string | number>>) => void
}

export type MirrorPhase = 'closed' | 'opening' | 'serving' | 'holding' | 'closing' | 'replaced'

export interface ReplicaStatus {
  readonly host: HostId
  readonly replica: ReplicaId
  readonly state: 'in-sync' | 'stale' | 'rebuilding'
  /** Regions to bring over and those done; both 0 when no resync is under way. */
  readonly totalRegions: number
  readonly doneRegions: number
}

/** A request of the guest as the mirror carries it. */
interface Carried {
  readonly shape: RequestShape & { readonly keepAllocated?: boolean }
  /** Bytes to write, or the buffer to fill. */
  readonly data: Uint8Array | null
  readonly resolve: () => void
  readonly reject: (error: Error) => void
}

/** Stands for the copies that the reads after a takeover wait for, whoever their targets are. */
const RECONCILE = 'reconcile' as ReplicaId

export class VolumeMirror implements LinkOwner, CopyHost {
  readonly #options: MirrorOptions
  #state = new MirrorState()
  #keeper: RecordKeeper | null = null
  readonly #links = new Map<ReplicaId, ReplicaLink>()
  readonly #carried = new Map<MirrorRequest, Carried>()
  #plan = new ResyncPlan(0)
  #engine: CopyEngine | null = null
  #clearing = new IntentClearing(0)
  #unreconciled = new RegionSet(0)
  #source: ReplicaLink | null = null
  #phase: MirrorPhase = 'closed'
  #session = 0
  #timers: Timer[] = []
  /** Each opening has its own; links of an earlier one find that theirs is over. */
  #generation = { over: true }
  readonly #membership = new Mutex()
  readonly #changed = new Signal()
  #closing: Promise<void> | null = null
  #guestRequests = 0
  #clearingNow = false

  constructor(options: MirrorOptions) {
    this.#options = options
  }

  // -- what others see ----------------------------------------------------------------------------------------------

  get clock(): Clock {
    return this.#options.clock
  }
  get timing(): MirrorTiming {
    return this.#options.timing
  }
  get identity(): ProcessIdentity {
    return this.#options.identity
  }
  get purpose(): Purpose {
    return this.#options.purpose
  }
  get stopped(): boolean {
    return this.#generation.over
  }
  get guestBusy(): boolean {
    return this.#guestRequests > 0
  }

  get phase(): MirrorPhase {
    if (this.#phase !== 'serving') return this.#phase
    return this.#state.heldCount > 0 || !this.#state.serving ? 'holding' : 'serving'
  }

  /** Size in bytes; 0 before the first open. */
  get size(): ByteLength {
    return this.#keeper?.state.size ?? (0 as ByteLength)
  }

  get allInSync(): boolean {
    return this.#keeper?.allInSync === true && this.#unreconciled.isEmpty && this.#phase === 'serving'
  }

  epoch(): Epoch {
    return this.#record().state.epoch
  }

  replicas(): ReplicaStatus[] {
    if (this.#keeper === null) return []
    return replicasOf(this.#keeper.state).map(({ host, replica, inSync }) => {
      const progress = this.#plan.progress(replica)
      const state = inSync ? 'in-sync' : progress === null ? 'stale' : 'rebuilding'
      return { host, replica, state, totalRegions: progress?.total ?? 0, doneRegions: progress?.done ?? 0 }
    })
  }

  get reconciled(): boolean {
    return this.#state.serving && this.#unreconciled.isEmpty
  }

  /** Resolves when something about the replicas, the phase or the record has changed. */
  async changed(): Promise<void> {
    return this.#changed.next()
  }

  // -- open and close -------------------------------------------------------------------------------------------------

  /**
   * Becomes the primary and serves.
   * @param deadline moment of the clock after which no new attempt begins
   * @throws ACTIVATED_ON_ANOTHER_HOST, NO_REPLICA_REACHABLE, VOLUME_NOT_FOUND
   */
  async open(deadline: Millis): Promise<void> {
    this.#phase = 'opening'
    const outcome = await this.#openRecord(deadline)
    if (outcome.kind !== 'opened') {
      this.#phase = 'closed'
      this.#changed.notify()
      throw this.#openError(outcome)
    }
    await this.#establish(outcome)
  }

  async #openRecord(deadline: Millis): Promise<OpenOutcome> {
    const { identity, purpose, timing } = this.#options
    return this.#run(
      openVolume({ host: identity.host, purpose, deadline, timing, cancelled: () => this.#closing !== null })
    )
  }

  #openError(outcome: Exclude<OpenOutcome, { kind: 'opened' }>): XosanError {
    const { sr, volume } = this.#options
    switch (outcome.kind) {
      case 'active-elsewhere':
        return new XosanError('ACTIVATED_ON_ANOTHER_HOST', { volume, host: outcome.host })
      case 'missing':
        return new XosanError('VOLUME_NOT_FOUND', { volume, sr })
      case 'deadline':
      case 'refused':
        return new XosanError('NO_REPLICA_REACHABLE', { volume, reason: outcome.reason })
    }
  }

  /** Connects the replicas of an opened volume and serves as soon as every in-sync one has told its intents. */
  async #establish(outcome: OpenOutcome & { kind: 'opened' }): Promise<void> {
    const generation = { over: false }
    this.#generation = generation
    this.#keeper = outcome.keeper
    const { state } = outcome.keeper
    const regions = Math.ceil(state.size / REGION_BYTES)
    this.#plan = new ResyncPlan(regions)
    this.#engine = new CopyEngine(this.#plan, this)
    this.#clearing = new IntentClearing(regions)
    this.#unreconciled = new RegionSet(regions)
    this.#source = null
    if ([...outcome.accepted.values()].every(answer => answer.lostAt !== null)) this.#state.lostUnflushed()
    for (const record of replicasOf(state)) {
      const link = this.#addLink(record)
      const answer = outcome.accepted.get(record.replica)
      link.boot = answer?.identity.boot ?? null
      link.lostAt = answer?.lostAt ?? null
    }
    this.#syncStandings()
    for (const link of this.#links.values()) this.#care(link)
    this.#every(this.#options.timing.heartbeatIntervalMs, () => this.#watch())
    this.#every(this.#options.timing.clearIntervalMs, () => void this.#clearIntents())

    while (!generation.over && this.#closing === null && !this.#allReady()) await this.#changed.next()
    if (generation.over)
      throw new XosanError('ACTIVATED_ON_ANOTHER_HOST', { volume: this.#options.volume, host: '' })
    // Closed before it could serve: nothing was written, so there is nothing but the record to put right.
    if (this.#closing === null) this.#beginService()
    this.#phase = 'serving'
    this.#changed.notify()
  }

  #allReady(): boolean {
    for (const link of this.#links.values()) {
      if (this.mustAcknowledge(link) && (link.session === null || link.intents === null)) return false
    }
    return true
  }

  #beginService(): void {
    const relied = [...this.#links.values()].filter(link => this.mustAcknowledge(link))
    for (const link of relied) this.#unreconciled.union(link.intents!)
    this.#clearing.inherited(this.#unreconciled)
    this.#chooseSource()
    if (!this.#unreconciled.isEmpty) this.#plan.add(RECONCILE, this.#unreconciled.copy())
    for (const link of relied) {
      if (link !== this.#source) this.#plan.add(link.record.replica, this.#unreconciled.copy())
    }
    this.#phase = 'serving'
    this.#state.serve(this.#unreconciled)
    this.#drain()
    this.#engine!.kick()
  }

  /**
   * The replica whose bytes count while others may differ: one that has lost nothing, else the one that lost power
   * earliest; of equal ones the local one.
   */
  #chooseSource(): void {
    let best: ReplicaLink | null = null
    for (const link of this.#links.values()) {
      if (!this.#mayBeRead(link) || link.session === null) continue
      const ahead = best === null ? 1 : lossOf(best) - lossOf(link)
      if (ahead > 0 || (ahead === 0 && link.peer.local)) best = link
    }
    // Before everything is reconciled, none that has lost more may stand in for one that is away for a moment.
    if (best !== null && this.#source !== null && lossOf(best) > lossOf(this.#source)) {
      if (!this.#unreconciled.isEmpty) best = null
    }
    if (best === null && !this.#unreconciled.isEmpty) return
    const before = this.#source
    this.#source = best
    if (best !== null) this.#plan.drop(best.record.replica)
    if (before !== null && before !== best && this.mustAcknowledge(before) && !this.#unreconciled.isEmpty) {
      // What counted until now is a copy like the others where nothing was copied yet.
      this.#plan.add(before.record.replica, this.#unreconciled.copy())
    }
  }

  /**
   * Ends the service in order: everything flushed, intents cleared, the record without a primary.
   * @throws DEADLINE_EXCEEDED when it is not done by then; it goes on, and a further call waits for it
   */
  async close(deadlineMs: Millis): Promise<void> {
    if (this.#phase === 'closed' && this.#closing === null) return
    this.#closing ??= this.#close()
    let timer: Timer | undefined
    const late = new Promise<never>((_, reject) => {
      timer = this.clock.after(deadlineMs, () =>
        reject(new XosanError('DEADLINE_EXCEEDED', { what: 'Closing the volume', deadlineMs }))
      )
    })
    try {
      await Promise.race([this.#closing, late])
    } finally {
      timer?.cancel()
    }
  }

  async #close(): Promise<void> {
    while (this.#phase === 'opening') await this.#changed.next()
    if (this.#phase === 'serving') {
      await this.#finish()
      this.#phase = 'closing'
      this.#changed.notify()
      await this.#giveUpRight()
    }
    this.#stop('the volume was closed')
    this.#phase = 'closed'
    this.#changed.notify()
  }

  /**
   * Nothing is under way any more, and all of it is durable everywhere. A write that is on one replica and not on
   * another would be forgotten with its intent, so the intents go only after the last answer.
   */
  async #finish(): Promise<void> {
    if (!this.#state.serving) return
    this.#state.hold()
    this.#engine?.stop()
    while (!this.stopped) {
      while (this.#state.runningCount > 0 && !this.stopped) await this.#changed.next()
      const relied = [...this.#links.values()].filter(link => this.mustAcknowledge(link))
      const names = relied.map(link => link.name)
      try {
        await Promise.all(relied.map(async link => this.#flushLink(link)))
      } catch {
        // A replica was lost: it comes back, or is taken out, and then the others are asked.
        await Promise.race([this.#changed.next(), pause(this.clock, this.timing.retryDelayMs)])
        continue
      }
      const clearIntents = this.#keeper?.allInSync === true && this.#unreconciled.isEmpty
      const { identity: asker } = this.#options
      await Promise.all(
        relied.map(async ({ peer }, index) => {
          // Only a convenience for the next open, which asks each replica anyway.
          await peer.finish({ name: names[index]!, asker, clearIntents }).catch(() => undefined)
        })
      )
      return
    }
  }

  async #flushLink({ session }: ReplicaLink): Promise<void> {
    if (session === null) throw new Error('the replica is away')
    await session.flush()
  }

  async #giveUpRight(): Promise<void> {
    const { identity, timing } = this.#options
    await this.#membership.run(async () => {
      const keeper = this.#record()
      const epoch = keeper.state.epoch
      await this.#run(
        changeRecord(keeper, {
          decide: state => closeVolume(state, identity.host, epoch),
          isDone: state => state.primary !== identity.host,
          mayGiveUp: () => false,
          retryDelayMs: timing.retryDelayMs,
        })
      )
    })
  }

  /** Stops everything at once and leaves the record as it is: the process ends, or another host took the volume. */
  #stop(reason: string): void {
    this.#generation.over = true
    for (const timer of this.#timers) timer.cancel()
    this.#timers = []
    this.#state.hold()
    this.#engine?.stop()
    for (const link of this.#links.values()) {
      link.stop(reason)
      this.#state.disconnected(link.record.replica)
    }
    this.#links.clear()
    this.#source = null
    this.#changed.notify()
  }

  /** Another host is the primary. What the client asked stays open: to fail it would be an error that is none. */
  #replaced(): void {
    if (this.#phase === 'replaced' || this.#phase === 'closed') return
    this.#options.log('replaced', { volume: this.#options.volume })
    if (this.#phase !== 'closing') this.#phase = 'replaced'
    this.#stop('another host took the volume')
  }

  // -- requests of the guest --------------------------------------------------------------------------------------------

  async read(offset: ByteOffset, into: Uint8Array): Promise<void> {
    if (into.length === 0) return
    const shape = { kind: 'read', offset, length: into.length as ByteLength, durable: false } as const
    return this.#submit(shape, into)
  }

  /** @param change what the device was asked, with the bytes of a write */
  async change(
    kind: 'write' | 'zero' | 'trim',
    change: { offset: ByteOffset; length: ByteLength; durable: boolean; keepAllocated?: boolean },
    data: Uint8Array | null
  ): Promise<void> {
    if (change.length === 0) return
    return this.#submit({ kind, ...change }, data)
  }

  async flush(): Promise<void> {
    return this.#submit(
      { kind: 'flush', offset: 0 as ByteOffset, length: 0 as ByteLength, durable: true },
      null
    )
  }

  /** Extents of a range; what cannot be known now counts as data. */
  async allocation(offset: ByteOffset, length: ByteLength): Promise<Extent[]> {
    const all = [{ length, hole: false, zero: false }]
    const session = this.source()?.session
    if (session == null || !this.#unreconciled.isEmpty || !this.#state.promisesHold(this.clock.now()))
      return all
    const extents = await session.allocation(offset, length).catch(() => all)
    return this.#state.promisesHold(this.clock.now()) ? extents : all
  }

  async #submit(shape: Carried['shape'], data: Uint8Array | null): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      this.#guestRequests++
      const request = this.#state.submit(shape)
      // The client may use its buffer again once it is answered, while a replica that nobody waits for still needs
      // the bytes.
      const lasting =
        data !== null && shape.kind === 'write' && this.#anyRebuilding() ? Uint8Array.from(data) : data
      this.#carried.set(request, { shape, data: lasting, resolve, reject })
      if (request.access === 'change' && shape.kind !== 'flush')
        this.#clearing.written(shape.offset, shape.length)
      this.#drain()
    })
  }

  #anyRebuilding(): boolean {
    for (const link of this.#links.values()) if (link.rebuilding || link.promoted) return true
    return false
  }

  #drain(): void {
    for (let effects = this.#state.takeEffects(); effects.length > 0; effects = this.#state.takeEffects()) {
      for (const effect of effects) {
        switch (effect.do) {
          case 'send':
            this.#send(effect.request, effect.replica)
            break
          case 'read':
            this.#read(effect.request, effect.replica)
            break
          case 'acknowledge':
            this.#acknowledge(effect.request)
            break
          case 'fail-flush':
            this.#guestRequests--
            this.#carried
              .get(effect.request)
              ?.reject(new XosanError('WRITES_LOST', { volume: this.#options.volume }))
            this.#carried.delete(effect.request)
            break
          case 'finished':
            this.#carried.delete(effect.request)
            break
          case 'reconcile':
            this.#plan.hurry(effect.region)
            this.#engine?.kick()
            break
        }
      }
    }
  }

  #acknowledge(request: MirrorRequest): void {
    const carried = this.#carried.get(request)
    if (carried === undefined) return
    if (request.shape.kind !== 'lock') this.#guestRequests--
    carried.resolve()
  }

  #send(request: MirrorRequest, replica: ReplicaId): void {
    const link = this.#links.get(replica)
    const session = link?.session
    const carried = this.#carried.get(request)
    if (link === undefined || session == null || carried === undefined) return
    const { kind, offset, length, durable, keepAllocated = false } = carried.shape
    let done: Promise<void>
    if (kind === 'flush') done = session.flush()
    else {
      const range = { offset, durable, sequence: link.nextSequence() }
      if (kind === 'write') done = session.write({ ...range, data: carried.data! })
      else if (kind === 'zero') done = session.zero({ ...range, length, keepAllocated })
      else done = session.trim({ ...range, length })
    }
    this.#follow(request, link, done)
  }

  #read(request: MirrorRequest, replica: ReplicaId): void {
    const link = this.#links.get(replica)
    const carried = this.#carried.get(request)
    if (link?.session == null || carried?.data == null) return
    this.#follow(request, link, link.session.read(request.shape.offset, carried.data))
  }

  #follow(request: MirrorRequest, link: ReplicaLink, done: Promise<void>): void {
    const { session } = link
    done.then(
      () => {
        // An answer of a session that is over says nothing any more: the request was sent again.
        if (link.session !== session) return
        this.#state.answered(request, link.record.replica, this.clock.now())
        this.#drain()
        this.#changed.notify()
      },
      (error: unknown) => session?.abort(reasonOf(error))
    )
  }

  // -- for the links ------------------------------------------------------------------------------------------------------

  address(record: ReplicaRecord): ReplicaAddress {
    const { sr, volume } = this.#options
    const { layers, size } = this.#record().state
    return { sr, volume, replica: record.replica, store: record.store, layers, size }
  }

  nextSession(): SessionNumber {
    return ++this.#session as SessionNumber
  }

  mustAcknowledge(link: ReplicaLink): boolean {
    return link.promoted || this.#record().mustAcknowledge(link.record.replica)
  }

  connected(link: ReplicaLink): void {
    this.#state.connected(link.record.replica)
    if (this.#source === null && this.#phase === 'serving') this.#chooseSource()
    this.#drain()
    this.#engine?.kick()
    this.#changed.notify()
  }

  disconnected(link: ReplicaLink, reason: string): void {
    if (this.#links.get(link.record.replica) !== link) return
    link.rebuilding = false
    if (!this.mustAcknowledge(link)) this.#plan.drop(link.record.replica)
    this.#state.disconnected(link.record.replica)
    this.#syncStandings()
    if (this.#source === link) this.#chooseSource()
    this.log('replica disconnected', link, reason)
    this.#drain()
    this.#changed.notify()
  }

  promised(link: ReplicaLink, until: Millis): void {
    if (this.#links.get(link.record.replica) !== link) return
    this.#state.promised(link.record.replica, until)
    this.#drain()
  }

  log(event: string, link: ReplicaLink, reason: string): void {
    this.#options.log(event, {
      volume: this.#options.volume,
      replica: link.record.replica,
      host: link.record.host,
      reason,
    })
  }

  async exclude(link: ReplicaLink, reason: string): Promise<void> {
    await this.#membership.run(async () => {
      if (this.stopped || !this.mustAcknowledge(link)) return
      const survivors = [...this.#links.values()].filter(other => other !== link && this.#mayBeRead(other))
      const whole = survivors.some(
        other =>
          other.session !== null && (other.lostAt === null || this.reconciled || other === this.#source)
      )
      if (!whole) {
        if (survivors.every(({ session }) => session === null)) await this.#openAgainIfRebooted()
        return
      }
      this.log('replica taken out', link, reason)
      const done = await this.#changeMembership(
        record => record.inSync && record.replica !== link.record.replica
      )
      if (done) this.#plan.drop(link.record.replica)
    })
  }

  async raise(): Promise<void> {
    await this.#membership.run(async () => {
      if (!this.stopped) await this.#changeMembership(record => record.inSync)
    })
  }

  /** Changes who is in-sync; to be called with the membership lock. @returns whether the record has it now */
  async #changeMembership(inSync: (record: ReplicaRecord) => boolean): Promise<boolean> {
    const { identity, random } = this.#options
    return this.#changeRecord((state, from) =>
      changeMembership(state, identity.host, from, random.uuid(), inSync)
    )
  }

  async #changeRecord(change: (state: VolumeState, from: Epoch) => VolumeState | null): Promise<boolean> {
    const { identity, timing } = this.#options
    const generation = this.#generation
    const steps = changeMembershipOf(
      this.#record(),
      identity.host,
      change,
      () => generation.over,
      timing.retryDelayMs
    )
    const outcome = await this.#run(steps)
    if (generation.over) return false
    if (outcome.kind === 'replaced') {
      this.#replaced()
      return false
    }
    if (outcome.kind !== 'changed') return false
    for (const replica of outcome.behind)
      this.#links.get(replica)?.session?.abort('it did not store the new epoch')
    this.#options.log('membership changed', { volume: this.#options.volume, epoch: this.epoch() })
    this.#syncStandings()
    this.#engine?.kick()
    return true
  }

  /**
   * Every in-sync replica that answers has lost power since the volume was opened: the volume is opened again like
   * after a crash, and the guest learns at its next flush if writes were lost.
   */
  async #openAgainIfRebooted(): Promise<void> {
    const relied = [...this.#links.values()].filter(link => this.mustAcknowledge(link))
    if (!relied.some(link => link.wasRestarted)) return
    this.#options.log('opening again', { volume: this.#options.volume })
    this.#stop('every in-sync replica was lost')
    this.#phase = 'opening'
    void this.#openAgain()
  }

  async #openAgain(): Promise<void> {
    const outcome = await this.#openRecord(Number.POSITIVE_INFINITY as Millis)
    if (outcome.kind === 'opened' && this.#closing === null) {
      await this.#establish(outcome).catch((error: unknown) =>
        this.#options.log('opening again failed', { reason: reasonOf(error) })
      )
    } else {
      this.#phase = 'replaced'
      this.#changed.notify()
    }
  }

  async replace(link: ReplicaLink, reason: string): Promise<void> {
    const { random, identity, sr, volume } = this.#options
    const { layers, size } = this.#record().state
    const replica = random.uuid() as ReplicaId
    const store = await link.peer.create({ sr, volume, replica, layers, size }, false)
    await this.#membership.run(async () => {
      if (this.stopped || this.mustAcknowledge(link)) return
      this.log('replica replaced', link, reason)
      const lost = link.record.replica
      const done = await this.#changeRecord((state, from) =>
        replaceReplica(state, identity.host, from, random.uuid(), lost, { replica, store })
      )
      if (!done) return
      link.stop('it was replaced')
      this.#links.delete(lost)
      this.#state.removeLink(lost)
      const record = replicasOf(this.#record().state).find(other => other.replica === replica)
      if (record !== undefined) this.#care(this.#addLink(record))
      this.#syncStandings()
    })
  }

  async rebuild(link: ReplicaLink): Promise<void> {
    const { replica } = link.record
    const session = link.session!
    const lost = session.closed.then(reason => {
      throw new Error(reason)
    })
    lost.catch(() => undefined)
    // New writes first, then the question what it missed before: so nothing falls between.
    link.rebuilding = true
    this.#syncStandings()
    this.#state.connected(replica)
    const source = await Promise.race([this.#whenSource(), lost])
    const missed = await Promise.race([source.peer.intents(source.name!), lost])
    missed.union(link.intents!)
    this.#clearing.inherited(missed)
    this.#plan.add(replica, missed)
    this.#options.log('rebuilding', { volume: this.#options.volume, replica, regions: missed.count })
    this.#engine!.kick()
    while (this.#plan.needs(replica)) await Promise.race([this.#changed.next(), lost])
    await this.#putBack(link, lost)
  }

  async #whenSource(): Promise<ReplicaLink> {
    while (this.#phase !== 'serving' || this.#source?.session == null) await this.#changed.next()
    return this.#source
  }

  /**
   * Puts a replica that has been rebuilt back among those that count. From here it must acknowledge; what was sent
   * to it before is finished; everything that it has is durable; only then does the record say so.
   */
  async #putBack(link: ReplicaLink, lost: Promise<never>): Promise<void> {
    const { replica } = link.record
    const session = link.session!
    await this.#membership.run(async () => {
      if (this.stopped || link.session !== session) throw new Error('the session was lost')
      link.promoted = true
      try {
        this.#syncStandings()
        const upTo = this.#state.lastNumber
        while (!this.#state.caughtUp(replica, upTo)) await Promise.race([this.#changed.next(), lost])
        await Promise.race([session.flush(), lost])
        const done = await this.#changeMembership(record => record.inSync || record.replica === replica)
        if (!done) throw new Error('the record did not change')
        link.lostAt = null
        this.#plan.drop(replica)
        this.log('replica is in-sync', link, '')
      } finally {
        link.promoted = false
        this.#syncStandings()
      }
    })
  }

  // -- for the copy engine -------------------------------------------------------------------------------------------------

  async lock(offset: ByteOffset, length: ByteLength): Promise<() => void> {
    return new Promise(resolve => {
      const shape = { kind: 'lock', offset, length, durable: false } as const
      const request = this.#state.submit(shape)
      const unlock = (): void => {
        this.#state.unlock(request)
        this.#drain()
      }
      this.#carried.set(request, {
        shape,
        data: null,
        resolve: () => resolve(unlock),
        reject: () => undefined,
      })
      this.#drain()
    })
  }

  source(): ReplicaLink | null {
    if (this.#phase !== 'serving' && this.#phase !== 'closing') return null
    return this.#source?.session == null ? null : this.#source
  }

  link(replica: ReplicaId): ReplicaLink | undefined {
    return this.#links.get(replica)
  }

  isUnreconciled(region: RegionIndex): boolean {
    return this.#unreconciled.has(region)
  }

  copied(region: RegionIndex): void {
    if (this.#unreconciled.has(region)) {
      this.#state.reconciled(region)
      if (this.#unreconciled.isEmpty) this.#reconciledAll()
      this.#drain()
    }
    this.#changed.notify()
  }

  #reconciledAll(): void {
    for (const link of this.#links.values()) {
      if (!this.mustAcknowledge(link)) continue
      this.#plan.drop(link.record.replica)
      const { session } = link
      link.tellReconciled().catch((error: unknown) => session?.abort(reasonOf(error)))
    }
    this.#plan.drop(RECONCILE)
    this.#options.log('reconciled', { volume: this.#options.volume })
  }

  // -- inner ---------------------------------------------------------------------------------------------------------------

  #record(): RecordKeeper {
    if (this.#keeper === null) throw new XosanError('INTERNAL', { reason: 'the volume was never opened' })
    return this.#keeper
  }

  #mayBeRead(link: ReplicaLink): boolean {
    return !link.promoted && this.#record().mayBeRead(link.record.replica)
  }

  #addLink(record: ReplicaRecord): ReplicaLink {
    const link = new ReplicaLink(record, this.#options.peer(record.host), this)
    this.#links.set(record.replica, link)
    this.#state.addLink(record.replica, link.peer.local)
    return link
  }

  #care(link: ReplicaLink): void {
    link.run().catch((error: unknown) => this.log('caring for a replica ended', link, reasonOf(error)))
  }

  /** Tells the state how each replica counts; to be called whenever the record or a promotion changes. */
  #syncStandings(): void {
    this.#state.setStandings(
      [...this.#links.values()].map(link => {
        const { replica } = link.record
        if (this.mustAcknowledge(link))
          return { replica, standing: 'in-sync', mayBeRead: this.#mayBeRead(link) }
        return { replica, standing: link.rebuilding ? 'rebuilding' : 'stale', mayBeRead: false }
      })
    )
    this.#drain()
    this.#changed.notify()
  }

  #every(intervalMs: Millis, action: () => void): void {
    const generation = this.#generation
    const again = (): void => {
      if (generation.over) return
      action()
      this.#timers = this.#timers.filter(timer => timer !== current)
      current = this.clock.after(intervalMs, again)
      this.#timers.push(current)
    }
    let current = this.clock.after(intervalMs, again)
    this.#timers.push(current)
  }

  #watch(): void {
    const now = this.clock.now()
    for (const link of this.#links.values()) if (this.mustAcknowledge(link)) link.checkSilence(now)
  }

  async #clearIntents(): Promise<void> {
    if (this.#clearingNow) return
    const links = [...this.#links.values()]
    const sessions = links.map(link => link.session)
    const quiet = (): boolean =>
      this.#phase === 'serving' &&
      this.#keeper?.allInSync === true &&
      this.#unreconciled.isEmpty &&
      links.every((link, index) => link.session !== null && link.session === sessions[index])
    if (!quiet()) return
    const before = this.#clearing.cold.copy()
    for (const region of before) if (this.#isChanging(region)) before.delete(region)
    if (!before.isEmpty) {
      this.#clearingNow = true
      try {
        await Promise.all(sessions.map(async session => session!.flush()))
        if (!quiet()) return
        const clean = this.#clearing.clearable(before, region => this.#isChanging(region))
        if (clean.isEmpty) return
        const regions = clean.toRanges()
        await Promise.all(
          links.map(async ({ peer, name, lastSequence: upTo }) =>
            peer.clear({ name: name!, upTo, regions, reconciled: true })
          )
        )
      } catch {
        // A bit that stays costs a comparison after a crash, nothing else.
      } finally {
        this.#clearingNow = false
      }
    }
    this.#clearing.age()
  }

  #isChanging(region: RegionIndex): boolean {
    return this.#state.changing(region * REGION_BYTES, REGION_BYTES)
  }

  async #run<Result>(steps: Steps<Result>): Promise<Result> {
    return runSteps(steps, async step => this.#perform(step))
  }

  async #perform(step: Step): Promise<unknown> {
    // A version that may become the record counts from before it is sent.
    if (step.do === 'swap-record' && this.#links.size > 0) this.#syncStandings()
    return performStep(step, {
      ...this.#options,
      address: (record, state) => {
        const { sr, volume } = this.#options
        return {
          sr,
          volume,
          replica: record.replica,
          store: record.store,
          layers: state.layers,
          size: state.size,
        }
      },
    })
  }
}

/** The epoch at which a replica lost writes, lower than all epochs when it lost none. */
const lossOf = (link: ReplicaLink): number => link.lostAt ?? -1
