import assert from 'node:assert/strict'
import { volumesPrefix, volumeStateKey } from '../../cluster/keys.ts'
import { parseVolumeState } from '../../cluster/volume-state.ts'
import { reasonOf } from '../../core/errors.ts'
import { DEFAULT_TIMING } from '../../core/mirror/timing.ts'
import { type VolumeState } from '../../core/mirror/volume-record.ts'
import {
  type Millis,
  millis,
  type ReplicaId,
  type SrId,
  type VolumeKey,
  VOLUME_SIZE_MULTIPLE,
} from '../../core/units.ts'
import { SimulatedNetwork } from '../simulator/network.ts'
import { type Fate, type SimulatedCall, SimulatedCoordinator } from '../simulator/simulated-coordinator.ts'
import { type SmapiAnswer, type SimulatedDaemon, volumesOnDisk } from '../simulator/simulated-daemon.ts'
import { SimulatedHost } from '../simulator/simulated-host.ts'
import { SimulatedPool } from '../simulator/simulated-pool.ts'
import { type SimulatedVolume } from '../simulator/simulated-volume.ts'
import { World } from '../simulator/world.ts'

/** Far more virtual time than any story takes, in milliseconds. */
const STORY_LIMIT_MS = 10_000_000
const LINES_TOLD = 60
export const ANSWER: Fate = { kind: 'answer', beforeMs: millis(0.3), afterMs: millis(0.3) }

/**
 * Three simulated hosts with xosand on each and an SR over them, for a story in which each thing happens at a chosen
 * moment. Nothing goes wrong here by itself: the story kills, stops and cuts.
 */
export class PoolRig {
  readonly world: World
  readonly network: SimulatedNetwork
  readonly coordinator: SimulatedCoordinator
  readonly hosts: readonly [SimulatedHost, SimulatedHost, SimulatedHost]
  readonly sr: SrId
  readonly pool: SimulatedPool
  readonly log: string[] = []
  /** As far as xosand sees of them: who is connected. */
  readonly volumes: SimulatedVolume[] = []
  readonly calm = false
  readonly losses = { replicas: new Set<ReplicaId>() }
  readonly faults = { count: () => undefined, cutPower: async () => Promise.resolve() }
  /** What becomes of each call to the coordinator. */
  fateOf: (client: string, keys: readonly string[], verb: SimulatedCall['verb']) => Fate = () => ANSWER
  /** How long after a change hosts hear of it, in milliseconds. */
  watchDelayMs = 0

  constructor(seed: number) {
    const world = new World(seed, line => this.log.push(line))
    this.world = world
    this.network = new SimulatedNetwork(world)
    this.sr = world.random.uuid() as SrId
    this.coordinator = new SimulatedCoordinator({
      clock: { now: () => world.now as Millis, after: (ms, action) => world.after(ms, action) },
      decide: ({ client, keys, verb }) => this.fateOf(client, keys, verb),
      watchDelayMs: () => millis(this.watchDelayMs),
      callTimeMs: millis(1000),
    })
    this.hosts = [this.#host('h1'), this.#host('h2'), this.#host('h3')]
    this.pool = new SimulatedPool(this, world.random.fork())
  }

  #host(name: string): SimulatedHost {
    const { world, network, coordinator, sr } = this
    const hosts = (): readonly SimulatedHost[] => this.hosts
    return new SimulatedHost({ world, network, coordinator, timing: DEFAULT_TIMING, sr, name, hosts })
  }

  /** A promise that was found broken, by those who look all the time. */
  problem(text: string): void {
    assert.fail(text)
  }

  daemon(host: SimulatedHost): SimulatedDaemon {
    return this.pool.daemonOf(host)
  }

  /** Calls an entry script of the volume plugin about the SR. */
  async volumeCall(host: SimulatedHost, name: string, parameters: object = {}): Promise<SmapiAnswer> {
    return this.pool.call(this.daemon(host), 'volume', name, { sr: this.sr, ...parameters })
  }

  /** Calls an entry script of the datapath plugin. */
  async datapathCall(
    host: SimulatedHost,
    name: string,
    volume: VolumeKey,
    domain: string
  ): Promise<SmapiAnswer> {
    const uri = `xosan://${this.sr}/${volume}`
    return this.pool.call(this.daemon(host), 'datapath', name, { uri, domain })
  }

  async create(host: SimulatedHost, name = 'a volume'): Promise<SmapiAnswer> {
    const parameters = { name, description: '', size: VOLUME_SIZE_MULTIPLE, sharable: false }
    return this.volumeCall(host, 'Volume.create', parameters)
  }

  /** Makes a volume where nothing is in the way. */
  async created(host: SimulatedHost): Promise<VolumeKey> {
    const answer = await this.create(host)
    assert.equal(answer.kind, 'done')
    return (answer as { value: { key: VolumeKey } }).value.key
  }

  /** A client that stays connected to a volume on a host until it is disconnected. */
  connect(host: SimulatedHost, key: VolumeKey): void {
    const guest = { process: host.process, connected: true, disconnect: () => (guest.connected = false) }
    this.volumes.push({ key, guests: [guest] } as unknown as SimulatedVolume)
  }

  /** The state of a volume, as the coordinator has it. */
  stateOf(volume: VolumeKey): VolumeState {
    const key = volumeStateKey(this.sr, volume)
    return parseVolumeState(key, this.coordinator.read(key).entry!.value)
  }

  /** Keys of the volumes' records. */
  get records(): string[] {
    return this.coordinator.list(volumesPrefix(this.sr)).entries.map(({ key }) => key)
  }

  /** Volumes that have files on a host. */
  filesOn(host: SimulatedHost): string[] {
    return volumesOnDisk(host)
  }

  /** Lets time go on until something is so. @throws an AssertionError when it is not within a minute */
  async until(what: string, condition: () => boolean, limitMs = 60_000): Promise<void> {
    const limit = this.world.now + limitMs
    while (!condition()) {
      assert.ok(this.world.now < limit, `after ${limitMs} ms it is still not so that ${what}`)
      await this.world.pause(1)
    }
  }
}

/** Plays a story in a pool that is up. When it fails, the error says what the hosts logged last. */
export async function playInPool(seed: number, story: (rig: PoolRig) => Promise<void>): Promise<void> {
  const rig = new PoolRig(seed)
  const whole = async (): Promise<void> => {
    for (const host of rig.hosts) host.start()
    await rig.pool.begin()
    await story(rig)
  }
  try {
    await rig.world.runUntil(whole(), STORY_LIMIT_MS)
  } catch (error) {
    const told = rig.log.slice(-LINES_TOLD).join('\n')
    throw new Error(`${reasonOf(error)}\nseed ${seed}, at ${rig.world.now} ms:\n${told}`, { cause: error })
  } finally {
    rig.pool.free()
  }
}
