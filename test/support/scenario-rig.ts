import assert from 'node:assert/strict'
import { volumeStateKey } from '../../cluster/keys.ts'
import { parseVolumeState, serialiseVolumeState } from '../../cluster/volume-state.ts'
import { reasonOf } from '../../core/errors.ts'
import { DEFAULT_TIMING } from '../../core/mirror/timing.ts'
import { growVolume, replicasOf } from '../../core/mirror/volume-change.ts'
import { type VolumeState } from '../../core/mirror/volume-record.ts'
import {
  BLOCK_BYTES,
  byteLength,
  type ByteOffset,
  epoch,
  type LayerId,
  type Millis,
  millis,
  REGION_BYTES,
  type ReplicaId,
  type SrId,
  type VolumeKey,
} from '../../core/units.ts'
import { type BlockDevice } from '../../datapath/block-device.ts'
import { type DatapathNode } from '../../datapath/process/datapath-node.ts'
import { type VolumeMirror } from '../../datapath/mirror/volume-mirror.ts'
import { SimulatedNetwork } from '../simulator/network.ts'
import { type Fate, SimulatedCoordinator } from '../simulator/simulated-coordinator.ts'
import { SimulatedHost } from '../simulator/simulated-host.ts'
import { World } from '../simulator/world.ts'

/** Far more virtual time than any story takes, in milliseconds. */
const STORY_LIMIT_MS = 10_000_000
/** What is told of the log when a story fails. */
const LINES_TOLD = 60

const ANSWER: Fate = { kind: 'answer', beforeMs: millis(0.3), afterMs: millis(0.3) }

/**
 * Four simulated hosts and one volume, for a story in which each thing happens at a chosen moment. Nothing goes
 * wrong here by itself: the story crashes, cuts and delays.
 */
export class ScenarioRig {
  readonly world: World
  readonly network: SimulatedNetwork
  readonly hosts: readonly [SimulatedHost, SimulatedHost, SimulatedHost, SimulatedHost]
  readonly sr: SrId
  readonly volume: VolumeKey
  readonly log: string[] = []
  readonly #layer: LayerId
  readonly #regions: number
  readonly #coordinator: SimulatedCoordinator
  /** What becomes of the calls of some hosts to the coordinator, by their names. */
  readonly #fates = new Map<string, Fate>()

