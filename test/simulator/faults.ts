import { DEFAULT_TIMING } from '../../core/mirror/timing.ts'
import { replicasOf } from '../../core/mirror/volume-change.ts'
import { type Millis } from '../../core/units.ts'
import { USUAL_DELAY_MS } from './network.ts'
import { type DiskFaultKind, DiskFaults } from './disk-faults.ts'
import { Oddities, type OddityKind } from './oddities.ts'
import { type Fate } from './simulated-coordinator.ts'
import { type SimulatedHost } from './simulated-host.ts'
import { type SimulatedVolume } from './simulated-volume.ts'
import { type Universe } from './universe.ts'
import { type SeededRandom } from './world.ts'

type Kind =
  | 'host is gone'
  | 'process dies'
  | 'process dies while cut off'
  | 'process stops'
  | 'process is replaced'
  | 'power cut'
  | 'power cut everywhere'
  | 'link cut'
  | 'link cut one way'
  | 'host cut off'
  | 'slow disk'
  | 'disk hangs'
  | 'slow network'
  | 'coordinator away'
  | 'coordinator unsure'
  | 'coordinator flickers'
  | 'primary left behind'
  | 'contention'
  | 'return under load'
  | 'plot'
  | 'record unreadable'
  | DiskFaultKind
  | OddityKind

/** How often each kind is drawn, relative to the others. */
const WEIGHTS: Readonly<Record<Kind, number>> = {
  'host is gone': 3,
  'process dies': 5,
  'process dies while cut off': 3,
  'process stops': 4,
  'process is replaced': 2,
  'power cut': 4,
  'power cut everywhere': 0.6,
  'link cut': 3,
  'link cut one way': 4,
  'host cut off': 3,
  'slow disk': 2,
  'disk hangs': 4,
  'slow network': 1,
  'coordinator away': 2,
  'coordinator unsure': 4,
  'coordinator flickers': 2,
  'primary left behind': 5,
  contention: 4,
  'return under load': 3,
  plot: 10,
  'disk full': 5,
  'disk fails': 5,
  'syncs fail': 3,
  'maps cannot be written': 2,
  'bad sectors': 2,
  'replica lost': 1,
  'store lost': 0.7,
  'disk wears out': 0.5,
  'metadata rot': 1,
  'data rot': 0.5,
  'store not mounted': 2,
  'a volume is removed': 3,
  'processes are made up': 0.5,
  'record unreadable': 0.7,
}

/**
 * In most universes only some kinds of faults come, others in each: what one kind brings to light another may hide, and a
 * plot that everything disturbs never comes to its end (Groce et al., "Swarm testing", 2012).
 */
function swarm(random: SeededRandom): Kind[] {
  const all = Object.keys(WEIGHTS) as Kind[]
  if (random.chance(0.4)) return all
  const some = all.filter(() => random.chance(0.4))
  return some.length === 0 ? all : some
}

/**
 * What comes in a steady universe, seldom, and each for long: while something stays broken, and nothing else happens, all
 * others must go on within the times that are promised (`liveness.ts`). In a restless one those bounds hardly ever run.
 */
const STEADY: readonly Kind[] = [
  'host is gone',
  'process stops',
  'link cut',
  'link cut one way',
  'host cut off',
  'disk hangs',
  'coordinator away',
]
/** Between two faults of a steady universe, in milliseconds, in the mean. */
const STEADY_GAP_MS = 8_000
/** How long a plot waits for the one before it to be over, with all that came of it; in milliseconds. */
const WELL_LIMIT_MS = 12_000

type Link = readonly [SimulatedHost, SimulatedHost]

/** Brings faults upon a universe, several at a time, and takes them away again. */
export class FaultSchedule {
  readonly counts: Record<string, number> = {}
  readonly #universe: Universe
  readonly #random: SeededRandom
  /** The kinds that come in this universe. */
  readonly #kinds: readonly Kind[]
  readonly #away = new Set<string>()
  readonly #unsure = new Set<string>()
  readonly #blind = new Set<string>()
  readonly #flaky = new Set<string>()
  readonly #coordinatorDisturbedAt = new Map<string, number>()
  readonly disks: DiskFaults
  readonly #oddities: Oddities
  #over = false

