import { type MirrorBatches } from '../../core/mirror/batches.ts'
import { type ProcessIdentity, type Purpose, type ReplicaAddress } from '../../core/mirror/messages.ts'
import { MirrorState } from '../../core/mirror/mirror-state.ts'
import { type RecordKeeper } from '../../core/mirror/record-keeper.ts'
import { RegionSet } from '../../core/mirror/region-set.ts'
import { ResyncPlan } from '../../core/mirror/resync-plan.ts'
import { type Step, type Steps } from '../../core/mirror/steps.ts'
import { type MirrorTiming } from '../../core/mirror/timing.ts'
import { inSyncReplicas } from '../../core/mirror/volume-change.ts'
import { type ReplicaRecord, type VolumeState } from '../../core/mirror/volume-record.ts'
import { IntentClearing } from '../../core/mirror/write-intent.ts'
import { XosanError } from '../../core/errors.ts'
import { type Clock } from '../../core/ports/clock.ts'
import { type Random } from '../../core/ports/random.ts'
import { type HostId, REGION_BYTES, type ReplicaId, type SrId, type VolumeKey } from '../../core/units.ts'
import { Inquiries } from './mirror-status.ts'
import { performStep, runSteps } from './procedure-runner.ts'
import { type RecordStore } from './record-store.ts'
import { type ReplicaLink } from './replica-link.ts'
import { type ReplicaPeer } from './replica-peer.ts'
import { type CarrierOwner, RequestCarrier } from './request-carrier.ts'
import { Signal } from './signal.ts'

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
  readonly batches: MirrorBatches
  /** The guest was there before this process: what it had written and not flushed is not known here. */
  readonly resumed: boolean
  readonly log: (event: string, facts: Readonly<Record<string, string | number>>) => void
}

/** What the parts of one mirror share. `reset` begins anew when the volume is opened again. */
export class MirrorContext {
  readonly options: MirrorOptions
  readonly state = new MirrorState()
  readonly carrier: RequestCarrier
  readonly changed = new Signal()
  readonly links = new Map<ReplicaId, ReplicaLink>()
  readonly inquiries = new Inquiries()
  /** Why a replica's session was lost, or could not be opened, last. */
  readonly troubles = new Map<ReplicaId, string>()
  plan = new ResyncPlan(0)
  clearing = new IntentClearing(0)
  /** Regions that may differ between in-sync replicas; shared with the state, which empties it. */
  unreconciled = new RegionSet(0)
  #keeper: RecordKeeper | null = null

  constructor(options: MirrorOptions, owner: CarrierOwner) {
    this.options = options
    this.carrier = new RequestCarrier(this, owner)
  }

  /** Forgets what belongs to an earlier opening; the guest's requests stay. */
  reset(keeper: RecordKeeper): void {
    const regions = Math.ceil(keeper.state.size / REGION_BYTES)
    this.#keeper = keeper
    this.plan = new ResyncPlan(regions)
    this.clearing = new IntentClearing(regions)
    this.unreconciled = new RegionSet(regions)
  }

  get opened(): boolean {
    return this.#keeper !== null
  }

  get keeper(): RecordKeeper {
    if (this.#keeper === null) throw new XosanError('INTERNAL', { reason: 'the volume was never opened' })
    return this.#keeper
  }

  /** Whether the record, as last known for certain, counts a replica as in-sync. */
  isInSync(replica: ReplicaId): boolean {
    return inSyncReplicas(this.keeper.state).some(other => other.replica === replica)
  }

  /** Whether a change is acknowledged only with this replica's answer. */
  mustAcknowledge(link: ReplicaLink): boolean {
    return link.promoted || this.keeper.mustAcknowledge(link.record.replica)
  }

  mayBeRead(link: ReplicaLink): boolean {
    return !link.promoted && this.keeper.mayBeRead(link.record.replica)
  }

  /** The links whose replicas must acknowledge. */
  relied(): ReplicaLink[] {
    return [...this.links.values()].filter(link => this.mustAcknowledge(link))
  }

  /** Ends the sessions of those that have given no sign of life for too long. */
  checkSilence(): void {
    const now = this.options.clock.now()
    for (const link of this.relied()) link.checkSilence(now)
  }

  /** Tells the state how each replica counts; to be called whenever the record or a promotion changes. */
  syncStandings(): void {
    this.state.setStandings(
      [...this.links.values()].map(link => {
        const { replica } = link.record
        if (this.mustAcknowledge(link)) {
          return { replica, standing: 'in-sync', mayBeRead: this.mayBeRead(link) }
        }
        return { replica, standing: link.rebuilding ? 'rebuilding' : 'stale', mayBeRead: false }
      })
    )
    this.carrier.drain()
    this.changed.notify()
  }

  addressOf(record: ReplicaRecord, { layers, size }: VolumeState): ReplicaAddress {
    const { sr, volume } = this.options
    return { sr, volume, replica: record.replica, store: record.store, layers, size }
  }

  /** Runs a procedure of the core. */
  async run<Result>(steps: Steps<Result>): Promise<Result> {
    const world = {
      ...this.options,
      address: (record: ReplicaRecord, state: VolumeState) => this.addressOf(record, state),
    }
    return runSteps(steps, async (step: Step) => {
      // A version that may become the record counts from before it is sent.
      if (step.do === 'swap-record' && this.links.size > 0) this.syncStandings()
      const answer = await performStep(step, world)
      this.inquiries.note(step, answer)
      return answer
    })
  }

  log(event: string, facts: Readonly<Record<string, string | number>> = {}): void {
    this.options.log(event, { volume: this.options.volume, ...facts })
  }

  logOf(event: string, { record }: ReplicaLink, reason: string): void {
    this.log(event, { replica: record.replica, host: record.host, reason })
  }
}
