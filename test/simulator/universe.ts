/**
 * One universe: hosts, volumes, guests and an administrator under faults, from one seed. What runs in it is the
 * production code of `core/`, `datapath/mirror`, `datapath/resync`, `datapath/replica-local` and
 * `datapath/process`; replaced are the clock, the network, the disks, the coordinator's store and the dice.
 *
 * Faults within the budget, all at once and in any order: processes die or stop for up to half a minute, hosts lose
 * power (one, some, all), links are cut in one or both directions, disks and links are slow, the coordinator is
 * away, late, or silent about what it did. Then everything heals, and what must be true in the end is checked.
 */
import { volumeStateKey } from '../../cluster/keys.ts'
import { hasCode, reasonOf, XosanError } from '../../core/errors.ts'
import { DEFAULT_BATCHES, type MirrorBatches } from '../../core/mirror/batches.ts'
import { DEFAULT_TIMING } from '../../core/mirror/timing.ts'
import { inSyncReplicas, replicasOf } from '../../core/mirror/volume-change.ts'
import { type VolumeState } from '../../core/mirror/volume-record.ts'
import { type Entry } from '../../core/ports/coordinator.ts'
import { type ByteOffset, type Millis, REGION_BYTES, type SrId } from '../../core/units.ts'
import { Administrator } from './administrator.ts'
import { characterOf } from './character.ts'
import { Coincidences } from './coincidences.ts'
import { FaultSchedule } from './faults.ts'
import { SECTOR_BYTES } from './history.ts'
import { Impostor } from './impostor.ts'
import { Liveness } from './liveness.ts'
import { isMistake } from './mistakes.ts'
import { SimulatedNetwork } from './network.ts'
import { Losses } from './losses.ts'
import { makeThroughXosand, makeVolume } from './making-volumes.ts'
import { Onlookers } from './onlookers.ts'
import { Operators } from './operators.ts'
import { Plots } from './plots.ts'
import { Search } from './promises.ts'
import { tryParseState, volumeOfKey } from './records.ts'
import { checkEnd, checkEquality, checkIntents } from './replica-checks.ts'
import { checkRecoverable } from './recoverable.ts'
import { SimulatedCoordinator } from './simulated-coordinator.ts'
import { SimulatedHost } from './simulated-host.ts'
import { SimulatedPool } from './simulated-pool.ts'
import { type SimulatedVolume } from './simulated-volume.ts'
import { Transitions } from './transitions.ts'
import { SeededRandom, World } from './world.ts'
import { throughXosand } from './xapi-access.ts'

export interface UniverseReport {
  readonly seed: number
  readonly problems: readonly string[]
  readonly virtualMs: number
  readonly events: number
  readonly operations: number
  readonly faults: Readonly<Record<string, number>>
  readonly takeovers: number
  readonly resyncs: number
  /** Steps of the protocol that were seen, and how often. */
  readonly transitions: Readonly<Record<string, number>>
}

/** What a request of an administrator may end with while there is trouble. */
const ADMITTED = new Set([
  'ACTIVATED_ON_ANOTHER_HOST',
  'NO_REPLICA_REACHABLE',
  'DEADLINE_EXCEEDED',
  'COORDINATOR_UNAVAILABLE',
])

/** After the faults: what is not well again by then, in milliseconds of virtual time, is stuck. */
const RECOVERY_LIMIT_MS = 120_000
/** Longer than any request may take, in milliseconds of virtual time. */
const REST_LIMIT_MS = 30_000
/** How soon a new mirror is noticed by those who only watch, in milliseconds of virtual time. */
const FOLLOW_INTERVAL_MS = 20
/** The part of the universes that have xosand on their hosts: it costs, and what it does not touch is found without. */
const PART_WITH_POOL = 0.4
/** Sets the choice apart from all others that the seed decides. */
const POOL_SEED = 0x706f6f6c
const BATCH_SEED = 0x62617463
const SECTORS_PER_REGION = REGION_BYTES / SECTOR_BYTES

