import assert from 'node:assert/strict'
import { RegionSet } from '../../../../core/mirror/region-set.ts'
import { ResyncPlan } from '../../../../core/mirror/resync-plan.ts'
import { type ByteLength, REGION_BYTES, type RegionIndex, type ReplicaId } from '../../../../core/units.ts'
import { type WriteRequest, type ZeroRequest } from '../../../../datapath/block-device.ts'
import { type ReplicaLink } from '../../../../datapath/mirror/replica-link.ts'
import { CopyEngine, type CopyHost } from '../../../../datapath/resync/copy-engine.ts'
import { fullSet } from '../../../support/region-sets.ts'

const MIB = 2 ** 20
/** Regions of 512 MiB. */
const REGIONS = (512 * MIB) / REGION_BYTES
/** As much as may wait for the disk of a target, and what the copies under way add each time. */
const UNFLUSHED_MAX = 128 * MIB + 32 * REGION_BYTES
/** Turns of the event loop that are enough for all copies. */
const TURNS = 40 * REGIONS

/** A replica that takes everything, and flushes when it is let. */
class Target {
  readonly replica: ReplicaId
  readonly regions = new Set<number>()
  readonly flushes: { end: () => void; fail: () => void }[] = []
  unflushedBytes = 0
  unflushedMax = 0
  /** Flushes end by themselves. */
  isFast = true
  mustAcknowledge = false
  session: object | null
  flushed = 0

  constructor(name: string) {
    this.replica = name as ReplicaId
    this.session = {
      write: async ({ offset, data }: WriteRequest) => this.#take(offset, data.length),
      zero: async ({ offset, length, keepAllocated }: ZeroRequest) =>
        this.#take(offset, keepAllocated ? length : 0),
      abort: () => undefined,
    }
  }

  async #take(offset: number, length: number): Promise<void> {
    this.regions.add(offset / REGION_BYTES)
    this.unflushedBytes += length
    this.unflushedMax = Math.max(this.unflushedMax, this.unflushedBytes)
    return Promise.resolve()
  }

  get link(): ReplicaLink {
    // Only what the engine asks of a link.
    return this as unknown as ReplicaLink
  }

  get record() {
    return { replica: this.replica }
  }

  get name() {
    return {}
  }

  get peer() {
    return { digests: async () => Promise.resolve(null) }
  }

  nextSequence(): number {
    return 1
  }

  async flush(): Promise<void> {
    const covered = this.unflushedBytes
    if (!this.isFast) {
      await new Promise<void>((resolve, reject) =>
        this.flushes.push({
          end: resolve,
          fail: () => {
            this.session = null
            reject(new Error('EIO'))
          },
        })
      )
    }
    this.unflushedBytes -= covered
    this.flushed++
  }
}

