/**
 * That things go on while faults last, within times that the product's own times (`core/mirror/timing.ts`) justify.
 *
 * Every bound counts from the last moment at which anything happened to the hosts and links concerned: a world that
 * changes more often than a procedure takes gives it no time to end. Who is not well meanwhile stays as it is: dead, cut
 * off, stopped or hanging.
 */
import { DEFAULT_TIMING } from '../../core/mirror/timing.ts'
import { inSyncReplicas, replicasOf } from '../../core/mirror/volume-change.ts'
import { type VolumeState } from '../../core/mirror/volume-record.ts'
import { type VolumeMirror } from '../../datapath/mirror/volume-mirror.ts'
import { type FaultSchedule } from './faults.ts'
import { type SimulatedNetwork } from './network.ts'
import { type SimulatedHost } from './simulated-host.ts'
import { type SimulatedVolume } from './simulated-volume.ts'

const { replicaSilenceMs, heartbeatIntervalMs, callTimeoutMs, requestTimeMs, promiseTimeMs } = DEFAULT_TIMING

/**
 * A volume whose in-sync replicas are all in contact: nothing is waited for but disks and links that are well, a lock of
 * a region that is copied, and a heartbeat or two. (P6; the coordinator may be away.)
 */
const ALL_WELL_MS = 2 * heartbeatIntervalMs + 1_000
/** The same while somebody else's copy may have to be given up first: a copy holds its region until it is answered. */
const COPY_GIVEN_UP_MS = requestTimeMs + 2_000
/**
 * A replica is lost: silence is noticed, the others flush, the record changes, and those that are told of the new epoch
 * and do not answer cost a call each. 4.3 s for one of two; the promise to users is 5 s.
 */
const ONE_LOST_MS = 5_000
const EACH_MORE_MS = replicaSilenceMs + heartbeatIntervalMs + callTimeoutMs
/** A disk hangs and its host does not: the time of a request, in looks of a sixteenth of it, comes before. */
const DISK_LOST_MS = requestTimeMs * (1 + 2 / 16) + ONE_LOST_MS
/**
 * The primary opens its volume again, or another host does: the promise of before, one call that gets no answer, two
 * seconds for a replica that is about to accept, and some messages. Users are promised 10 s.
 */
export const TAKEOVER_MS = 10_000

interface LivenessView {
  readonly hosts: readonly SimulatedHost[]
  readonly network: SimulatedNetwork
  readonly faults: FaultSchedule
  readonly now: () => number
  readonly stateOf: (volume: SimulatedVolume) => VolumeState
  readonly problem: (text: string) => void
}

/** What can be relied on among the hosts of a volume, seen from one of them. */
interface Surroundings {
  /** Since when nothing happened to any of them. */
  readonly quietSince: number
  /** In-sync replicas that the host can talk to, its own among them. */
  readonly inContact: readonly SimulatedHost[]
  readonly lost: readonly SimulatedHost[]
  /** All replicas, stale ones too, are in contact. */
  readonly allInContact: boolean
  readonly hasCoordinator: boolean
  readonly copies: number
}

interface Well {
  readonly at: number
  /** Who serves the volume: with another opening all begins anew. */
  readonly mirror: VolumeMirror
  readonly quietSince: number
  /** Every replica was in-sync and the same, and no request from before was under way: none can be stuck. */
  allAt: number
}

export class Liveness {
  readonly #view: LivenessView
  /** Since when each volume was seen to be well, with nothing happening to its hosts. */
  readonly #wellSince = new Map<SimulatedVolume, Well>()
  readonly #told = new Set<SimulatedVolume>()
  /** The longest waits that were seen, in milliseconds, for whoever wants to know how near they are. */
  readonly longest: Record<string, number> = {}

  constructor(view: LivenessView) {
    this.#view = view
  }