  /** @param regions size of the volume, in regions */
  constructor(seed: number, regions: number) {
    const world = new World(seed, line => this.log.push(line))
    this.world = world
    this.network = new SimulatedNetwork(world)
    this.#regions = regions
    this.sr = world.random.uuid() as SrId
    this.volume = world.random.uuid() as VolumeKey
    this.#layer = world.random.uuid() as LayerId
    this.#coordinator = new SimulatedCoordinator({
      clock: { now: () => world.now as Millis, after: (ms, action) => world.after(ms, action) },
      decide: ({ client }) => this.#fates.get(client) ?? ANSWER,
      callTimeMs: millis(1000),
    })
    this.hosts = [this.#host('h1'), this.#host('h2'), this.#host('h3'), this.#host('h4')]
  }

  #host(name: string): SimulatedHost {
    return new SimulatedHost({
      world: this.world,
      network: this.network,
      coordinator: this.#coordinator,
      timing: DEFAULT_TIMING,
      sr: this.sr,
      name,
      hosts: () => this.hosts,
    })
  }

  /** Starts all hosts and makes the volume, with a blank in-sync replica on each of some of them. */
  async create(...holders: readonly SimulatedHost[]): Promise<void> {
    for (const host of this.hosts) host.start()
    const { sr, volume } = this
    const size = byteLength(this.#regions * REGION_BYTES)
    const layers = [this.#layer]
    const replicas = []
    for (const host of holders) {
      const replica = this.world.random.uuid() as ReplicaId
      await nodeOf(host).replicas.create({ sr, volume, replica, layers, size }, true)
      replicas.push({ host: host.id, replica, store: host.store, inSync: true })
    }
    const state: VolumeState = {
      version: 1,
      size,
      sharable: false,
      epoch: epoch(0),
      reserved: { epoch: epoch(0), host: null, operation: '' },
      primary: null,
      layers,
      mirrors: [replicas],
    }
    const key = volumeStateKey(sr, volume)
    this.#coordinator.transact('creation', [], [{ key, value: serialiseVolumeState(key, state) }])
  }

  /** Attaches and activates the volume on a host for a new guest. @returns the guest's device */
  async activate(host: SimulatedHost, deadlineMs = 9_000): Promise<BlockDevice> {
    const node = nodeOf(host)
    await node.detach(this.volume)
    const device = await node.attach(this.sr, this.volume)
    await node.activate(this.sr, this.volume, millis(deadlineMs))
    return device
  }

  async deactivate(host: SimulatedHost, deadlineMs = 9_000): Promise<void> {
    await nodeOf(host).deactivate(this.volume, millis(deadlineMs))
  }

  /** What the coordinator says of the volume. */
  get state(): VolumeState {
    const key = volumeStateKey(this.sr, this.volume)
    return parseVolumeState(key, this.#coordinator.read(key).entry!.value)
  }

  /** The record says that the volume, which is closed, has so many regions; its replicas learn of it when it is opened. */
  grow(regions: number): void {
    const key = volumeStateKey(this.sr, this.volume)
    const grown = growVolume(this.state, byteLength(regions * REGION_BYTES), this.world.random.uuid())
    const value = serialiseVolumeState(key, grown)
    this.#coordinator.transact('growth', [], [{ key, value }])
  }

  isPrimary(host: SimulatedHost): boolean {
    return this.state.primary === host.id
  }

  isInSync(host: SimulatedHost): boolean {
    return replicasOf(this.state).some(replica => replica.host === host.id && replica.inSync)
  }

  get allInSync(): boolean {
    return replicasOf(this.state).every(({ inSync }) => inSync)
  }

  /** What a host knows of the volume as its primary; null while it does not have it open. */
  mirror(host: SimulatedHost): VolumeMirror | null {
    return host.node?.volume(this.volume)?.mirror ?? null
  }

  /** The bytes of a host's replica, as its page cache shows them. */
  content(host: SimulatedHost): Buffer {
    return Buffer.from(host.disk.contentOf(`volumes/${this.volume}/${this.#layer}.raw`))
  }

  /** The first byte of each region of a host's replica. */
  firstBytes(host: SimulatedHost): number[] {
    const content = this.content(host)
    return Array.from({ length: this.#regions }, (_, region) => content[region * REGION_BYTES]!)
  }

  /** No replica differs from another one. */
  assertIdentical(...hosts: readonly SimulatedHost[]): void {
    const [first, ...others] = hosts.map(host => ({ host, content: this.content(host) }))
    for (const { host, content } of others) {
      const same = content.equals(first!.content)
      assert.ok(same, `the replicas of ${first!.host.name} and ${host.name} differ`)
    }
  }

  /** The files of a host's replica are gone, as after the change of a disk whose store was put back. */
  loseReplica(host: SimulatedHost): void {
    const directory = `volumes/${this.volume}`
    host.disk.changeNames(directory, names => {
      for (const name of [...names.keys()]) if (name.startsWith(`${directory}/`)) names.delete(name)
    })
    host.disk.syncNames(directory)
  }

  /** The next sync of data on a host's disk fails, once. @returns whether it has */
  failNextSync(host: SimulatedHost): () => boolean {
    let failed = false
    host.disk.fault = (call, name) => {
      if (failed || call !== 'sync' || !name.endsWith('.raw')) return
      failed = true
      throw Object.assign(new Error('EIO'), { code: 'EIO' })
    }
    return () => failed
  }

  /** Puts something in the place of the volume's record that is none. @returns the way to put it back */
  spoilRecord(): () => void {
    const key = volumeStateKey(this.sr, this.volume)
    const { value } = this.#coordinator.read(key).entry!
    const put = (text: string): unknown =>
      this.#coordinator.transact('a stranger', [], [{ key, value: text }])
    put('{"version":2}')
    return () => void put(value)
  }

  /** Cuts a host off from the coordinator, or connects it again. */
  reachesCoordinator(host: SimulatedHost, reaches: boolean): void {
    if (reaches) this.#fates.delete(host.name)
    else this.#fates.set(host.name, { kind: 'unavailable', afterMs: millis(100) })
  }

  /** From here a host is left in doubt about what its calls to the coordinator did, which is nothing. */
  leaveInDoubt({ name }: SimulatedHost): void {
    this.#fates.set(name, { kind: 'unknown', afterMs: millis(100), effectMs: null })
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

/** Plays a story. When it fails, the error says what the hosts logged last. */
export async function play(
  seed: number,
  regions: number,
  story: (rig: ScenarioRig) => Promise<void>
): Promise<void> {
  const rig = new ScenarioRig(seed, regions)
  try {
    await rig.world.runUntil(story(rig), STORY_LIMIT_MS)
  } catch (error) {
    const told = rig.log.slice(-LINES_TOLD).join('\n')
    throw new Error(`${reasonOf(error)}\nseed ${seed}, at ${rig.world.now} ms:\n${told}`, { cause: error })
  }
}

/** The datapath process of a host that runs. */
export const nodeOf = ({ node, name }: SimulatedHost): DatapathNode => {
  assert.ok(node !== null, `${name} has no datapath process`)
  return node
}

/** Offset of a block of a region, in bytes. */
export const blockAt = (region: number, block = 0): ByteOffset =>
  (region * REGION_BYTES + block * BLOCK_BYTES) as ByteOffset

/** Writes a whole block of one value at the start of a region. */
export async function writeBlock(
  device: BlockDevice,
  region: number,
  value: number,
  durable = false
): Promise<void> {
  await device.write({ offset: blockAt(region), data: Buffer.alloc(BLOCK_BYTES, value), durable })
}

/** The value of the block at the start of a region, which must be one value throughout. */
export async function readBlock(device: BlockDevice, region: number): Promise<number> {
  const bytes = await device.read(blockAt(region), Buffer.alloc(BLOCK_BYTES))
  assert.ok(Buffer.alloc(BLOCK_BYTES, bytes[0]).equals(bytes), `the block of region ${region} is torn`)
  return bytes[0]!
}
