import assert from 'node:assert/strict'
import {
  type AcceptAnswer,
  type AcceptRequest,
  type ProcessIdentity,
  type ReplicaAddress,
} from '../../../../core/mirror/messages.ts'
import { DEFAULT_TIMING } from '../../../../core/mirror/timing.ts'
import {
  BLOCK_BYTES,
  type BootId,
  byteLength,
  byteOffset,
  epoch,
  type HostId,
  type Incarnation,
  type LayerId,
  type Millis,
  REGION_BYTES,
  type ReplicaId,
  sequence,
  sessionNumber,
  type SrId,
  type StoreId,
  type VolumeKey,
} from '../../../../core/units.ts'
import { type ReplicaSession } from '../../../../datapath/mirror/replica-peer.ts'
import { ReplicaHost } from '../../../../datapath/process/replica-host.ts'
import { SimulatedDisk } from '../../../simulator/simulated-disk.ts'
import { World } from '../../../simulator/world.ts'

/** Longer than any virtual time in these tests, in milliseconds. */
const LIMIT_MS = 1_000_000
/** Far longer than an asker waits for an answer, in milliseconds. */
const FLUSH_MS = 20_000
/** After which an answer was not waited for, in milliseconds. */
const AT_ONCE_MS = 1

/** A host with one replica, whose disk may need long to sync data. Time is virtual. */
class Rig {
  readonly world = new World(1, () => undefined)
  readonly address: ReplicaAddress
  readonly primary = this.#process()
  readonly contender = this.#process()
  readonly disk: SimulatedDisk
  readonly replicas: ReplicaHost
  session!: ReplicaSession
  /** How long a sync of data takes, in milliseconds, and how many there were. */
  syncMs = 0
  syncs = 0

  constructor() {
    const { world } = this
    this.address = {
      sr: this.#id() as SrId,
      volume: this.#id() as VolumeKey,
      replica: this.#id() as ReplicaId,
      store: this.#id() as StoreId,
      layers: [this.#id() as LayerId],
      size: byteLength(16 * REGION_BYTES),
    }
    let halves = 0
    this.disk = new SimulatedDisk({
      random: world.random,
      // Asked before and after each call.
      delay: async (call, name) => {
        if (call !== 'sync' || !name.endsWith('.raw')) return
        if (halves++ % 2 === 0) this.syncs++
        if (this.syncMs > 0) await world.pause(this.syncMs / 2)
      },
    })
    const mount = this.disk.mount()
    const { store } = this.address
    this.replicas = new ReplicaHost({
      identity: this.#process(),
      clock: { now: () => world.now as Millis, after: (ms, action) => world.after(ms, action) },
      timing: DEFAULT_TIMING,
      store: async () => Promise.resolve({ id: store, disk: mount }),
      isServing: () => false,
    })
  }

  #id(): string {
    return this.world.random.uuid()
  }

  #process(): ProcessIdentity {
    const [host, boot, incarnation] = [this.#id(), this.#id(), this.#id()]
    return { host: host as HostId, boot: boot as BootId, incarnation: incarnation as Incarnation }
  }

  another(): ProcessIdentity {
    return this.#process()
  }

  request(at: number, asker: ProcessIdentity): AcceptRequest {
    return {
      address: this.address,
      epoch: epoch(at),
      asker,
      purpose: 'guest',
      inSync: true,
      voidUpTo: epoch(at - 1),
    }
  }

  async accept(at: number, asker = this.contender): Promise<AcceptAnswer> {
    return this.replicas.accept(this.request(at, asker))
  }

  async confirm(at: number, asker: ProcessIdentity) {
    const { address } = this
    return this.replicas.confirm({ address, epoch: epoch(at), asker, purpose: 'guest' })
  }

  async write(place: number): Promise<void> {
    const data = new Uint8Array(BLOCK_BYTES).fill(place)
    const offset = byteOffset(place * REGION_BYTES)
    await this.session.write({ offset, data, durable: false, sequence: sequence(place) })
  }

