/**
 * A conversation as a transcript: the primary's own replica comes back while a write is on its way to the other one.
 * What the mirror says to the replicas is written down as it is said.
 */
import assert from 'node:assert/strict'
import { volumeStateKey } from '../../cluster/keys.ts'
import { serialiseVolumeState } from '../../cluster/volume-state.ts'
import { type AcceptAnswer, type ProcessIdentity } from '../../core/mirror/messages.ts'
import { RegionSet } from '../../core/mirror/region-set.ts'
import { DEFAULT_BATCHES } from '../../core/mirror/batches.ts'
import { DEFAULT_TIMING } from '../../core/mirror/timing.ts'
import {
  type BootId,
  type ByteLength,
  type ByteOffset,
  type HostId,
  type Incarnation,
  type LayerId,
  type Millis,
  REGION_BYTES,
  type RegionIndex,
  type ReplicaId,
  type SrId,
  type StoreId,
  type VolumeKey,
  byteLength,
  epoch,
} from '../../core/units.ts'
import { type WriteRequest } from '../../datapath/block-device.ts'
import { RecordStore } from '../../datapath/mirror/record-store.ts'
import { type ReplicaPeer, type ReplicaSession } from '../../datapath/mirror/replica-peer.ts'
import { VolumeMirror } from '../../datapath/mirror/volume-mirror.ts'
import { SimulatedCoordinator } from '../simulator/simulated-coordinator.ts'
import { World } from '../simulator/world.ts'

const SIZE = byteLength(2 ** 21)

