/**
 * One universe: hosts, volumes, guests and an administrator under faults, from one seed. What runs in it is the
 * production code of `core/`, `datapath/mirror`, `datapath/resync`, `datapath/replica-local` and
 * `datapath/process`; replaced are the clock, the network, the disks, the coordinator's store and the dice.
 *
 * Faults within the budget, all at once and in any order: processes die or stop for up to half a minute, hosts lose
 * power (one, some, all), links are cut in one or both directions, disks and links are slow, the coordinator is
 * away, late, or silent about what it did. Then everything heals, and what must be true in the end is checked.
 */
import { parseKey, volumeStateKey } from '../../cluster/keys.ts'
import { parseVolumeState, serialiseVolumeState } from '../../cluster/volume-state.ts'
import { reasonOf } from '../../core/errors.ts'
import { DEFAULT_TIMING } from '../../core/mirror/timing.ts'
import { inSyncReplicas, replicasOf } from '../../core/mirror/volume-change.ts'
import { type VolumeState } from '../../core/mirror/volume-record.ts'
import {
  type ByteLength,
  type ByteOffset,
  type Epoch,
  type LayerId,
  type Millis,
  REGION_BYTES,
  type RegionIndex,
  type ReplicaId,
  type SrId,
  type VolumeKey,
} from '../../core/units.ts'
import { FaultSchedule } from './faults.ts'
import { Guest, SECTOR_BYTES } from './guest.ts'
import { History } from './history.ts'
import { SimulatedNetwork } from './network.ts'
import { SimulatedCoordinator } from './simulated-coordinator.ts'
import { SimulatedHost } from './simulated-host.ts'
import { type SeededRandom, World } from './world.ts'

export interface UniverseReport {
  readonly seed: number
  readonly problems: readonly string[]
  readonly virtualMs: number
  readonly events: number
  readonly operations: number
  readonly faults: Readonly<Record<string, number>>
  readonly takeovers: number
  readonly resyncs: number
}

/** Size of each volume in bytes. */
const VOLUME_BYTES = (2 * 1024 * 1024) as ByteLength
/** After the faults: what is not well again by then, in milliseconds of virtual time, is stuck. */
const RECOVERY_LIMIT_MS = 120_000

interface SimulatedVolume {
  readonly key: VolumeKey
  readonly layer: LayerId
  readonly history: History
  readonly hotSectors: readonly number[]
  readonly random: SeededRandom
  readonly guests: Guest[]
  host: SimulatedHost | null
  splits: number
}

export class Universe {
  readonly world: World
  readonly network: SimulatedNetwork
  readonly coordinator: SimulatedCoordinator
  readonly hosts: SimulatedHost[] = []
  readonly faults: FaultSchedule
  readonly #seed: number
  readonly #random: SeededRandom
  readonly #sr: SrId
  readonly #volumes: SimulatedVolume[] = []
  readonly #problems: string[] = []
  #lastValue = 0
  #takeovers = 0
  #resyncs = 0
  #calm = false

