/**
 * What of a volume must be where, and whether it is: P1, P2 and P7 as they are written, asked of the simulated disks at
 * the very moment at which they must hold and not of what somebody happens to read later.
 *
 * For every sector there is what is durable for good (the guest was told so), what was acknowledged after that, and what
 * was asked and not answered. Every replica that the record counts as in-sync must show the last acknowledged write, or
 * one under way, unless its host lost power since; and after a power cut now it must show what is durable or something
 * later. So one in-sync replica that survives is always enough, whichever it is.
 *
 * An acknowledged write that is not durable may be lost when every host that held it has lost power: those that were
 * in-sync when it was acknowledged, and those that became so later. Those too that lost it between their answer and the
 * acknowledgement; what is left of it on their disks is chance. A sync that fails, and a map that cannot be written, are
 * such a loss of the one replica: from then on the page cache may show what the disk will never have.
 */
import { DEFAULT_TIMING } from '../../core/mirror/timing.ts'
import { type History, type ReadEntry, type Tenant, type WriteEntry } from './history.ts'
import { ZEROS } from './linearizability.ts'
import { ReplicaImage } from './replica-image.ts'
import { type SimulatedHost } from './simulated-host.ts'
import { type SimulatedVolume } from './simulated-volume.ts'

/** What the checker sees of the world. */
export interface DurabilityView {
  readonly volume: SimulatedVolume
  readonly history: History
  readonly now: () => number
  /** The hosts whose replicas the record counts as in-sync now. */
  readonly inSync: () => readonly SimulatedHost[]
  readonly problem: (text: string) => void
}

interface Sector {
  /** What is durable for good. */
  base: number
  /** Acknowledged after it, in order. */
  later: WriteEntry[]
  /** Values of writes that were lost, and that nobody has read or replaced since: they may be there. */
  doubt: number[]
  /** Values of what was never answered and has been replaced: a power cut may show it again until that is durable. */
  older: number[]
  /** Asked, and not answered. */
  pending: WriteEntry[]
}

/**
 * A change of the record whose answer was lost happens no later than two seconds after it was sent, and when it is sent its
 * primary may not have noticed yet that a host is silent; in milliseconds.
 */
const LATE_EFFECT_MS = 2_000 + DEFAULT_TIMING.replicaSilenceMs + DEFAULT_TIMING.heartbeatIntervalMs

/** More of one kind would say nothing more. */
const PROBLEMS_MAX = 5

export class Durability {
  readonly #view: DurabilityView
  readonly #sectors = new Map<number, Sector>()
  /** Sectors with something acknowledged that is not durable, or in doubt. */
  readonly #unsettled = new Set<number>()
  /** Acknowledged and not durable, in order. */
  #unflushed: WriteEntry[] = []
  /** Those of them that were un-flushed while no in-sync replica was left that had not lost power since. */
  readonly #reported = new WeakSet<WriteEntry>()
  /** Where changes that nobody had been told of yet outlived a power cut, by chance and not because they were durable. */
  readonly #outlived = new WeakMap<WriteEntry, Set<SimulatedHost>>()
  /** When each host became in-sync last, at the earliest. */
  readonly #joinedAt = new Map<SimulatedHost, number>()
  #problems = 0
  /** When acknowledged writes may have been lost last; -1 while that never happened. */
  lostAt = -1

  constructor(view: DurabilityView) {
    this.#view = view
  }

  // -- what guests do -----------------------------------------------------------------------------------------------------

  begun(entry: WriteEntry): void {
    for (let sector = entry.firstSector; sector < entry.endSector; sector++) {
      this.#sector(sector).pending.push(entry)
    }
  }