  /** Looks whether the guest of a volume waits for too long. */
  look(volume: SimulatedVolume): void {
    const state = this.#view.stateOf(volume)
    const primary = this.#view.hosts.find(({ id }) => id === state.primary)
    const mirror = primary?.running === true ? primary.node!.volume(volume.key)?.mirror : null
    if (primary === undefined || mirror == null || mirror.ending || this.#told.has(volume)) {
      this.#wellSince.delete(volume)
      return
    }
    const around = this.#around(primary, state)
    const waitingSince = this.#waitingSince(volume, primary)
    const isWell = around.lost.length === 0 && mirror.phase === 'serving' && isResponsive(primary)
    const isAllWell =
      isWell && mirror.allInSync && this.#isFresh(waitingSince, around) && !this.#isHeldUp(volume, primary)
    this.#noteWell(volume, mirror, around, isWell, isAllWell)
    if (waitingSince === null || !isResponsive(primary)) return
    const [kind, bound, from] = this.#boundOf(volume, around, mirror.phase)
    const waitMs = this.#view.now() - Math.max(waitingSince, from)
    this.longest[kind] = Math.max(this.longest[kind] ?? 0, waitMs)
    if (waitMs <= bound) return
    this.#told.add(volume)
    this.#view.problem(
      `${kind}: a guest on ${primary.name} waits for ${waitMs.toFixed(0)} ms, since nothing happened to its hosts`
    )
  }

  /** An activation has failed, or was not answered in time. */
  activationFailed(volume: SimulatedVolume, host: SimulatedHost, since: number, reason: string): void {
    const now = this.#view.now()
    const state = this.#view.stateOf(volume)
    const { quietSince, hasCoordinator } = this.#around(host, state)
    const primary = this.#view.hosts.find(({ id }) => id === state.primary)
    const isFree = primary === undefined || primary === host || primary.process === null
    const somebodyIsWhole = inSyncReplicas(state).some(replica => {
      const holder = this.#hostOf(replica.host)
      return this.#inContact(host, holder) && volume.durability.isWhole(holder)
    })
    if (!host.running || !isResponsive(host) || !hasCoordinator || !isFree || !somebodyIsWhole) return
    if (
      quietSince > since ||
      this.#changedByOthers(volume, host) > since ||
      now - since < TAKEOVER_MS - 1_500
    )
      return
    this.#view.problem(
      `P5: ${host.name} could not activate a volume in ${(now - since).toFixed(0)} ms, although nothing was in its way: ${reason}`
    )
  }

  /** A deactivation was not done in time. */
  closingFailed(volume: SimulatedVolume, host: SimulatedHost, since: number, reason: string): void {
    const state = this.#view.stateOf(volume)
    const well = this.#wellSince.get(volume)
    const { quietSince, hasCoordinator, allInContact } = this.#around(host, state)
    if (!hasCoordinator || !allInContact || !isResponsive(host) || state.primary !== host.id) return
    if (well === undefined || quietSince > well.at) return
    // What got lost before, with a link, is waited for until it is given up.
    if (Math.min(well.allAt, well.at + COPY_GIVEN_UP_MS) > since) return
    this.#view.problem(`P5: ${host.name} could not close a volume that was well: ${reason}`)
  }

  #isFresh(waitingSince: number | null, { quietSince }: Surroundings): boolean {
    return (
      waitingSince === null || waitingSince > Math.max(quietSince, this.#view.now() - heartbeatIntervalMs)
    )
  }

  /**
   * Whether a request of a guest that came to this process before may be under way still: what it sent may have got lost
   * with a link, and who overlaps it waits until its session is given up.
   */
  #isHeldUp({ guests }: SimulatedVolume, { process }: SimulatedHost): boolean {
    const now = this.#view.now()
    return guests.some(
      guest =>
        guest.process === process && guest.waitsSince(now - COPY_GIVEN_UP_MS, now - heartbeatIntervalMs)
    )
  }

  #noteWell(
    volume: SimulatedVolume,
    mirror: VolumeMirror,
    { quietSince }: Surroundings,
    isWell: boolean,
    isAllWell: boolean
  ): void {
    const now = this.#view.now()
    let well = this.#wellSince.get(volume)
    if (well !== undefined && (well.quietSince !== quietSince || well.mirror !== mirror)) {
      this.#wellSince.delete(volume)
      well = undefined
    }
    if (isWell && well === undefined) {
      well = { at: now, mirror, quietSince, allAt: Infinity }
      this.#wellSince.set(volume, well)
    }
    if (well !== undefined && isAllWell) well.allAt = Math.min(well.allAt, now)
  }

  // -- inner --------------------------------------------------------------------------------------------------------------

  #hostOf(id: string): SimulatedHost {
    return this.#view.hosts.find(host => host.id === id)!
  }

  #changedByOthers({ changedAt }: SimulatedVolume, { name }: SimulatedHost): number {
    return Math.max(0, ...[...changedAt].map(([client, at]) => (client === name ? 0 : at)))
  }

  #inContact(from: SimulatedHost, to: SimulatedHost): boolean {
    const { network } = this.#view
    if (!to.running || !isResponsive(to)) return false
    return from === to || (!network.isCut(from, to) && !network.isCut(to, from))
  }

  #around(host: SimulatedHost, state: VolumeState): Surroundings {
    const { network, faults } = this.#view
    const holders = replicasOf(state).map(replica => this.#hostOf(replica.host))
    const inSync = inSyncReplicas(state).map(replica => this.#hostOf(replica.host))
    const coordinator = faults.coordinatorOf(host.name)
    let quietSince = network.isSlow ? this.#view.now() : coordinator.disturbedAt
    for (const from of [host, ...holders]) {
      quietSince = Math.max(quietSince, from.disturbedAt)
      for (const to of [host, ...holders]) {
        if (from !== to) quietSince = Math.max(quietSince, network.disturbedAt(from, to))
      }
    }
    return {
      quietSince,
      inContact: inSync.filter(holder => this.#inContact(host, holder)),
      lost: inSync.filter(holder => !this.#inContact(host, holder)),
      allInContact: holders.every(holder => this.#inContact(host, holder)),
      hasCoordinator: coordinator.isWell,
      copies: holders.length,
    }
  }

  /** The oldest request of a guest that is served by the volume's primary. */
  #waitingSince(volume: SimulatedVolume, primary: SimulatedHost): number | null {
    const device = primary.node!.volume(volume.key)?.device ?? null
    const times = volume.guests.flatMap(guest =>
      guest.isServedBy(primary.process!, device) && guest.waitingSince !== null ? [guest.waitingSince] : []
    )
    return times.length === 0 ? null : Math.min(...times)
  }

  /** How long a request may wait now, from which moment on, and what it would break. */
  #boundOf(
    volume: SimulatedVolume,
    { quietSince, inContact, lost, allInContact, hasCoordinator, copies }: Surroundings,
    phase: string
  ): readonly [kind: string, boundMs: number, from: number] {
    const well = this.#wellSince.get(volume)
    if (well !== undefined) {
      // All that was under way when something happened last has been answered or given up by then.
      if (well.allAt === Infinity) return ['P6 (in contact)', COPY_GIVEN_UP_MS, well.at]
      return ['P6', allInContact ? ALL_WELL_MS : COPY_GIVEN_UP_MS, well.allAt]
    }
    const somebodyIsWhole = inContact.some(host => volume.durability.isWhole(host))
    if (!hasCoordinator || !somebodyIsWhole) return ['waits', Infinity, quietSince]
    if (phase === 'opening') return ['P5 (opening again)', DISK_LOST_MS + TAKEOVER_MS, quietSince]
    if (lost.length === 0) return ['P5 (together again)', DISK_LOST_MS + promiseTimeMs, quietSince]
    const more = (lost.length - 1) * EACH_MORE_MS
    // With another replica besides, or one that is being rebuilt, a request may have got lost on its way to that one.
    const isSimple =
      inContact.length === 1 && inContact.length + lost.length === copies && lost.every(isSilent)
    return isSimple
      ? ['P5 (a host lost)', ONE_LOST_MS + more, quietSince]
      : ['P5 (something lost)', DISK_LOST_MS + more, quietSince]
  }
}

/** It does not answer heartbeats either: its process or its links are gone. */
const isSilent = (host: SimulatedHost): boolean => !host.running || isResponsive(host)

const isResponsive = ({
  disk,
  diskHangs,
  diskSlowness,
  diskStraggles,
  storeIsMissing,
}: SimulatedHost): boolean =>
  !diskHangs &&
  !storeIsMissing &&
  diskSlowness === 1 &&
  !diskStraggles &&
  disk.fault === undefined &&
  disk.capacity === Infinity