  constructor(seed: number, log: (line: string) => void = () => undefined) {
    this.#seed = seed
    this.world = new World(seed, line => {
      if (line.includes('replica is in-sync')) this.#resyncs++
      log(line)
    })
    this.#random = this.world.random.fork()
    this.network = new SimulatedNetwork(this.world)
    this.#sr = this.#random.uuid() as SrId
    this.faults = new FaultSchedule(this)
    this.coordinator = new SimulatedCoordinator({
      clock: { now: () => this.world.now as Millis, after: (ms, action) => this.world.after(ms, action) },
      decide: call => this.faults.fateOf(call.client),
      callTimeMs: 1000 as Millis,
      observe: (revision, client, changes) => this.#observe(revision, client, changes),
    })
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
          sr: this.#sr,
          name: `h${i}`,
          hosts,
        })
      )
    }
  }

  problem(text: string): void {
    this.world.log('CHECK', text)
    this.#problems.push(text)
  }

  /** Runs from the first moment to the last check. */
  async run(): Promise<UniverseReport> {
    try {
      await this.world.runUntil(this.#live(), 1_000_000)
    } catch (error) {
      this.problem(`P9: ${reasonOf(error)}`)
    }
    return {
      seed: this.#seed,
      problems: this.#problems,
      virtualMs: this.world.now,
      events: this.world.events,
      operations: this.#volumes.reduce((sum, { history }) => sum + history.requests, 0),
      faults: this.faults.counts,
      takeovers: this.#takeovers,
      resyncs: this.#resyncs,
    }
  }

  async #live(): Promise<void> {
    for (const host of this.hosts) host.start()
    const volumes = 1 + this.#random.below(2)
    for (let i = 0; i < volumes; i++) await this.#createVolume()
    const administrators = this.#volumes.map(async volume => this.#administer(volume))
    const rivals = this.#volumes.filter(() => this.#random.chance(0.5))
    administrators.push(...rivals.map(async volume => this.#rival(volume)))
    await this.faults.run(this.#random.between(20_000, 60_000))
    await this.#settle()
    this.#calm = true
    await Promise.all(administrators)
    for (const volume of this.#volumes) await this.#verify(volume)
  }

  async #createVolume(): Promise<void> {
    const random = this.#random.fork()
    const key = random.uuid() as VolumeKey
    const layer = random.uuid() as LayerId
    const copies = random.chance(0.75) ? 2 : 3
    const holders = random.shuffled(this.hosts).slice(0, copies)
    const replicas = []
    for (const host of holders) {
      const replica = random.uuid() as ReplicaId
      const address = { sr: this.#sr, volume: key, replica, layers: [layer], size: VOLUME_BYTES }
      await this.#ask(host, async () => host.node!.replicas.create(address, true), 10_000)
      replicas.push({ host: host.id, replica, store: host.store, inSync: true })
    }
    const state: VolumeState = {
      version: 1,
      size: VOLUME_BYTES,
      sharable: false,
      epoch: 0 as Epoch,
      reserved: { epoch: 0 as Epoch, host: null, operation: '' },
      primary: null,
      layers: [layer],
      mirrors: [replicas],
    }
    const record = volumeStateKey(this.#sr, key)
    this.coordinator.transact('creation', [], [{ key: record, value: serialiseVolumeState(record, state) }])
    // Few regions, so that what a resync copies is often what the guest writes.
    const regions = Array.from({ length: 4 }, () => random.below(VOLUME_BYTES / REGION_BYTES - 2))
    const hotSectors = Array.from({ length: 10 }, () => {
      return random.pick(regions) * (REGION_BYTES / SECTOR_BYTES) + random.below(16) * 8
    })
    const history = new History(VOLUME_BYTES / SECTOR_BYTES)
    this.#volumes.push({
      key,
      layer,
      history,
      hotSectors,
      random,
      guests: [],
      host: null,
      splits: 0,
    })
  }

  // -- the administrator ------------------------------------------------------------------------------------------------

  /** Keeps one guest running somewhere: starts it, moves it, and restarts it elsewhere when its host seems dead. */
  async #administer(volume: SimulatedVolume): Promise<void> {
    const { random } = volume
    while (!this.#calm) {
      const host = await this.#activateSomewhere(volume)
      const guest = host === null ? null : this.#startGuest(volume, host)
      if (host === null || guest === null) continue
      await this.#watch(host, random.between(1_000, 12_000))
      // Else the guest is left alone: to somebody impatient it seemed dead, and it may go on.
      if (host.running && random.chance(0.6)) await this.#moveAway(volume, host, guest)
      if (random.chance(0.15)) await this.#maintain(volume)
    }
  }

  /** Somebody else, who takes the volume for free and starts a guest elsewhere, without asking anybody. */
  async #rival(volume: SimulatedVolume): Promise<void> {
    const { random } = volume
    while (!this.#calm) {
      await this.world.pause(random.between(300, 8_000))
      const candidates = this.hosts.filter(host => host.running && host !== volume.host)
      if (candidates.length === 0) continue
      const host = random.pick(candidates)
      try {
        await this.#activate(volume, host)
      } catch (error) {
        this.world.log('rival', `activation on ${host.name} failed: ${reasonOf(error)}`)
        continue
      }
      this.#startGuest(volume, host)
    }
  }

  async #activateSomewhere(volume: SimulatedVolume): Promise<SimulatedHost | null> {
    const { random, key } = volume
    const before = volume.host
    const candidates = this.hosts.filter(({ running }) => running)
    if (candidates.length === 0) {
      await this.world.pause(200)
      return null
    }
    const host = random.pick(candidates)
    try {
      if (before !== null && before !== host && before.running && random.chance(0.5)) {
        await this.#ask(before, async () => before.node!.deactivate(key, 3_000 as Millis), 4_000)
      }
      await this.#activate(volume, host)
    } catch (error) {
      this.world.log('admin', `activation on ${host.name} failed: ${reasonOf(error)}`)
      await this.world.pause(random.between(50, 800))
      return null
    }
    volume.host = host
    return host
  }

  async #activate({ key }: SimulatedVolume, host: SimulatedHost): Promise<void> {
    await this.#ask(
      host,
      async () => {
        await host.node!.detach(key)
        await host.node!.attach(this.#sr, key)
        await host.node!.activate(this.#sr, key, 9_000 as Millis)
      },
      10_000
    )
    this.#takeovers++
  }

  /** @returns null when the volume is not there any more: a request from before was answered late, and ended it */
  #startGuest(volume: SimulatedVolume, host: SimulatedHost): Guest | null {
    const { key, history, hotSectors, random } = volume
    const { device = null, mirror = null } = host.node?.volume(key) ?? {}
    if (device === null || mirror === null) return null
    // Who came later has the higher epoch.
    const tenure = mirror.epoch()
    this.world.log('admin', `guest ${tenure} of ${key.slice(0, 8)} starts on ${host.name}`)
    const guest = new Guest({
      world: this.world,
      random: random.fork(),
      process: host.process!,
      device,
      history,
      hotSectors,
      tenure,
      nextValue: () => ++this.#lastValue,
      mayLoseWrites: () => volume.splits > 0,
      problem: text => this.problem(text),
      log: text => this.world.log(host.name, `guest ${tenure}: ${text}`),
    })
    volume.guests.push(guest)
    guest.start(1 + random.below(8))
    return guest
  }

  async #watch(host: SimulatedHost, durationMs: number): Promise<void> {
    const until = this.world.now + durationMs
    const { process } = host
    while (this.world.now < until && !this.#calm && host.process === process) await this.world.pause(100)
  }

  async #moveAway(volume: SimulatedVolume, host: SimulatedHost, guest: Guest): Promise<void> {
    if (volume.random.chance(0.6)) {
      const stopped = await Promise.race([
        guest.stop().then(() => true),
        this.world.pause(5_000).then(() => false),
      ])
      if (!stopped) return
    }
    if (!host.running) return
    try {
      await this.#ask(host, async () => host.node!.deactivate(volume.key, 4_000 as Millis), 5_000)
      this.world.log('admin', `${volume.key.slice(0, 8)} is closed on ${host.name}`)
    } catch (error) {
      this.world.log('admin', `deactivation on ${host.name} failed: ${reasonOf(error)}`)
    }
    guest.abandon()
  }

  async #maintain(volume: SimulatedVolume): Promise<void> {
    const host = volume.random.pick(this.hosts)
    if (!host.running) return
    await this.#ask(host, async () => host.node!.resync(this.#sr, volume.key), 1_000).catch(() => undefined)
    await this.world.pause(volume.random.between(100, 3_000))
  }

  /** Asks a host's process for something, as xosand would. */
  async #ask<Result>(
    host: SimulatedHost,
    action: () => Promise<Result> | Result,
    limitMs: number
  ): Promise<Result> {
    const { process } = host
    return new Promise<Result>((resolve, reject) => {
      const timer = this.world.after(limitMs, () => reject(new Error('the process did not answer')))
      process?.deliver(() => {
        Promise.resolve()
          .then(action)
          .then(
            result => {
              timer.cancel()
              resolve(result)
            },
            (error: unknown) => {
              timer.cancel()
              reject(error instanceof Error ? error : new Error(String(error)))
            }
          )
      })
    })
  }

  // -- what is seen from outside ------------------------------------------------------------------------------------------

  #stateOf(volume: SimulatedVolume): VolumeState {
    const key = volumeStateKey(this.#sr, volume.key)
    return parseVolumeState(key, this.coordinator.read(key).entry!.value)
  }

  #observe(
    revision: number,
    client: string,
    changes: readonly { key: string; value: string | null }[]
  ): void {
    for (const { key, value } of changes) {
      if (value === null) continue
      const state = parseVolumeState(key, value)
      const replicas = replicasOf(state).map(
        ({ host, inSync }) => `${this.hosts.find(({ id }) => id === host)!.name}${inSync ? '' : '(stale)'}`
      )
      const volume = this.#volumes.find(other => other.key === parseVolumeKey(key))
      if (volume !== undefined && state.primary === null) this.#checkIntents(volume, state)
      const primary = this.hosts.find(({ id }) => id === state.primary)?.name ?? 'nobody'
      this.world.log(
        'record',
        `${revision} by ${client}: epoch ${state.epoch}/${state.reserved.epoch} primary ${primary} ${replicas.join(' ')}`
      )
    }
  }

  /** Nobody has the volume open: where in-sync replicas differ, one of them has a write intent. */
  #checkIntents(volume: SimulatedVolume, state: VolumeState): void {
    const replicas = inSyncReplicas(state).map(({ host }) => this.hosts.find(({ id }) => id === host)!)
    const intents = replicas.map(host => host.node?.replicas.intentsOf(volume.key) ?? null)
    const [first, ...others] = replicas.map(host => Buffer.from(host.disk.contentOf(rawFileOf(volume))))
    // A process that is not there cannot be asked; its file says the same later.
    if (first === undefined || intents.includes(null)) return
    for (let region = 0; region < VOLUME_BYTES / REGION_BYTES; region++) {
      if (intents.some(set => set!.has(region as RegionIndex))) continue
      const [from, to] = [region * REGION_BYTES, (region + 1) * REGION_BYTES]
      if (others.some(other => other.compare(first, from, to, from, to) !== 0)) {
        this.problem(`P9: region ${region} differs between in-sync replicas and nobody has an intent for it`)
        return
      }
    }
  }

  /** A host lost power: un-flushed writes that no in-sync replica holds any more may be gone. */
  powerWasCut(): void {
    for (const volume of this.#volumes) {
      const holders = inSyncReplicas(this.#stateOf(volume)).map(({ host }) =>
        this.hosts.find(({ id }) => id === host)!
      )
      const lostBefore = Math.min(...holders.map(({ lastPowerCut }) => lastPowerCut))
      if (lostBefore < 0 || !volume.history.unflushedBefore(lostBefore)) continue
      this.world.log('CHECK', `un-flushed writes of ${volume.key.slice(0, 8)} may be lost`)
      volume.splits++
      for (const problem of volume.history.split(this.world.now)) this.problem(problem)
    }
  }

  // -- the end ------------------------------------------------------------------------------------------------------------

  /** With all faults gone everything must be well again, by itself. */
  async #settle(): Promise<void> {
    this.world.log('CHECK', 'faults are over')
    const limit = this.world.now + RECOVERY_LIMIT_MS
    for (const volume of this.#volumes) {
      while (!(inSyncReplicas(this.#stateOf(volume)).length === replicasOf(this.#stateOf(volume)).length)) {
        if (this.world.now > limit) {
          this.problem('P9: a replica is still not in-sync long after the faults')
          return
        }
        await this.world.pause(500)
      }
    }
    await this.world.pause(3_000)
  }

  async #verify(volume: SimulatedVolume): Promise<void> {
    const { key } = volume
    const limit = this.world.now + RECOVERY_LIMIT_MS
    for (const guest of volume.guests) guest.abandon()
    for (const host of this.hosts) {
      for (;;) {
        try {
          for (const other of this.hosts) {
            if (other !== host)
              await this.#ask(other, async () => other.node!.deactivate(key, 5_000 as Millis), 6_000)
          }
          await this.#ask(host, async () => this.#readAll(volume, host), 20_000)
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
      await this.#ask(host, async () => host.node!.deactivate(key, 10_000 as Millis), 11_000)
    }
    for (const problem of volume.history.check()) this.problem(problem)
    this.#compareReplicas(volume)
  }

  async #readAll(volume: SimulatedVolume, host: SimulatedHost): Promise<void> {
    const { key, history, hotSectors } = volume
    const node = host.node!
    await node.detach(key)
    const device = await node.attach(this.#sr, key)
    const mirror = await node.activate(this.#sr, key, 9_000 as Millis)
    // Replicas may differ where a write was in flight, for as long as an intent says so.
    while (!mirror.allInSync) await mirror.changed()
    for (const first of hotSectors) {
      const invokedAt = this.world.now
      const into = Buffer.alloc(24 * SECTOR_BYTES)
      await device.read((first * SECTOR_BYTES) as ByteOffset, into)
      for (let i = 0; i < 24; i++) {
        const value = into.readUInt32LE(i * SECTOR_BYTES)
        history.read({ kind: 'read', sector: first + i, value, invokedAt, returnedAt: this.world.now })
      }
    }
  }

  #compareReplicas(volume: SimulatedVolume): void {
    const contents = replicasOf(this.#stateOf(volume)).map(({ host, replica }) => ({
      replica,
      content: this.hosts.find(({ id }) => id === host)!.disk.contentOf(rawFileOf(volume)),
    }))
    const first = Buffer.from(contents[0]!.content)
    for (const { content } of contents) {
      if (first.equals(content)) continue
      const at = first.findIndex((byte, index) => byte !== content[index])
      this.problem(
        `P9: replicas differ in the end, first at byte ${at} (sector ${Math.floor(at / SECTOR_BYTES)})`
      )
    }
  }
}

const rawFileOf = ({ key, layer }: SimulatedVolume): string => `volumes/${key}/${layer}.raw`

function parseVolumeKey(key: string): VolumeKey | null {
  const parsed = parseKey(key)
  return parsed.kind === 'volume-state' ? parsed.volume : null
}