  constructor(universe: Universe) {
    this.#universe = universe
    this.#random = universe.world.random.fork()
    const kinds = swarm(this.#random)
    this.#kinds = universe.steady ? STEADY : kinds
    this.disks = new DiskFaults(universe, this)
    this.#oddities = new Oddities(universe, this.#random.fork())
  }

  /** What becomes of a call to the coordinator. */
  fateOf(client: string): Fate {
    const random = this.#random
    const beforeMs = random.between(0.2, 3) as Millis
    const afterMs = random.between(0.2, 3) as Millis
    if (this.#away.has(client)) return { kind: 'unavailable', afterMs: 300 as Millis }
    if (this.#flaky.has(client) && random.chance(0.4))
      return { kind: 'unavailable', afterMs: random.between(5, 100) as Millis }
    if (this.#unsure.has(client) && random.chance(0.4)) {
      const effectMs = random.chance(0.4) ? null : (random.between(1, 1500) as Millis)
      return { kind: 'unknown', afterMs: random.between(5, 800) as Millis, effectMs }
    }
    if (this.#blind.has(client)) {
      const effectMs = random.chance(0.1) ? null : (random.between(1, 300) as Millis)
      return { kind: 'unknown', afterMs: random.between(5, 60) as Millis, effectMs }
    }
    return { kind: 'answer', beforeMs, afterMs }
  }

  /** Whether a host reaches the coordinator and learns what it did there, and since when that is as it is. */
  coordinatorOf(client: string): { readonly isWell: boolean; readonly disturbedAt: number } {
    const isUnwell = [this.#away, this.#unsure, this.#blind, this.#flaky].some(how => how.has(client))
    const isWell = !isUnwell && !this.#oddities.isUnreadable
    return { isWell, disturbedAt: this.#coordinatorDisturbedAt.get(client) ?? 0 }
  }

  /** Whether some record could not be read at some time. */
  get hasSpoiled(): boolean {
    return this.counts['record unreadable' satisfies Kind] !== undefined
  }

  /** Everything is healed, and nothing strikes any more. */
  get over(): boolean {
    return this.#over
  }

  /** Counts a fault for the summary. */
  count(kind: string): void {
    this.counts[kind] = (this.counts[kind] ?? 0) + 1
  }

  /** Lets faults happen for a time, in milliseconds; everything is healed when this resolves. */
  async run(durationMs: number): Promise<void> {
    const { world, coincidences } = this.#universe
    coincidences.active = true
    // Universes differ in how rough they are.
    const roughMs = this.#random.between(400, 4_000)
    const { steady, staged, plots } = this.#universe
    const meanGapMs = steady ? STEADY_GAP_MS : roughMs
    const until = world.now + durationMs * (staged ? 1.5 : 1)
    while (staged && world.now < until) {
      await plots.play()
      await this.#untilWell()
    }
    while (world.now < until) {
      await world.pause(this.#random.between(0, 2 * meanGapMs))
      void this.#strike(this.#draw())
    }
    this.#over = true
    coincidences.active = false
    this.#healAll()
  }

  /** Waits until every host runs and every replica is in-sync, but not for ever. */
  async #untilWell(): Promise<void> {
    const { world, hosts, volumes } = this.#universe
    const limit = world.now + WELL_LIMIT_MS
    const isWell = (): boolean =>
      hosts.every(host => host.running && !host.storeIsMissing) &&
      volumes.every(volume => replicasOf(this.#universe.stateOf(volume)).every(({ inSync }) => inSync))
    do await world.pause(this.#random.between(300, 2_000))
    while (world.now < limit && !isWell())
  }

  #draw(): Kind {
    const kinds = this.#kinds
    let at = this.#random.fraction() * kinds.reduce((sum, kind) => sum + WEIGHTS[kind], 0)
    for (const kind of kinds) {
      at -= WEIGHTS[kind]
      if (at < 0) return kind
    }
    return kinds[0]!
  }

  async #strike(kind: Kind): Promise<void> {
    const { world, hosts, volumes, network, coincidences, plots } = this.#universe
    const random = this.#random
    const host = random.pick(hosts)
    const other = random.pick(hosts.filter(candidate => candidate !== host))
    const isLong = this.#universe.steady || kind === 'host is gone'
    const brieflyMs = random.chance(0.6) ? random.between(20, 1_500) : random.between(1_500, 25_000)
    const durationMs = isLong ? random.between(10_000, 30_000) : brieflyMs
    this.count(kind)
    world.log('FAULT', `${kind}: ${host.name} for ${durationMs.toFixed(0)} ms`)
    switch (kind) {
      case 'host is gone':
        return random.chance(0.5) ? this.kill(host, durationMs) : this.cutPower([host], durationMs)
      case 'process dies':
        return this.kill(host, random.between(50, 1_500))
      case 'process dies while cut off':
        // What it promised is forgotten while the one it promised to cannot remind it.
        void this.cut(both(host, other), durationMs)
        return this.kill(host, random.between(20, 300))
      case 'process stops':
        return this.stop(host, durationMs)
      case 'process is replaced':
        return this.replace(host, random.between(20, 4_000))
      case 'power cut':
        return this.cutPower([host], random.between(500, 12_000))
      case 'power cut everywhere':
        return this.cutPower(hosts, random.between(500, 5_000))
      case 'link cut':
        return this.cut(both(host, other), durationMs)
      case 'link cut one way':
        return this.cut([[host, other]], durationMs)
      case 'host cut off':
        return this.isolate(host, hosts, random.chance(0.5), durationMs)
      case 'slow disk':
        return this.slowDisk(host, random.between(5, 200), Math.min(durationMs, 8_000))
      case 'disk hangs':
        return this.hangDisk(
          host,
          random.chance(0.3) ? REQUEST_MS + random.between(0, 1_200) : 2 * durationMs
        )
      case 'slow network':
        network.delayMs = random.between(2, 60)
        await world.pause(durationMs)
        network.delayMs = USUAL_DELAY_MS
        return
      case 'coordinator away':
        return this.#troubleCoordinator(this.#away, random.chance(0.5) ? hosts : [host], durationMs)
      case 'coordinator unsure':
        return this.doubt(host, durationMs)
      case 'coordinator flickers':
        return this.#troubleCoordinator(this.#flaky, random.chance(0.5) ? hosts : [host], durationMs)
      case 'primary left behind':
        return coincidences.leavePrimaryBehind()
      case 'contention':
        return coincidences.contend()
      case 'return under load':
        return coincidences.returnUnderLoad()
      case 'plot':
        return plots.play()
      case 'disk full':
      case 'disk fails':
      case 'syncs fail':
      case 'maps cannot be written':
      case 'bad sectors':
      case 'replica lost':
      case 'store lost':
      case 'disk wears out':
      case 'metadata rot':
      case 'data rot':
      case 'store not mounted':
        return this.disks.strike(kind, host, durationMs)
      case 'a volume is removed':
      case 'processes are made up':
        return this.#oddities.strike(kind, host)
      case 'record unreadable':
        return this.spoilRecord(random.pick(volumes), Math.min(durationMs, 6_000))
    }
  }

  /** A host's process dies, and another is started a while later. */
  async kill(host: SimulatedHost, forMs: number): Promise<void> {
    if (this.#over || host.process === null) return
    host.crash()
    await this.#universe.world.pause(forMs)
    host.start()
  }

  /** A host's process is told to end in order, as for an upgrade; if that takes too long it is killed. */
  async replace(host: SimulatedHost, withinMs: number): Promise<void> {
    const { process } = host
    if (this.#over || !host.running) return
    await host.end(withinMs as Millis)
    if (host.process !== process) return
    // Also when the faults are over meanwhile: what has ended serves nobody, and must make room for the next one.
    host.crash()
    await this.#universe.world.pause(this.#random.between(20, 500))
    host.start()
  }

  /** A host's process is stopped and goes on later. */
  async stop(host: SimulatedHost, forMs: number): Promise<void> {
    const { process } = host
    if (this.#over || process === null || !host.running) return
    host.pause()
    await this.#universe.world.pause(forMs)
    if (host.process === process && process.paused) host.resume()
  }

  /** Hosts lose power at the same instant, and come back one after the other. */
  async cutPower(hosts: readonly SimulatedHost[], forMs: number): Promise<void> {
    if (this.#over) return
    const hit = hosts.filter(({ poweredOn }) => poweredOn)
    // Whatever it leaves.
    if (hit.length > 0) for (const volume of this.#universe.volumes) this.#universe.checkIntents(volume)
    for (const host of hit) host.cutPower()
    if (hit.length > 0) this.#universe.losses.ofWrites()
    for (const host of hit) {
      await this.#universe.world.pause(forMs * this.#random.between(0.2, 1))
      host.start()
    }
  }

  /** Links are cut, each in its one direction. */
  async cut(links: readonly Link[], forMs: number): Promise<void> {
    if (this.#over) return
    const { network, world } = this.#universe
    const real = links.filter(([from, to]) => from !== to)
    for (const [from, to] of real) network.cut(from, to)
    await world.pause(forMs)
    for (const [from, to] of real) network.join(from, to)
  }

  /** A host is cut off from others, now and then in one direction only, perhaps from the coordinator too. */
  async isolate(
    host: SimulatedHost,
    from: readonly SimulatedHost[],
    withoutCoordinator: boolean,
    forMs: number
  ): Promise<void> {
    const links: Link[] = []
    for (const other of from) {
      if (other === host) continue
      links.push([other, host])
      if (this.#random.chance(0.7)) links.push([host, other])
    }
    const cut = this.cut(links, forMs)
    if (withoutCoordinator) await this.#troubleCoordinator(this.#away, [host], forMs)
    await cut
  }

  /** Every call of a host's disk takes so many times as long. */
  async slowDisk(host: SimulatedHost, factor: number, forMs: number): Promise<void> {
    if (this.#over) return
    host.diskSlowness = factor
    await this.#universe.world.pause(forMs)
    host.diskSlowness = 1
  }

  /** No call of a host's disk comes back for a time; then all of them do, in any order. */
  async hangDisk(host: SimulatedHost, forMs: number): Promise<void> {
    if (this.#over || host.diskHangs) return
    host.hangDisk()
    await this.#universe.world.pause(forMs)
    host.freeDisk()
  }

  /** A host often does not learn what its calls to the coordinator did. */
  async doubt(host: SimulatedHost, forMs: number): Promise<void> {
    return this.#troubleCoordinator(this.#unsure, [host], forMs)
  }

  /** A host never learns what its calls to the coordinator did, most of which do it soon. */
  async doubtEverything(host: SimulatedHost, forMs: number): Promise<void> {
    return this.#troubleCoordinator(this.#blind, [host], forMs)
  }

  /** Hosts do not reach the coordinator. */
  async withoutCoordinator(hosts: readonly SimulatedHost[], forMs: number): Promise<void> {
    return this.#troubleCoordinator(this.#away, hosts, forMs)
  }

  async #troubleCoordinator(how: Set<string>, hosts: readonly SimulatedHost[], forMs: number): Promise<void> {
    if (this.#over) return
    const { world } = this.#universe
    for (const { name } of hosts) {
      how.add(name)
      this.#coordinatorDisturbedAt.set(name, world.now)
    }
    await world.pause(forMs)
    for (const { name } of hosts) {
      how.delete(name)
      this.#coordinatorDisturbedAt.set(name, world.now)
    }
  }

  /** Nobody can read the record of a volume. */
  async spoilRecord(volume: SimulatedVolume, forMs: number): Promise<void> {
    if (this.#over || this.#universe.pool !== null) return
    const odd = this.#oddities.spoil(volume, forMs)
    this.#disturbCoordinator()
    await odd
    this.#disturbCoordinator()
  }

  #disturbCoordinator(): void {
    const { hosts, world } = this.#universe
    for (const { name } of hosts) this.#coordinatorDisturbedAt.set(name, world.now)
  }

  #healAll(): void {
    const { hosts, network } = this.#universe
    this.#away.clear()
    this.#unsure.clear()
    this.#blind.clear()
    this.#flaky.clear()
    this.#oddities.heal()
    this.#disturbCoordinator()
    network.delayMs = USUAL_DELAY_MS
    network.heal()
    this.disks.heal()
    for (const host of hosts) {
      host.diskSlowness = 1
      host.freeDisk()
      if (host.process?.paused === true) host.resume()
      host.start()
    }
  }
}

/** What hung for just so long comes back while others take over what it was asked, in milliseconds. */
const REQUEST_MS = DEFAULT_TIMING.requestTimeMs

const both = (one: SimulatedHost, other: SimulatedHost): readonly Link[] => [
  [one, other],
  [other, one],
]