export class Universe {
  readonly world: World
  readonly network: SimulatedNetwork
  readonly coordinator: SimulatedCoordinator
  readonly hosts: SimulatedHost[] = []
  readonly faults: FaultSchedule
  readonly coincidences: Coincidences
  readonly plots: Plots
  readonly administrator: Administrator
  readonly transitions = new Transitions()
  readonly #seed: number
  readonly #random: SeededRandom
  readonly sr: SrId
  readonly volumes: SimulatedVolume[] = []
  readonly losses = new Losses(this)
  readonly #problems: string[] = []
  /** Records that were parsed once: they are looked at a thousand times for each change. */
  readonly #states = new WeakMap<Entry, VolumeState>()
  readonly #lastStates = new Map<string, VolumeState>()
  /** xosand on every host; null in a universe of datapath processes alone. */
  readonly pool: SimulatedPool | null
  /** Whose replica the bytes of a read are from. */
  readonly #readFrom = new WeakMap<Uint8Array, SimulatedHost>()
  readonly liveness: Liveness
  readonly #search: Search
  #resyncs = 0
  /** Little happens at once; what is broken stays so for a while, and guests stay where they are. */
  readonly steady: boolean
  /** Only plots are played: what else happens would keep them from their end. */
  readonly staged: boolean
  /** No fault will come any more, and nobody starts anything. */
  calm = false

  constructor(seed: number, log: (line: string) => void = () => undefined, search = new Search()) {
    this.#seed = seed
    this.#search = search
    ;({ steady: this.steady, staged: this.staged } = characterOf(seed))
    this.world = new World(seed, line => {
      if (line.includes('replica is in-sync')) this.#resyncs++
      log(line)
    })
    this.#random = this.world.random.fork()
    this.network = new SimulatedNetwork(this.world)
    this.sr = this.#random.uuid() as SrId
    this.faults = new FaultSchedule(this)
    this.coincidences = new Coincidences(this)
    this.plots = new Plots(this)
    this.liveness = new Liveness({
      hosts: this.hosts,
      network: this.network,
      faults: this.faults,
      now: () => this.world.now,
      stateOf: volume => this.stateOf(volume),
      problem: text => this.problem(text),
    })
    this.coordinator = new SimulatedCoordinator({
      clock: { now: () => this.world.now as Millis, after: (ms, action) => this.world.after(ms, action) },
      decide: ({ client, verb }) => {
        const fate = this.faults.fateOf(client)
        if (fate.kind === 'unknown' && verb === 'transact') {
          this.coincidences.noticed('did not learn what it did', this.#hostNamed(client)!)
        }
        return fate
      },
      callTimeMs: 1000 as Millis,
      observe: (revision, client, changes) => this.#observe(revision, client, changes),
    })
    // Volumes are small: what is done in batches would hardly ever be more than one.
    const ownRandom = new SeededRandom(seed ^ BATCH_SEED)
    const batches: MirrorBatches = {
      regionsPerRound: ownRandom.pick([2, DEFAULT_BATCHES.regionsPerRound]),
      copiedBytes: ownRandom.pick([2, 8, 32]) * REGION_BYTES,
    }
    const impostor = new Impostor(ownRandom.fork(), text => this.problem(text))
    const count = 3 + this.#random.below(2)
    for (let i = 1; i <= count; i++) {
      const { world, network, coordinator } = this
      const hosts = (): readonly SimulatedHost[] => this.hosts
      this.hosts.push(
        new SimulatedHost({
          world,
          network,
          coordinator,
          timing: DEFAULT_TIMING,
          batches,
          sr: this.sr,
          name: `h${i}`,
          hosts,
          observer: {
            noticed: (moment, host) => this.coincidences.noticed(moment, host),
            problem: text => this.problem(text),
            writesWereLost: () => this.losses.ofWrites(),
            readFrom: (bytes, host) => this.#readFrom.set(bytes, host),
            saw: (message, answer) => this.transitions.saw(message, answer),
            confirmed: (host, node, request) => impostor.overheard(host, node, request),
            said: (host, event, facts) => {
              if (event === 'replaced') this.#checkReplaced(host, String(facts['volume']))
            },
          },
        })
      )
    }
    const poolRandom = new SeededRandom(seed ^ POOL_SEED)
    this.pool = poolRandom.chance(PART_WITH_POOL) ? new SimulatedPool(this, poolRandom) : null
    this.administrator = new Administrator(
      this,
      this.pool === null ? undefined : throughXosand(this.pool, this.sr)
    )
  }

  /** Follows every mirror from soon after it was made. */
  async #followMirrors(): Promise<void> {
    while (!this.calm) {
      for (const { running, node } of this.hosts) {
        if (!running) continue
        for (const { mirror } of node!.volumes()) if (mirror !== null) void this.transitions.follow(mirror)
      }
      await this.world.pause(FOLLOW_INTERVAL_MS)
    }
  }