  /** Asks until it hears something else than that it has to wait. */
  async insist(at: number, asker = this.contender): Promise<AcceptAnswer> {
    for (;;) {
      const answer = await this.accept(at, asker)
      if (answer.kind !== 'preparing') return answer
    }
  }

  /** How long something takes, in milliseconds of virtual time. */
  async timeOf(what: Promise<unknown>): Promise<number> {
    const { now } = this.world
    await what
    return this.world.now - now
  }
}

/** Plays a story in which a primary at epoch 1 has written, and from there each flush takes long. */
async function play(story: (rig: Rig) => Promise<void>): Promise<void> {
  const rig = new Rig()
  const whole = async (): Promise<void> => {
    const { address, replicas, primary } = rig
    const { sr, volume, replica, layers, size } = address
    await replicas.create({ sr, volume, replica, layers, size }, true)
    assert.equal((await rig.accept(1, primary)).kind, 'accepted')
    assert.equal((await rig.confirm(1, primary)).kind, 'ok')
    rig.session = await replicas.openSession({ address, epoch: epoch(1), session: sessionNumber(1) })
    await rig.write(1)
    rig.syncMs = FLUSH_MS
    rig.syncs = 0
    await story(rig)
  }
  await rig.world.runUntil(whole(), LIMIT_MS)
}

