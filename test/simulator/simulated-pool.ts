/**
 * The pool around a universe's volumes: xosand on every host, an SR that was made before the world began, xapi that
 * calls entry scripts on any host, and the checks of what they leave. The people who make and destroy volumes, rename
 * and resize them are in `operators.ts`.
 */
import {
  hostKey,
  parseKey,
  srKey,
  storeKey,
  volumeInfoKey,
  volumeStateKey,
  volumesPrefix,
} from '../../cluster/keys.ts'
import { serialiseHostRecord, serialiseSrRecord, serialiseStoreRecord } from '../../cluster/records.ts'
import { parseVolumeInfo, parseVolumeState } from '../../cluster/volume-state.ts'
import { type Change, type Entry } from '../../core/ports/coordinator.ts'
import { type ReplicaId, type SrId, type VolumeKey } from '../../core/units.ts'
import { smapiCalls } from '../../volume/smapi.ts'
import { type Guest } from './guest.ts'
import { KnownVolume, Ledger } from './ledger.ts'
import {
  checkCatalogue,
  checkFilesOfRecords,
  CoordinatorHistory,
  halfDone,
  orphans,
} from './metadata-checks.ts'
import { type SmapiAnswer, SimulatedDaemon } from './simulated-daemon.ts'
import { type SimulatedHost } from './simulated-host.ts'
import { type SimulatedCoordinator } from './simulated-coordinator.ts'
import { type SimulatedNetwork } from './network.ts'
import { type SimulatedVolume } from './simulated-volume.ts'
import { type SeededRandom, type World } from './world.ts'

/** How much later than its deadline a call may be answered: clocks differ, in milliseconds and as a part. */
const GRACE_MS = 50
const GRACE_PART = 1.04
/** Longer than anybody needs to end what others left, once all is well, in milliseconds of virtual time. */
const SETTLE_LIMIT_MS = 120_000

/** What a pool is in. */
export interface PoolSurroundings {
  readonly world: World
  readonly network: SimulatedNetwork
  readonly coordinator: SimulatedCoordinator
  readonly hosts: readonly SimulatedHost[]
  /** The replicas that faults have taken. */
  readonly losses: { readonly replicas: ReadonlySet<ReplicaId> }
  readonly sr: SrId
  /** Those that guests use. */
  readonly volumes: readonly SimulatedVolume[]
  /** No fault will come any more, and nobody starts anything. */
  readonly calm: boolean
  readonly faults: {
    count(kind: string): void
    cutPower(hosts: readonly SimulatedHost[], forMs: number): Promise<void>
  }
  problem(text: string): void
}

export class SimulatedPool {
  readonly daemons: readonly SimulatedDaemon[]
  readonly ledger = new Ledger()
  readonly random: SeededRandom
  readonly #universe: PoolSurroundings
  readonly #history = new CoordinatorHistory()
  /** How likely a daemon dies, stops or loses power after an answer. Universes differ. */
  readonly #blowChance: number
  /** Blows fall, and other faults. */
  faultsActive = false
  #domains = 0