  #hostNamed(name: string): SimulatedHost | undefined {
    return this.hosts.find(host => host.name === name)
  }

  #note(problem: string | null): void {
    if (problem !== null) this.problem(problem)
  }

  cannotRead(volume: SimulatedVolume, first: number, end: number): boolean {
    return this.faults.disks.cannotRead(volume, first, end)
  }

  problem(text: string): void {
    this.world.log('CHECK', text)
    this.#problems.push(text)
    this.#search.saw(text)
  }

  /** Runs from the first moment to the last check. */
  async run(): Promise<UniverseReport> {
    // In a real process it would be the end of it.
    const uncaught = (error: unknown): void => this.problem(`P9: nobody caught: ${reasonOf(error)}`)
    process.on('unhandledRejection', uncaught)
    try {
      await this.world.runUntil(Promise.race([this.#live(), this.#search.over]), 1_000_000)
    } catch (error) {
      this.problem(`P9: ${reasonOf(error)}`)
    } finally {
      process.off('unhandledRejection', uncaught)
      this.pool?.free()
    }
    return {
      seed: this.#seed,
      problems: this.#problems,
      virtualMs: this.world.now,
      events: this.world.events,
      operations: this.volumes.reduce((sum, { history }) => sum + history.requests, 0),
      faults: this.faults.counts,
      takeovers: this.administrator.activations,
      resyncs: this.#resyncs,
      transitions: this.transitions.counts,
    }
  }

  async #live(): Promise<void> {
    for (const host of this.hosts) host.start()
    await this.pool?.begin()
    const volumes = 1 + this.#random.below(2)
    for (let i = 0; i < volumes; i++) {
      const random = this.#random.fork()
      const making =
        this.pool === null ? makeVolume(this, random) : makeThroughXosand(this, this.pool, random)
      this.volumes.push(await making)
    }
    const people = this.volumes.map(async volume => this.administrator.keepRunning(volume))
    const rivals = this.volumes.filter(() => this.#random.chance(0.5) && !this.steady && !this.staged)
    people.push(...rivals.map(async volume => this.administrator.rival(volume)))
    people.push(...this.volumes.map(async volume => this.#watchReplicas(volume)))
    people.push(this.#followMirrors(), new Onlookers(this).look())
    if (this.pool !== null) {
      const operators = new Operators(this, this.pool)
      people.push(operators.work(), operators.disturb(), this.pool.watch())
      this.pool.faultsActive = true
    }
    await this.faults.run(this.#random.between(20_000, 60_000))
    this.pool?.heal()
    await this.#settle()
    this.calm = true
    await Promise.all(people)
    while (this.administrator.taking > 0) await this.world.pause(100)
    await this.pool?.settle()
    this.pool?.verify()
    for (const volume of this.volumes) await this.#verify(volume)
    await this.#rest()
    await this.pool?.end()
  }

  // -- what is seen from outside ------------------------------------------------------------------------------------------

  /** The record of a volume as the coordinator has it, or had it before it was spoiled. */
  stateOf(volume: SimulatedVolume): VolumeState {
    const key = volumeStateKey(this.sr, volume.key)
    const entry = this.coordinator.read(key).entry!
    let state = this.#states.get(entry)
    if (state === undefined) {
      state = tryParseState(key, entry.value) ?? this.#lastStates.get(key)!
      this.#states.set(entry, state)
      this.#lastStates.set(key, state)
    }
    return state
  }

  #observe(
    revision: number,
    client: string,
    changes: readonly { key: string; value: string | null }[]
  ): void {
    this.pool?.observe(revision, changes)
    for (const { key, value } of changes) {
      if (value === null || volumeOfKey(key) === null) continue
      const state = tryParseState(key, value)
      if (state === null) continue
      const replicas = replicasOf(state).map(
        ({ host, inSync }) => `${this.hosts.find(({ id }) => id === host)!.name}${inSync ? '' : '(stale)'}`
      )
      const volume = this.volumes.find(other => other.key === volumeOfKey(key))
      if (volume !== undefined) {
        volume.changedAt.set(client, this.world.now)
        this.#recordChanged(volume, state)
      }
      const primary = this.hosts.find(({ id }) => id === state.primary)?.name ?? 'nobody'
      this.world.log(
        'record',
        `${revision} by ${client}: epoch ${state.epoch}/${state.reserved.epoch} primary ${primary} ${replicas.join(' ')}`
      )
      const host = this.#hostNamed(client)
      if (host !== undefined) this.coincidences.noticed('changed the record', host)
    }
  }

  /** A guest was answered: by the host that the record names, with bytes of a replica that it counts as in-sync. */
  answered(volume: SimulatedVolume, host: SimulatedHost, bytes: Uint8Array | null): void {
    const state = this.stateOf(volume)
    if (state.primary !== host.id) {
      const promise = bytes === null ? 'P3' : 'P4'
      this.problem(`${promise}: ${host.name} answered a guest while the record does not name it`)
    }
    if (bytes === null) return
    const source = this.#readFrom.get(bytes)
    if (source === undefined) this.problem('P7: nobody knows where the bytes of a read come from')
    else if (!volume.inSync.includes(source)) {
      this.problem(`P7: a guest on ${host.name} was given bytes of ${source.name}, which is stale`)
    }
  }

  /** What was asked of a host's process failed: it may have to wait, and it may say why, in the words of its codes. */
  failed(
    what: 'activation' | 'closing',
    volume: SimulatedVolume,
    host: SimulatedHost,
    since: number,
    error: unknown
  ): void {
    const isSpoiled = hasCode(error, 'RECORD_INVALID') && this.faults.hasSpoiled
    if (error instanceof XosanError && !ADMITTED.has(error.code) && !isSpoiled) {
      this.problem(`P5: ${what} failed with ${error.code}: ${error.message}`)
    } else if (isMistake(error)) {
      this.problem(`P5: ${what} failed: ${reasonOf(error)}`)
    }
    // By way of xosand there is more that may be in the way, and codes are in the words of its answers.
    if (hasCode(error, 'ACTIVATED_ON_ANOTHER_HOST') || this.pool !== null) return
    if (what === 'activation') this.liveness.activationFailed(volume, host, since, reasonOf(error))
    else this.liveness.closingFailed(volume, host, since, reasonOf(error))
  }

  /** Who was stale and is in-sync now must hold what the others hold. */
  #recordChanged(volume: SimulatedVolume, state: VolumeState): void {
    const before = volume.inSync
    volume.inSync = this.hosts.filter(({ id }) => inSyncReplicas(state).some(({ host }) => host === id))
    // One that was lost since its primary asked for the change is trusted by the record until it is found out.
    const joined = this.losses.certainlyInSync(volume).filter(host => !before.includes(host))
    for (const host of joined) volume.durability.joined(host)
    this.checkIntents(volume)
  }

  /** A primary has stopped serving because another host is the primary, as it says. Else its guest waits for nothing. */
  #checkReplaced(host: SimulatedHost, key: string): void {
    const volume = this.volumes.find(other => other.key === key)
    if (volume === undefined || this.stateOf(volume).primary !== host.id) return
    this.problem(`P5: ${host.name} serves ${key.slice(0, 8)} no more, although the record names it`)
  }

  /** Looks again and again whether replicas that should be equal are. */
  async #watchReplicas(volume: SimulatedVolume): Promise<void> {
    let looks = 0
    while (!this.calm) {
      await this.world.pause(volume.random.between(20, 200))
      const state = this.stateOf(volume)
      looks++
      if (looks % 2 === 0) this.liveness.look(volume)
      if (looks % 12 === 1) this.#checkRecoverable(volume, state)
      if (looks % 6 === 0) volume.durability.look()
      const problem = checkEquality(volume, state, this.hosts)
      this.#note(problem)
      if (problem !== null || (looks % 6 === 3 && !this.checkIntents(volume))) return
    }
  }

  /** Whatever single host survives, its disk says what it holds. */
  #checkRecoverable(volume: SimulatedVolume, state: VolumeState): void {
    for (const replica of inSyncReplicas(state)) {
      if (this.losses.replicas.has(replica.replica)) continue
      const host = this.hosts.find(({ id }) => id === replica.host)!
      this.#note(checkRecoverable(host, volume, state, replica))
    }
  }

  /** What may differ between replicas is noted in intents, also after a power cut now. */
  checkIntents(volume: SimulatedVolume): boolean {
    const problem = checkIntents(volume, this.stateOf(volume), this.hosts, this.losses.replicas)
    this.#note(problem)
    return problem === null
  }

  // -- the end ------------------------------------------------------------------------------------------------------------

  /** With all faults gone everything must be well again, by itself. */
  async #settle(): Promise<void> {
    this.world.log('CHECK', 'faults are over')
    const limit = this.world.now + RECOVERY_LIMIT_MS
    for (const volume of this.volumes) {
      while (!(inSyncReplicas(this.stateOf(volume)).length === replicasOf(this.stateOf(volume)).length)) {
        if (this.world.now > limit) {
          this.problem('P9: a replica is still not in-sync long after the faults')
          return
        }
        await this.world.pause(500)
      }
    }
    await this.world.pause(3_000)
  }

  /** All is closed, and nobody asks for anything: what is still under way somebody has forgotten. */
  async #rest(): Promise<void> {
    const limit = this.world.now + REST_LIMIT_MS
    for (const { process, name } of this.hosts) {
      while (process?.isIdle === false) {
        if (this.world.now > limit) {
          this.problem(`P9: something is under way on ${name} long after all volumes were closed`)
          return
        }
        await this.world.pause(1)
      }
    }
  }

  async #verify(volume: SimulatedVolume): Promise<void> {
    const limit = this.world.now + RECOVERY_LIMIT_MS
    for (const guest of volume.guests) guest.abandon()
    for (const host of this.hosts) {
      for (;;) {
        try {
          for (const other of this.hosts) {
            if (other !== host) await this.administrator.deactivate(volume, other, 5_000)
          }
          await this.administrator.open(volume, host)
          await this.administrator.ask(host, async () => this.#readAll(volume, host), 20_000)
          break
        } catch (error) {
          this.world.log('admin', `final reading on ${host.name}: ${reasonOf(error)}`)
          if (this.world.now > limit) {
            this.problem(
              `P9: the volume cannot be read on ${host.name} long after the faults: ${reasonOf(error)}`
            )
            return
          }
          await this.world.pause(500)
        }
      }
    }
    for (const host of this.hosts) {
      await this.administrator.deactivate(volume, host, 10_000)
    }
    for (const problem of volume.history.check()) this.problem(problem)
    for (const guest of volume.guests) guest.checkReturned()
    this.#note(checkEnd(volume, this.stateOf(volume), this.hosts))
  }

  async #readAll(volume: SimulatedVolume, host: SimulatedHost): Promise<void> {
    const { key, history } = volume
    const { device, mirror } = host.node!.volume(key)!
    if (device === null || mirror === null) throw new Error('the volume is not open any more')
    // Replicas may differ where a write was in flight, for as long as an intent says so.
    while (!mirror.allInSync) await mirror.changed()
    const tenant = {
      tenure: mirror.epoch(),
      process: host.process!,
      host: host.name,
      startedAt: this.world.now,
    }
    history.begins(tenant)
    for (const region of history.writtenRegions()) {
      const first = region * SECTORS_PER_REGION
      const invokedAt = this.world.now
      const bytes = await device.read((first * SECTOR_BYTES) as ByteOffset, Buffer.alloc(REGION_BYTES))
      const into = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
      for (let i = 0; i < SECTORS_PER_REGION; i++) {
        const value = into.readUInt32LE(i * SECTOR_BYTES)
        this.#note(
          history.read({
            kind: 'read',
            sector: first + i,
            value,
            invokedAt,
            returnedAt: this.world.now,
            tenant,
          })
        )
      }
    }
  }
}