describe('copying to replicas that are being rebuilt', () => {
  let plan: ResyncPlan
  let targets: Target[]
  let engine: CopyEngine
  let extent: { hole: boolean; zero: boolean }
  const copied: number[] = []

  const add = (name: string): Target => {
    const target = new Target(name)
    targets.push(target)
    plan.add(target.replica, fullSet(REGIONS))
    return target
  }

  beforeEach(() => {
    plan = new ResyncPlan(REGIONS)
    targets = []
    copied.length = 0
    extent = { hole: false, zero: false }
    const source = {
      session: {
        size: REGIONS * REGION_BYTES,
        allocation: async (_: number, length: ByteLength) => Promise.resolve([{ length, ...extent }]),
        read: async (_: number, into: Uint8Array) => Promise.resolve(into),
      },
      flush: async () => Promise.resolve(),
    } as unknown as ReplicaLink
    const host: CopyHost = {
      clock: { now: () => assert.fail('no time passes'), after: () => assert.fail('nothing is waited for') },
      guestBusy: false,
      lock: async () => Promise.resolve(() => undefined),
      source: () => source,
      link: replica => targets.find(target => target.replica === replica)?.link,
      mustAcknowledge: link => (link as unknown as Target).mustAcknowledge,
      isUnreconciled: () => false,
      sourceRefused: () => assert.fail('the source can be read'),
      copied: region => copied.push(region),
    }
    engine = new CopyEngine(plan, host)
  })

  /** Lets everything happen that does not wait for a flush. */
  const settle = async (done: () => boolean = () => false): Promise<void> => {
    for (let turn = 0; turn < TURNS && !done(); turn++) await Promise.resolve()
    await new Promise(resolve => setImmediate(resolve))
  }

  it('flushes each again and again, so that little is left for the last flush', async () => {
    const target = add('a')
    engine.kick()
    await settle(() => !plan.needs(target.replica))
    assert.equal(target.regions.size, REGIONS)
    assert.ok(target.flushed >= 4, `${target.flushed} flushes`)
    assert.ok(target.unflushedMax <= UNFLUSHED_MAX, `${target.unflushedMax / MIB} MiB were not flushed`)
  })

  it('waits for one whose disk cannot keep up, and then goes on', async () => {
    const target = add('a')
    target.isFast = false
    engine.kick()
    await settle()
    assert.equal(target.flushes.length, 1, 'one flush at a time')
    assert.ok(target.unflushedBytes > 64 * MIB, 'it copies while the flush is under way')
    assert.ok(target.unflushedMax <= UNFLUSHED_MAX, `${target.unflushedMax / MIB} MiB were not flushed`)
    while (target.regions.size < REGIONS) {
      const before = target.regions.size
      for (const { end } of target.flushes.splice(0)) end()
      await settle()
      assert.ok(target.regions.size > before, `it stands at ${before} regions`)
    }
    assert.ok(target.unflushedMax <= UNFLUSHED_MAX, `${target.unflushedMax / MIB} MiB were not flushed`)
    assert.equal(plan.needs(target.replica), false)
  })

  it('goes on with the others meanwhile, without giving more to the one that cannot keep up', async () => {
    const slow = add('a')
    const fast = add('b')
    slow.isFast = false
    engine.kick()
    await settle(() => !plan.needs(fast.replica))
    assert.equal(fast.regions.size, REGIONS)
    assert.ok(slow.unflushedMax <= UNFLUSHED_MAX, `${slow.unflushedMax / MIB} MiB were not flushed`)
    slow.isFast = true
    for (const { end } of slow.flushes.splice(0)) end()
    await settle(() => !plan.needs(slow.replica))
    assert.equal(slow.regions.size, REGIONS, 'it gets what it missed meanwhile')
  })

  it('copies a region that a read waits for beside a flush that takes long', async () => {
    const slow = add('a')
    slow.isFast = false
    engine.kick()
    await settle()
    const urgent = (REGIONS - 1) as RegionIndex
    const inSync = new Target('b')
    inSync.mustAcknowledge = true
    targets.push(inSync)
    const needed = new RegionSet(REGIONS)
    needed.add(urgent)
    plan.add(inSync.replica, needed)
    plan.hurry(urgent)
    engine.kick()
    await settle()
    assert.deepEqual([...inSync.regions], [urgent])
    assert.equal(slow.regions.has(urgent), false)
  })

  it('leaves one alone whose flush failed: its session is over, and another rebuild begins anew', async () => {
    const target = add('a')
    target.isFast = false
    engine.kick()
    await settle()
    for (const { fail } of target.flushes.splice(0)) fail()
    const { size } = target.regions
    await settle()
    assert.equal(target.regions.size, size)
    assert.equal(target.flushes.length, 0)
  })

  it('does not flush those in-sync, which whoever waits for the copy does', async () => {
    const inSync = add('a')
    inSync.mustAcknowledge = true
    engine.kick()
    await settle(() => !plan.needs(inSync.replica))
    assert.equal(inSync.regions.size, REGIONS)
    assert.equal(inSync.flushed, 0)
  })

  it('does not count holes, which leave nothing to write', async () => {
    extent = { hole: true, zero: true }
    const target = add('a')
    engine.kick()
    await settle(() => !plan.needs(target.replica))
    assert.equal(target.regions.size, REGIONS)
    assert.equal(target.flushed, 0)
  })
})