/** Something that happens when it is let happen. */
class Gate {
  #open: () => void = () => undefined
  readonly passed = new Promise<void>(resolve => (this.#open = resolve))

  open(): void {
    this.#open()
  }
}

/** A replica that keeps its bytes in memory and says yes to everything, once its gates are open. */
class PlainReplica implements ReplicaPeer {
  readonly local: boolean
  readonly identity: ProcessIdentity
  readonly content = new Uint8Array(SIZE)
  readonly #intents = new RegionSet(SIZE / REGION_BYTES)
  readonly #say: (text: string) => void
  readonly #world: World
  /** Accepts wait for it. */
  admission = new Gate()
  /** Writes arrive when it is open. */
  road = new Gate()

  constructor(options: {
    identity: ProcessIdentity
    local: boolean
    world: World
    say: (text: string) => void
  }) {
    this.identity = options.identity
    this.local = options.local
    this.#world = options.world
    this.#say = options.say
    this.admission.open()
    this.road.open()
  }

  async accept(): Promise<AcceptAnswer> {
    await this.admission.passed
    this.#say('accepts')
    return { kind: 'accepted', identity: this.identity, lostAt: null }
  }

  async confirm() {
    return { kind: 'ok', identity: this.identity, takenAway: 0, lostAt: null } as const
  }

  async raise() {
    this.#say('raises its epoch')
    return { kind: 'ok', identity: this.identity, takenAway: 0, lostAt: null } as const
  }

  async intents(): Promise<RegionSet> {
    this.#say(`tells its intents: ${[...this.#intents].join(' ') || 'none'}`)
    return this.#intents.copy()
  }

  async digests(): Promise<null> {
    return Promise.resolve(null)
  }

  async clear(): Promise<void> {
    // Intents are only ever looked at, never needed.
  }

  async finish(): Promise<void> {
    // As above.
  }

  async create(): Promise<never> {
    throw new Error('nothing is created here')
  }

  get pulse() {
    return { incarnation: this.identity.incarnation, renewedSentAt: this.#world.now as Millis, takenAway: 0 }
  }

  onPulse(): () => void {
    return () => undefined
  }

  async openSession(): Promise<ReplicaSession> {
    let end: (reason: string) => void = () => undefined
    const closed = new Promise<string>(resolve => (end = resolve))
    const write = async ({ offset, data }: WriteRequest): Promise<void> => {
      await this.road.passed
      this.#intents.add(Math.floor(offset / REGION_BYTES) as RegionIndex)
      this.content.set(data, offset)
      this.#say(`writes region ${Math.floor(offset / REGION_BYTES)}`)
    }
    return {
      size: SIZE,
      capabilities: {
        writable: true,
        flush: true,
        fua: true,
        trim: true,
        zero: true,
        fastZero: true,
        allocation: false,
        multiConnection: false,
        sequenced: true,
      },
      closed,
      abort: end,
      write,
      zero: async ({ offset, length }) => void this.content.fill(0, offset, offset + length),
      trim: async ({ offset, length }) => void this.content.fill(0, offset, offset + length),
      read: async (offset, into) => {
        into.set(this.content.subarray(offset, offset + into.length))
        return into
      },
      flush: async () => this.#say('flushes'),
      allocation: async (_, length) => [{ length, hole: false, zero: false }],
      close: async () => end('closed'),
    }
  }
}

describe('scenario: a replica comes back while a write is on its way to another one', () => {
  it('it holds that write before it counts as in-sync', async () => {
    const world = new World(1, () => undefined)
    const { random } = world
    const clock = {
      now: () => world.now as Millis,
      after: (ms: Millis, action: () => void) => world.after(ms, action),
    }
    const transcript: string[] = []
    const sr = random.uuid() as SrId
    const volume = random.uuid() as VolumeKey
    const identityOf = (): ProcessIdentity => ({
      host: random.uuid() as HostId,
      boot: random.uuid() as BootId,
      incarnation: random.uuid() as Incarnation,
    })
    const replicaOf = (name: string, local: boolean): PlainReplica =>
      new PlainReplica({
        identity: identityOf(),
        local,
        world,
        say: text => transcript.push(`${name} ${text}`),
      })
    const own = replicaOf('own', true)
    const other = replicaOf('other', false)
    const recordOf = ({ identity }: PlainReplica, inSync: boolean) => ({
      host: identity.host,
      replica: random.uuid() as ReplicaId,
      store: random.uuid() as StoreId,
      inSync,
    })
    const coordinator = new SimulatedCoordinator({ clock })
    const key = volumeStateKey(sr, volume)
    const state = {
      version: 1,
      size: SIZE,
      sharable: false,
      epoch: epoch(1),
      reserved: { epoch: epoch(1), host: null, operation: '' },
      primary: null,
      layers: [random.uuid() as LayerId],
      mirrors: [[recordOf(own, false), recordOf(other, true)]],
    } as const
    coordinator.transact('creation', [], [{ key, value: serialiseVolumeState(key, state) }])
    const mirror = new VolumeMirror({
      sr,
      volume,
      identity: own.identity,
      purpose: 'guest',
      resumed: false,
      clock,
      random,
      records: new RecordStore(
        coordinator.client('primary', action => action()),
        sr,
        volume
      ),
      peer: host => (host === own.identity.host ? own : other),
      timing: DEFAULT_TIMING,
      batches: DEFAULT_BATCHES,
      log: event => transcript.push(`primary: ${event}`),
    })

    own.admission = new Gate()
    await world.runUntil(mirror.open(1000 as Millis), 10_000)
    other.road = new Gate()
    const data = new Uint8Array(4096).fill(7)
    const offset = (5 * REGION_BYTES) as ByteOffset
    const written = mirror.requests.change(
      'write',
      { offset, length: data.length as ByteLength, durable: false },
      data
    )
    own.admission.open()
    // Long enough for everything that does not wait for the write.
    await world.runUntil(world.pause(1000), 20_000)
    other.road.open()
    await world.runUntil(written, 30_000)
    await world.runUntil(world.pause(2000), 40_000)

    const story = transcript.join('\n')
    assert.match(story, /primary: replica is in-sync/, story)
    assert.deepEqual(own.content.subarray(offset, offset + data.length), data, story)
    assert.equal(mirror.allInSync, true)
    await world.runUntil(mirror.close(1000 as Millis), 60_000)
  })
})