  /** A change was acknowledged: it is on every in-sync replica, durably if that was asked for. */
  acknowledged(entry: WriteEntry): void {
    const images = this.#images()
    // A replica that had answered and lost power before the guest was told of it has lost power while it held the change.
    const outlived = this.#outlived.get(entry)
    entry.holders = images.flatMap(([host, image]) =>
      this.#holds(host, image, entry) && outlived?.has(host) !== true ? [host] : []
    )
    for (let sector = entry.firstSector; sector < entry.endSector; sector++) {
      const state = this.#sector(sector)
      const newer = newerThan(entry, state)
      state.older.push(
        ...state.pending.filter(other => other !== entry && !newer.includes(other)).map(valueOf)
      )
      state.pending = newer
      if (entry.durable) {
        state.base = entry.value
        state.later = []
        state.doubt = []
        state.older = []
        this.#unsettled.delete(sector)
      } else {
        state.later.push(entry)
        this.#unsettled.add(sector)
      }
    }
    if (entry.durable) {
      entry.durableAt = entry.acknowledgedAt
      this.#requireDurable(range(entry), images, `write ${entry.value} was acknowledged as durable`)
      return
    }
    this.#unflushed.push(entry)
    if (this.#everybodyLost(entry)) this.#lose([entry])
  }

  /** A flush that a guest began at this moment was answered: what was acknowledged to it before is durable. */
  flushed(invokedAt: number, tenant: Tenant): void {
    const now = this.#view.now()
    const inSync = this.#view.inSync()
    // What a host has lost since it gets back where somebody reads it, or in the background: until then another one
    // holds it. To the guest that wrote it no flush is answered while that is so.
    const isCovered = (entry: WriteEntry): boolean =>
      entry.acknowledgedAt <= invokedAt &&
      (entry.tenant === tenant || (!entry.mayBeLost && inSync.every(host => this.#stillHolds(host, entry))))
    const covered: number[] = []
    for (const sector of this.#unsettled) {
      const state = this.#sector(sector)
      const last = state.later.findLastIndex(isCovered)
      if (last < 0) continue
      state.base = state.later[last]!.value
      state.later.splice(0, last + 1)
      state.doubt = []
      if (state.later.length === 0) {
        state.older = []
        this.#unsettled.delete(sector)
      }
      covered.push(sector)
    }
    this.#unflushed = this.#unflushed.filter(entry => {
      if (isCovered(entry)) entry.durableAt = now
      return entry.durableAt === Infinity
    })
    this.#requireDurable(covered, this.#images(), 'a flush was answered')
  }

  /**
   * A flush failed, as the first one does after every in-sync replica has lost power while acknowledged writes were not
   * flushed. From here on nobody is to be told of them.
   * @returns whether there were such that the process knew of: its guest's, or those of one that it served before and
   * that was never deactivated, which it cannot tell from this one
   */
  flushFailed(tenant: Tenant): boolean {
    const told = this.#unflushed.filter(entry => entry.mayBeLost || this.#reported.has(entry))
    this.#forget(told)
    return told.some(entry => entry.tenant.process === tenant.process)
  }

  /** What a guest reads of a primary that is no more is durable on every in-sync replica from then on. */
  read(entry: ReadEntry): void {
    const state = this.#sectors.get(entry.sector)
    if (state === undefined) return
    const { tenant } = entry
    const isOld = ({ tenant: writer }: WriteEntry): boolean =>
      writer.tenure < tenant.tenure && writer.process !== tenant.process
    if (state.later.length === 0 && state.doubt.length === 0 && state.pending.length === 0) return
    if (!state.later.every(isOld) || !state.pending.every(isOld)) return
    if (state.doubt.length > 0 && tenant.startedAt < this.lostAt) return
    this.#sectors.set(entry.sector, {
      base: entry.value,
      later: [],
      doubt: [],
      older: [],
      pending: [],
    })
    this.#unsettled.delete(entry.sector)
    this.#requireDurable([entry.sector], this.#images(), `${entry.value} was read after a takeover`, 'P4')
  }

  // -- what happens to hosts ----------------------------------------------------------------------------------------------

