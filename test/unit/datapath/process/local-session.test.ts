import assert from 'node:assert/strict'
import { type ByteOffset, type Millis, millis } from '../../../../core/units.ts'
import { SILENCE } from '../../../../datapath/mirror/replica-link.ts'
import { type ReplicaSession } from '../../../../datapath/mirror/replica-peer.ts'
import { LocalSession } from '../../../../datapath/process/local-session.ts'
import { SimulatedProcess, World } from '../../../simulator/world.ts'

const REQUEST_MS = millis(16_000)
/** Between two looks. */
const LOOK_MS = 1000
const LIMIT_MS = 1_000_000

/** A session with a replica whose reads end when they are told to. Time is virtual. */
class Rig {
  readonly world = new World(1, () => undefined)
  readonly process = new SimulatedProcess(this.world, 1)
  readonly session: LocalSession
  readonly reads: { readonly into: Uint8Array; end: () => void }[] = []

  constructor() {
    let end: (reason: string) => void = () => undefined
    const inner: Partial<ReplicaSession> = {
      closed: new Promise(resolve => (end = resolve)),
      abort: reason => end(reason),
      read: async (_, into) =>
        new Promise(resolve => {
          const fill = (): void => {
            into.fill(7)
            resolve(into)
          }
          this.reads.push({ into, end: fill })
        }),
    }
    this.session = new LocalSession(inner as ReplicaSession, this.process.clock, REQUEST_MS)
  }

  async read(): Promise<Uint8Array> {
    return this.session.read(0 as ByteOffset, new Uint8Array(4))
  }

  async play(story: () => Promise<void>): Promise<void> {
    await this.world.runUntil(story(), LIMIT_MS)
  }

  get now(): Millis {
    return this.world.now as Millis
  }
}

describe('a session with the replica of the same process', () => {
  it('ends when a request is not answered in its time, and answers all that is under way', async () => {
    const rig = new Rig()
    await rig.play(async () => {
      const oldest = rig.read()
      await rig.world.pause(10_000)
      const newest = rig.read()
      await assert.rejects(oldest, { code: 'SESSION_STALE' })
      assert.ok(rig.now >= REQUEST_MS && rig.now <= REQUEST_MS + LOOK_MS, `at ${rig.now}`)
      await assert.rejects(newest, { code: 'SESSION_STALE' })
      assert.equal(await rig.session.closed, SILENCE)
      // What comes back now comes back to nobody.
      for (const read of rig.reads) read.end()
    })
  })

  it('goes on for as long as every request is answered in its time', async () => {
    const rig = new Rig()
    let over = false
    void rig.session.closed.then(() => (over = true))
    await rig.play(async () => {
      for (let i = 0; i < 20; i++) {
        const read = rig.read()
        const another = rig.read()
        await rig.world.pause(REQUEST_MS - 1)
        rig.reads[2 * i]!.end()
        rig.reads[2 * i + 1]!.end()
        assert.deepEqual(await read, new Uint8Array(4).fill(7))
        await another
        await rig.world.pause(i * 300)
      }
    })
    assert.equal(over, false)
  })

  it('does not take the time in which the process was stopped for its disk’s', async () => {
    const rig = new Rig()
    let over = false
    void rig.session.closed.then(() => (over = true))
    await rig.play(async () => {
      const read = rig.read()
      rig.process.pause()
      await rig.world.pause(10 * REQUEST_MS)
      rig.process.resume()
      await rig.world.pause(5 * LOOK_MS)
      rig.reads[0]!.end()
      await read
    })
    assert.equal(over, false)
  })
})