describe('a replica whose disk takes long to flush, asked for an epoch', () => {
  it('says what it is about before its asker gives up, and accepts when it has flushed', async () =>
    play(async rig => {
      const { now } = rig.world
      const first = await rig.accept(2)
      assert(first.kind === 'preparing')
      assert.equal(first.reason, 'what was written before is made durable')
      assert.ok(rig.world.now - now <= DEFAULT_TIMING.callTimeoutMs / 2)
      const answer = await rig.insist(2)
      assert.equal(answer.kind, 'accepted')
      const took = rig.world.now - now
      assert.ok(took >= FLUSH_MS && took < FLUSH_MS + 10, `it took ${took} ms`)
    }))

  it('flushes once for all who ask the same', async () =>
    play(async rig => {
      const replica = await rig.replicas.reader(rig.address.sr, rig.address.volume)
      const flush = replica.flush.bind(replica)
      let flushes = 0
      replica.flush = async () => {
        flushes++
        await flush()
      }
      const answers = await Promise.all([rig.insist(2), rig.insist(2), rig.insist(2)])
      assert.deepEqual(
        answers.map(({ kind }) => kind),
        ['accepted', 'accepted', 'accepted']
      )
      assert.deepEqual([flushes, rig.syncs], [1, 1])
    }))

  it('takes nothing from the primary any more from the first question on', async () =>
    play(async rig => {
      await rig.accept(2)
      await assert.rejects(rig.write(2), { code: 'SESSION_STALE' })
      await assert.rejects(rig.session.flush(), { code: 'SESSION_STALE' })
    }))

  it('goes on when nobody asks any more, and answers at once who asks later', async () =>
    play(async rig => {
      await rig.accept(2)
      await rig.world.pause(2 * FLUSH_MS)
      let answer: AcceptAnswer | undefined
      const took = await rig.timeOf(rig.accept(2).then(given => (answer = given)))
      assert.equal(answer?.kind, 'accepted')
      assert.ok(took < AT_ONCE_MS, `it took ${took} ms`)
      assert.equal(rig.syncs, 1)
    }))

  it('gives its word to a higher epoch that comes meanwhile, without a second flush', async () =>
    play(async rig => {
      const other = rig.another()
      await rig.accept(2)
      const [overtaken, winner] = await Promise.all([rig.insist(2), rig.insist(3, other)])
      assert.equal(winner.kind, 'accepted')
      assert.ok(['accepted', 'higher-epoch'].includes(overtaken.kind), overtaken.kind)
      assert.equal((await rig.accept(2)).kind, 'higher-epoch')
      assert.equal((await rig.confirm(2, rig.contender)).kind, 'refused')
      assert.equal((await rig.confirm(3, other)).kind, 'ok')
      assert.equal(rig.syncs, 1)
    }))

  it('refuses a lower epoch, and another replica that is meant, without a wait', async () =>
    play(async rig => {
      await rig.accept(3)
      const kinds: string[] = []
      const wrong = { ...rig.address, replica: rig.another().incarnation as string as ReplicaId }
      const took = await rig.timeOf(
        (async () => {
          kinds.push((await rig.accept(2, rig.another())).kind)
          kinds.push((await rig.replicas.accept({ ...rig.request(4, rig.another()), address: wrong })).kind)
        })()
      )
      assert.deepEqual(kinds, ['higher-epoch', 'gone'])
      assert.ok(took < AT_ONCE_MS, `it took ${took} ms`)
    }))

  it('names its promise without a wait, whatever its disk is about', async () =>
    play(async rig => {
      const flushed = rig.session.flush()
      // A new session waits for the flush of the one before, in the turn of everything about the right.
      const session = assert.rejects(
        rig.replicas.openSession({ address: rig.address, epoch: epoch(1), session: sessionNumber(2) }),
        { code: 'REPLICA_BUSY' }
      )
      let answer: AcceptAnswer | undefined
      const asked = rig.replicas.accept({ ...rig.request(2, rig.contender), voidUpTo: epoch(0) })
      const took = await rig.timeOf(asked.then(given => (answer = given)))
      assert(answer?.kind === 'promised')
      assert.equal(answer.holder, rig.primary.host)
      assert.ok(took < AT_ONCE_MS, `it took ${took} ms`)
      await assert.rejects(flushed, { code: 'SESSION_STALE' })
      await session
    }))

  it('tells the primary that lost it without a wait', async () =>
    play(async rig => {
      await rig.accept(2)
      let answer: unknown
      const took = await rig.timeOf(rig.confirm(1, rig.primary).then(given => (answer = given)))
      assert.deepEqual(
        { ...(answer as object), identity: null },
        { kind: 'refused', identity: null, accepted: 2 }
      )
      assert.ok(took < AT_ONCE_MS, `it took ${took} ms`)
    }))

  it('owes nothing for an epoch that it has yet to accept, and says so without a wait', async () =>
    play(async rig => {
      await rig.accept(2)
      const answers: unknown[] = []
      const confirmAll = async (): Promise<void> => {
        for (const at of [2, 3]) answers.push({ ...(await rig.confirm(at, rig.contender)), identity: null })
      }
      const took = await rig.timeOf(confirmAll())
      const refused = { kind: 'refused', identity: null, accepted: 1 }
      assert.deepEqual(answers, [refused, refused])
      assert.ok(took < AT_ONCE_MS, `it took ${took} ms`)
      assert.equal((await rig.insist(2)).kind, 'accepted')
      assert.equal((await rig.confirm(2, rig.contender)).kind, 'ok')
    }))

  it('lets only so many requests wait, however many contenders come to nothing', async () =>
    play(async rig => {
      for (let at = 2; at < 102; at++) void rig.accept(at, rig.another())
      await rig.world.pause(2 * FLUSH_MS)
      const answer = await rig.confirm(1, rig.primary)
      assert(answer.kind === 'refused')
      assert.equal(answer.accepted, 9, 'eight waited')
      assert.equal((await rig.accept(200)).kind, 'accepted')
    }))

  it('says that its disk failed when the flush did', async () =>
    play(async rig => {
      await rig.accept(2)
      rig.disk.fault = call => {
        if (call === 'sync') throw Object.assign(new Error('EIO'), { code: 'EIO' })
      }
      assert.equal((await rig.insist(2)).kind, 'failed')
    }))
})