  /** A host has lost what was not durable: is there anything that nobody holds any more? */
  writesWereLost(): void {
    const lastLosses = this.#view.inSync().map(host => this.#lastLoss(host))
    for (const entry of this.#unflushed) {
      if (lastLosses.every(at => at >= entry.acknowledgedAt)) this.#reported.add(entry)
    }
    this.#noteOutliving()
    const lost = this.#unflushed.filter(entry => !entry.mayBeLost && this.#everybodyLost(entry))
    const again = [...this.#unsettled].some(sector => {
      const { later, doubt } = this.#sectors.get(sector)!
      return doubt.length > 0 || later.some(({ mayBeLost }) => mayBeLost)
    })
    if (lost.length > 0 || again) this.#lose(lost)
    this.#requireKept()
  }

  /** The record counts a replica as in-sync that it did not count so before: it holds what the others hold. */
  joined(host: SimulatedHost): void {
    const now = this.#view.now()
    // The change of the record may have been sent some time ago, and its host may have lost power since.
    const lostPower = this.#lastLoss(host) > now - LATE_EFFECT_MS
    this.#joinedAt.set(host, lostPower ? now - LATE_EFFECT_MS : now)
    const image = ReplicaImage.of(host.disk, this.#view.volume)
    if (image === null) {
      this.#problem(`P7: ${host.name} became in-sync and has no replica`)
      return
    }
    this.#look([[host, image]], 'P7: became in-sync:')
  }

  /** Every in-sync replica holds what it must, now and after a power cut. */
  look(): void {
    this.#look(this.#images(), 'P1:')
    this.#requireKept()
  }

  /** Whether a host has lost no power since it became in-sync: what it holds is all that there is. */
  isWhole(host: SimulatedHost): boolean {
    return this.#lastLoss(host) < (this.#joinedAt.get(host) ?? 0)
  }

  // -- inner --------------------------------------------------------------------------------------------------------------

  #sector(sector: number): Sector {
    let state = this.#sectors.get(sector)
    if (state === undefined) {
      state = { base: ZEROS, later: [], doubt: [], older: [], pending: [] }
      this.#sectors.set(sector, state)
    }
    return state
  }

  #lastLoss(host: SimulatedHost): number {
    return host.lastLossOf(this.#view.volume.key)
  }

  #images(): (readonly [SimulatedHost, ReplicaImage])[] {
    const images: (readonly [SimulatedHost, ReplicaImage])[] = []
    for (const host of this.#view.inSync()) {
      const image = ReplicaImage.of(host.disk, this.#view.volume)
      if (image !== null) images.push([host, image])
    }
    return images
  }

  /** Whether an in-sync replica has a change that is being acknowledged. One that has not has lost it since. */
  #holds(host: SimulatedHost, image: ReplicaImage, entry: WriteEntry): boolean {
    for (const sector of range(entry)) {
      if (this.#view.history.exempt.has(sector)) continue
      const value = image.shows(sector)
      const newer = newerThan(entry, this.#sector(sector))
      if (value === entry.value || newer.some(other => other.value === value)) continue
      if (this.#lastLoss(host) < entry.invokedAt) {
        this.#problem(
          `P1: write ${entry.value} was acknowledged, and ${host.name}, which is in-sync, shows ${value} in sector ${sector}`
        )
      }
      return false
    }
    return true
  }

  /** Whether a host that once held an acknowledged write has not lost power since. */
  #stillHolds(host: SimulatedHost, { holders, acknowledgedAt }: WriteEntry): boolean {
    const joinedAt = this.#joinedAt.get(host) ?? -1
    if (joinedAt > acknowledgedAt && this.#lastLoss(host) < joinedAt) return true
    return holders.includes(host) && this.#lastLoss(host) < acknowledgedAt
  }

  #noteOutliving(): void {
    const hosts = this.#images().filter(([host]) => this.#lastLoss(host) === this.#view.now())
    if (hosts.length === 0) return
    for (const entry of new Set([...this.#sectors.values()].flatMap(({ pending }) => pending))) {
      const held = hosts.filter(([host, image]) => this.#holds(host, image, entry)).map(([host]) => host)
      if (held.length > 0) this.#outlived.set(entry, new Set([...(this.#outlived.get(entry) ?? []), ...held]))
    }
  }

  #everybodyLost(entry: WriteEntry): boolean {
    for (const host of [...entry.holders, ...this.#joinedAt.keys()]) {
      if (this.#stillHolds(host, entry)) return false
    }
    return true
  }

  /** Nothing is left only where the record does not look: on hosts that still hold it, and are not in-sync any more. */
  #requireKept(): void {
    const inSync = this.#view.inSync()
    const endangered = this.#unflushed.filter(
      entry =>
        !entry.mayBeLost &&
        !inSync.some(host => this.#stillHolds(host, entry)) &&
        entry.holders.some(host => this.#stillHolds(host, entry))
    )
    if (endangered.length === 0) return
    const images = this.#images()
    for (const entry of endangered) {
      for (const sector of range(entry)) {
        const { later, pending } = this.#sector(sector)
        const at = later.indexOf(entry)
        if (at < 0 || this.#view.history.exempt.has(sector)) continue
        const values = [...later.slice(at), ...pending].map(valueOf)
        if (images.length === 0 || images.some(([, image]) => values.includes(image.shows(sector)))) continue
        const [keeper] = entry.holders.filter(host => this.#stillHolds(host, entry))
        this.#problem(
          `P1: write ${entry.value} of sector ${sector} was acknowledged, ${keeper!.name} still holds it, and no replica that counts does`
        )
      }
    }
  }

  #lose(lost: readonly WriteEntry[]): void {
    const { history, now } = this.#view
    this.lostAt = now()
    const sectors = new Set(lost.flatMap(range))
    for (const sector of this.#unsettled) {
      const { later, doubt } = this.#sectors.get(sector)!
      if (doubt.length > 0 || later.some(({ mayBeLost }) => mayBeLost)) sectors.add(sector)
    }
    for (const problem of history.split(lost, sectors, now())) this.#view.problem(problem)
  }

  /** Whoever wrote them knows that they may be lost. */
  #forget(lost: readonly WriteEntry[]): void {
    const gone = new Set(lost)
    this.#unflushed = this.#unflushed.filter(entry => !gone.has(entry))
    for (const sector of this.#unsettled) {
      const state = this.#sectors.get(sector)!
      const doubt = state.later.filter(entry => gone.has(entry)).map(({ value }) => value)
      if (doubt.length === 0) continue
      state.doubt.push(...doubt)
      state.later = state.later.filter(entry => !gone.has(entry))
    }
  }

  #requireDurable(
    sectors: Iterable<number>,
    images: readonly (readonly [SimulatedHost, ReplicaImage])[],
    why: string,
    promise = 'P2'
  ): void {
    for (const sector of sectors) {
      const state = this.#sectors.get(sector)!
      for (const [host, image] of images) {
        const wrong = this.#wrongAfterPowerCut(sector, state, image)
        if (wrong === null) continue
        this.#problem(
          `${promise}: ${why}, and after a power cut now ${host.name}, which is in-sync, would show ${wrong} in sector ${sector}`
        )
      }
    }
  }

  #wrongAfterPowerCut(sector: number, state: Sector, image: ReplicaImage): string | null {
    if (this.#view.history.exempt.has(sector)) return null
    const wrong = image.survivors(sector).find(value => !mayShow(state, value))
    return wrong === undefined ? null : `${wrong} instead of ${state.base}`
  }

  #look(images: readonly (readonly [SimulatedHost, ReplicaImage])[], what: string): void {
    const { history } = this.#view
    for (const [sector, state] of this.#sectors) {
      if (history.exempt.has(sector)) continue
      for (const [host, image] of images) {
        const shown = image.shows(sector)
        if (!this.#isRight(state, shown, host)) {
          this.#problem(`${what} ${host.name} shows ${shown} in sector ${sector}, where ${told(state)}`)
        }
        const wrong = this.#wrongAfterPowerCut(sector, state, image)
        if (wrong !== null) {
          this.#problem(`${what} after a power cut ${host.name} would show ${wrong} in sector ${sector}`)
        }
      }
    }
  }

  /** Whether an in-sync replica may show this now. */
  #isRight(state: Sector, value: number, host: SimulatedHost): boolean {
    const last = state.later.at(-1)
    // What it lost with its host's power it gets back from another one before anybody reads it there.
    if (last !== undefined && (last.mayBeLost || !this.#stillHolds(host, last))) return mayShow(state, value)
    if (last === undefined && state.doubt.length > 0) return mayShow(state, value)
    return value === (last?.value ?? state.base) || state.pending.some(entry => entry.value === value)
  }

  #problem(text: string): void {
    this.#problems++
    if (this.#problems <= PROBLEMS_MAX) this.#view.problem(text)
  }
}

/** Whether something at least as new as what is durable. */
const mayShow = ({ base, later, doubt, older, pending }: Sector, value: number): boolean =>
  value === base ||
  doubt.includes(value) ||
  older.includes(value) ||
  later.some(entry => entry.value === value) ||
  pending.some(entry => entry.value === value)

/** What is under way and may come after a change: those that overlap run in the order in which they were asked. */
function newerThan(entry: WriteEntry, { pending }: Sector): WriteEntry[] {
  const at = pending.indexOf(entry)
  return pending.filter((other, index) => index > at && other.tenant.tenure >= entry.tenant.tenure)
}

const valueOf = ({ value }: WriteEntry): number => value

const told = ({ base, later, pending }: Sector): string =>
  `${base} is durable, ${later.map(({ value }) => value).join(' ') || 'nothing'} acknowledged after it and ` +
  `${pending.map(({ value }) => value).join(' ') || 'nothing'} under way`

const range = ({ firstSector, endSector }: WriteEntry): number[] =>
  Array.from({ length: endSector - firstSector }, (_, index) => firstSector + index)