  constructor(universe: PoolSurroundings, random: SeededRandom) {
    this.#universe = universe
    this.random = random
    this.#blowChance = random.pick([0, 0.002, 0.01, 0.03])
    const { world, network, coordinator, sr } = universe
    this.daemons = universe.hosts.map(
      host =>
        new SimulatedDaemon({
          world,
          network,
          coordinator,
          host,
          sr,
          daemons: () => this.daemons,
          noticed: daemon => this.#noticed(daemon),
          disconnected: (whose, volume) => {
            for (const guest of this.#guestsOf(whose, volume)) guest.disconnect()
          },
          connectionsTo: (whose, volume) =>
            this.#guestsOf(whose, volume).filter(({ connected }) => connected).length,
        })
    )
  }

  /** Writes the records of the pool and of its SR, and waits until every daemon has them. */
  async begin(): Promise<void> {
    const { coordinator, sr, hosts, world } = this.#universe
    const changes: Change[] = []
    const put = (key: string, serialise: (key: string) => string): void => {
      changes.push({ key, value: serialise(key) })
    }
    for (const daemon of this.daemons) {
      const { host, store } = daemon.records()
      put(hostKey(host.host), key => serialiseHostRecord(key, host))
      put(storeKey(sr, host.host), key => serialiseStoreRecord(key, store))
    }
    put(srKey(sr), key =>
      serialiseSrRecord(key, {
        version: 1,
        sr,
        name: 'simulated',
        description: '',
        generation: 1,
        configuration: {
          copies: this.random.chance(0.75) ? 2 : 3,
          headroom: { unit: 'fraction', amount: 0.1 },
        },
        hosts: hosts.map(({ id }) => id),
        createdBy: hosts[0]!.id,
      })
    )
    coordinator.transact('creation', [], changes)
    for (const daemon of this.daemons) daemon.start()
    while (!this.daemons.every(({ plane }) => plane!.metadata.sr(sr) !== null)) await world.pause(10)
  }

  daemonOf(host: SimulatedHost): SimulatedDaemon {
    return this.daemons.find(daemon => daemon.host === host)!
  }

  /** A daemon that could answer, if there is one. */
  anyDaemon(random: SeededRandom): SimulatedDaemon | null {
    const candidates = this.daemons.filter(({ running }) => running)
    return candidates.length === 0 ? null : random.pick(candidates)
  }

  /** A domain that nobody had before. */
  newDomain(): string {
    return `u0_${++this.#domains}`
  }

  observe(revision: number, changes: readonly Change[]): void {
    this.#history.observe(revision, changes)
  }

  /** Calls an entry script; it must be answered within its deadline (P9) unless its xosand died or was stopped. */
  async call(
    daemon: SimulatedDaemon,
    plugin: 'volume' | 'datapath',
    name: string,
    parameters: Readonly<Record<string, unknown>>
  ): Promise<SmapiAnswer> {
    const { world } = this.#universe
    const { deadlineMs } = smapiCalls[plugin][name]!
    const { process, running, stops } = daemon
    let answered = false
    world.after(deadlineMs * GRACE_PART + GRACE_MS, () => {
      const interrupted = !running || process?.alive !== true || daemon.stops !== stops
      if (!answered && !interrupted)
        this.#problem(`P9: ${name} on ${daemon.host.name} is not answered in time`)
    })
    const answer = await daemon.smapi(plugin, name, parameters)
    answered = true
    world.log('xapi', `${name} on ${daemon.host.name}: ${told(answer)}`)
    if (answer.kind === 'failed' && answer.error.startsWith('INTERNAL:'))
      this.#problem(`P5: ${name} on ${daemon.host.name} failed with ${answer.error}`)
    return answer
  }

  /** Makes a volume. @returns null when that was refused, or nobody knows */
  async createVolume(daemon: SimulatedDaemon, size: number): Promise<KnownVolume | null> {
    const { world, sr } = this.#universe
    const name = `volume ${this.random.uuid().slice(0, 8)}`
    const parameters = { sr, name, description: '', size, sharable: false }
    const answer = await this.call(daemon, 'volume', 'Volume.create', parameters)
    if (answer.kind === 'failed') this.ledger.refused.add(name)
    if (answer.kind !== 'done') return null
    const { key } = answer.value as { key: VolumeKey }
    const volume = new KnownVolume(key, name, size, world.now)
    this.ledger.volumes.set(key, volume)
    return volume
  }

  /** Destroys a volume. @returns whether it is gone */
  async destroyVolume(daemon: SimulatedDaemon, volume: KnownVolume): Promise<boolean> {
    const { world, sr } = this.#universe
    volume.destroyInvokedAt = Math.min(volume.destroyInvokedAt, world.now)
    const answer = await this.call(daemon, 'volume', 'Volume.destroy', { sr, key: volume.key })
    if (answer.kind !== 'done') return false
    volume.destroyedAt = Math.min(volume.destroyedAt, world.now)
    return true
  }

  /** Lists the SR, as a scan does. */
  async list(daemon: SimulatedDaemon): Promise<void> {
    const { world, sr } = this.#universe
    const invokedAt = world.now
    const answer = await this.call(daemon, 'volume', 'SR.ls', { sr })
    if (answer.kind !== 'done') return
    const keys = (answer.value as { key: string }[]).map(({ key }) => key)
    for (const problem of this.ledger.problemsOfList(keys, invokedAt, world.now)) this.#problem(problem)
  }

  /** Looks again and again whether catalogues and files are what the records say. */
  async watch(): Promise<void> {
    const { world, coordinator, hosts, sr } = this.#universe
    while (!this.#universe.calm) {
      await world.pause(this.random.between(100, 1_000))
      const daemon = this.random.pick(this.daemons)
      const problem =
        checkCatalogue(this.#history, daemon) ??
        checkFilesOfRecords(
          coordinator.list(volumesPrefix(sr)).entries,
          hosts,
          this.#universe.losses.replicas
        )
      if (problem === null) continue
      this.#problem(problem)
      return
    }
  }

  /** Waits until nothing is half-done, everywhere: once all faults are over that comes by itself (P9). */
  async settle(): Promise<void> {
    const { world, coordinator, hosts } = this.#universe
    const limit = world.now + SETTLE_LIMIT_MS
    for (;;) {
      const { entries, revision } = coordinator.list('')
      const behind = this.daemons.filter(({ plane }) => (plane?.metadata.reached ?? 0) < revision)
      const left = [
        ...halfDone(entries),
        ...this.#openForNobody(entries),
        ...orphans(entries, hosts),
        ...behind.map(({ host }) => `the catalogue of ${host.name} is behind`),
      ]
      if (left.length === 0) return
      if (world.now > limit) {
        for (const what of left) this.#problem(`P9: long after the faults there is still: ${what}`)
        return
      }
      await world.pause(500)
    }
  }

  /** Volumes that a host has open though no domain there has them: nobody would ever close them. */
  #openForNobody(entries: readonly Entry[]): string[] {
    return entries.flatMap(({ key, value }) => {
      const parsed = parseKey(key)
      if (parsed.kind !== 'volume-state') return []
      const { primary } = parseVolumeState(key, value)
      const daemon = this.daemons.find(({ host }) => host.id === primary)
      if (daemon?.plane?.context.references.isHeld(parsed.volume, 'activated') !== false) return []
      return [`volume ${parsed.volume.slice(0, 8)} is open on ${daemon.host.name}, and no domain has it`]
    })
  }

  /** All is over and at rest: every record is what the ledger says. */
  verify(): void {
    const { coordinator, sr, hosts } = this.#universe
    const { entries } = coordinator.list(volumesPrefix(sr))
    const info = new Map(entries.map(({ key, value }) => [key, value]))
    for (const { key, name } of this.#volumesInCoordinator()) {
      if (this.ledger.refused.has(name))
        this.#problem(`P8: volume ${key.slice(0, 8)} is there, whose creation was refused`)
    }
    for (const volume of this.ledger.volumes.values()) {
      const [stateKey, infoKey] = [volumeStateKey(sr, volume.key), volumeInfoKey(sr, volume.key)]
      const [state, text] = [info.get(stateKey), info.get(infoKey)]
      const id = volume.key.slice(0, 8)
      if (state === undefined || text === undefined) {
        if (volume.destroyInvokedAt === Infinity) this.#problem(`P8: volume ${id} is gone`)
        continue
      }
      if (volume.destroyedAt !== Infinity) this.#problem(`P8: volume ${id} is there, which was destroyed`)
      const problems = volume.problemsOf(parseVolumeState(stateKey, state), parseVolumeInfo(infoKey, text))
      for (const problem of problems) this.#problem(problem)
    }
    for (const daemon of this.daemons) {
      const problem = checkCatalogue(this.#history, daemon)
      if (problem !== null) this.#problem(problem)
    }
    const problem = checkFilesOfRecords(entries, hosts)
    if (problem !== null) this.#problem(problem)
  }

  /** Destroys everything that is left, and looks for what stays behind. */
  async end(): Promise<void> {
    const { world, sr } = this.#universe
    const limit = world.now + SETTLE_LIMIT_MS
    for (const { key } of this.#volumesInCoordinator()) {
      for (;;) {
        const daemon = this.random.pick(this.daemons)
        const answer = await this.call(daemon, 'volume', 'Volume.destroy', { sr, key })
        if (answer.kind === 'done') break
        if (world.now > limit) {
          this.#problem(`P9: volume ${key.slice(0, 8)} cannot be destroyed: ${told(answer)}`)
          break
        }
        await world.pause(500)
      }
    }
    await this.settle()
    for (const daemon of this.daemons) {
      const answer = await this.call(daemon, 'volume', 'SR.ls', { sr })
      const isEmpty = answer.kind === 'done' && (answer.value as unknown[]).length === 0
      if (!isEmpty)
        this.#problem(`P8: an SR without volumes is listed on ${daemon.host.name}: ${told(answer)}`)
    }
  }

  /** Frees what the garbage collector does not. */
  free(): void {
    for (const daemon of this.daemons) daemon.database.free()
  }

  #volumesInCoordinator(): { readonly key: VolumeKey; readonly name: string }[] {
    const { coordinator, sr } = this.#universe
    const prefix = volumesPrefix(sr)
    return coordinator.list(prefix).entries.flatMap(({ key, value }) => {
      if (!key.endsWith('/info')) return []
      return [{ key: key.split('/')[3] as VolumeKey, name: parseVolumeInfo(key, value).name }]
    })
  }

  /** A daemon has got an answer, and may not live to use it. */
  #noticed(daemon: SimulatedDaemon): void {
    if (!this.faultsActive || !this.random.chance(this.#blowChance)) return
    const { world, faults } = this.#universe
    const { random } = this
    world.after(random.chance(0.5) ? 0 : random.between(0, 5), () => {
      if (!this.faultsActive) return
      const blow = random.pick(['dies', 'dies', 'stops', 'loses power'] as const)
      faults.count(`xosand at work: ${blow}`)
      world.log('FAULT', `${daemon.name} ${blow} after an answer`)
      if (blow === 'dies') void this.killDaemon(daemon, random.between(20, 3_000))
      else if (blow === 'stops') void this.stopDaemon(daemon, random.between(20, 20_000))
      else void faults.cutPower([daemon.host], random.between(500, 6_000))
    })
  }

  /** xosand of a host dies and is started again. */
  async killDaemon(daemon: SimulatedDaemon, forMs: number): Promise<void> {
    daemon.kill()
    await this.#universe.world.pause(forMs)
    daemon.start()
  }

  /** xosand of a host is stopped and goes on later. */
  async stopDaemon(daemon: SimulatedDaemon, forMs: number): Promise<void> {
    const { process } = daemon
    if (process === null || process.paused) return
    daemon.stop()
    await this.#universe.world.pause(forMs)
    if (daemon.process === process) daemon.goOn()
  }

  /** All daemons run, and no fault comes any more. */
  heal(): void {
    this.faultsActive = false
    for (const daemon of this.daemons) {
      daemon.goOn()
      daemon.start()
    }
  }

  #guestsOf(host: SimulatedHost, key: VolumeKey): readonly Guest[] {
    const volume = this.#universe.volumes.find(candidate => candidate.key === key)
    return volume?.guests.filter(({ process }) => process === host.process) ?? []
  }

  #problem(text: string): void {
    this.#universe.problem(text)
  }
}

const told = (answer: SmapiAnswer): string => {
  if (answer.kind === 'failed') return answer.error
  return answer.kind === 'lost' ? 'lost' : brief(answer.value)
}

const brief = (value: unknown): string => {
  const text = JSON.stringify(value).replace(/([0-9a-f]{8})-[0-9a-f-]{27}/g, '$1')
  return text.length > 200 ? `${text.slice(0, 200)}...` : text
}
