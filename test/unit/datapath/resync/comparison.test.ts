import assert from 'node:assert/strict'
import { RegionSet } from '../../../../core/mirror/region-set.ts'
import { ResyncPlan } from '../../../../core/mirror/resync-plan.ts'
import {
  BLOCK_BYTES,
  type ByteLength,
  REGION_BYTES,
  type RegionIndex,
  type ReplicaId,
} from '../../../../core/units.ts'
import { type Extent, type WriteRequest, type ZeroRequest } from '../../../../datapath/block-device.ts'
import { type ReplicaLink } from '../../../../datapath/mirror/replica-link.ts'
import { digestsOf } from '../../../../datapath/replica-local/block-digests.ts'
import { CopyEngine, type CopyHost } from '../../../../datapath/resync/copy-engine.ts'
import { fullSet } from '../../../support/region-sets.ts'

const REGIONS = 64
const BLOCKS = REGION_BYTES / BLOCK_BYTES

/** A replica in memory that says what it is asked and what it is sent. */
class Target {
  readonly content = new Uint8Array(REGIONS * REGION_BYTES)
  readonly record: { readonly replica: ReplicaId }
  readonly name = {}
  /** Blocks that were written to it, by number in the volume. */
  readonly written: number[] = []
  readonly zeroed: number[] = []
  /** Regions whose digests were asked for. */
  readonly asked: number[] = []
  answer: (region: number) => Promise<Uint8Array | null> = async region =>
    Promise.resolve(digestsOf(this.content.subarray(region * REGION_BYTES, (region + 1) * REGION_BYTES)))

  constructor(name: string) {
    this.record = { replica: name as ReplicaId }
  }

  readonly peer = {
    digests: async (_: object, region: number) => {
      this.asked.push(region)
      return this.answer(region)
    },
  }

  readonly session = {
    write: async ({ offset, data }: WriteRequest) => {
      this.content.set(data, offset)
      for (let at = 0; at < data.length; at += BLOCK_BYTES) this.written.push((offset + at) / BLOCK_BYTES)
      return Promise.resolve()
    },
    zero: async ({ offset, length }: ZeroRequest) => {
      this.content.fill(0, offset, offset + length)
      this.zeroed.push(offset / BLOCK_BYTES)
      return Promise.resolve()
    },
    abort: () => undefined,
  }

  nextSequence(): number {
    return 1
  }

  async flush(): Promise<void> {
    return Promise.resolve()
  }

  get link(): ReplicaLink {
    // Only what the engine asks of a link.
    return this as unknown as ReplicaLink
  }
}

describe('comparing before copying', () => {
  let content: Uint8Array
  let extents: Extent[]
  let plan: ResyncPlan
  let targets: Target[]
  let engine: CopyEngine

  const add = (name: string, regions: readonly number[]): Target => {
    const target = new Target(name)
    targets.push(target)
    const needed = new RegionSet(REGIONS)
    for (const region of regions) needed.add(region as RegionIndex)
    plan.add(target.record.replica, needed)
    return target
  }

  beforeEach(() => {
    content = new Uint8Array(REGIONS * REGION_BYTES)
    for (let block = 0; block < REGIONS * BLOCKS; block++) {
      content.fill(1 + (block % 250), block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES)
    }
    extents = [{ length: REGION_BYTES as ByteLength, hole: false, zero: false }]
    plan = new ResyncPlan(REGIONS)
    targets = []
    const source = {
      session: {
        size: REGIONS * REGION_BYTES,
        allocation: async () => Promise.resolve(extents),
        read: async (offset: number, into: Uint8Array) => {
          into.set(content.subarray(offset, offset + into.length))
          return Promise.resolve(into)
        },
      },
      flush: async () => Promise.resolve(),
    } as unknown as ReplicaLink
    const host: CopyHost = {
      clock: { now: () => assert.fail('no time passes'), after: () => assert.fail('nothing is waited for') },
      guestBusy: false,
      lock: async () => Promise.resolve(() => undefined),
      source: () => source,
      link: replica => targets.find(target => target.record.replica === replica)?.link,
      mustAcknowledge: () => false,
      isUnreconciled: () => false,
      sourceRefused: () => assert.fail('the source can be read'),
      copied: () => undefined,
    }
    engine = new CopyEngine(plan, host)
  })

  const copyAll = async (): Promise<void> => {
    engine.kick()
    while (targets.some(({ record }) => plan.needs(record.replica))) {
      await new Promise(resolve => setImmediate(resolve))
    }
  }

  const first = (): Uint8Array => content.subarray(0, REGION_BYTES)

  it('sends the blocks that a target lacks and no others', async () => {
    const target = add('a', [0])
    target.content.set(first())
    for (const block of [0, 3, 4, 15])
      target.content.fill(0xff, block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES)
    await copyAll()
    assert.deepEqual(target.written, [0, 3, 4, 15])
    assert.deepEqual(target.content.subarray(0, REGION_BYTES), first())
  })

  it('sends to each of several what this one lacks', async () => {
    const one = add('a', [0])
    const other = add('b', [0])
    one.content.set(first())
    other.content.set(first().subarray(0, 8 * BLOCK_BYTES))
    await copyAll()
    assert.deepEqual(one.written, [])
    assert.deepEqual(other.written, [8, 9, 10, 11, 12, 13, 14, 15])
  })

  it('takes a block that differs in one bit for another', async () => {
    const target = add('a', [0])
    target.content.set(first())
    target.content[5 * BLOCK_BYTES + 4095]! ^= 1
    await copyAll()
    assert.deepEqual(target.written, [5])
  })

  it('makes holes of the source, whatever the target has there', async () => {
    const target = add('a', [0])
    target.content.fill(7)
    target.content.set(first().subarray(8 * BLOCK_BYTES), 8 * BLOCK_BYTES)
    const half = (REGION_BYTES / 2) as ByteLength
    extents = [
      { length: half, hole: true, zero: true },
      { length: half, hole: false, zero: false },
    ]
    await copyAll()
    assert.deepEqual([target.zeroed, target.written], [[0], []])
  })

  it('asks for nothing where the source has nothing', async () => {
    const target = add('a', [0])
    extents = [{ length: REGION_BYTES as ByteLength, hole: true, zero: true }]
    await copyAll()
    assert.deepEqual([target.asked, target.zeroed], [[], [0]])
  })

  for (const [what, answer] of [
    ['does not say', async () => Promise.resolve(null)],
    ['cannot be asked', async () => Promise.reject(new Error('no answer'))],
    ['says too little', async () => Promise.resolve(new Uint8Array(32))],
  ] as const) {
    it(`sends everything to a target that ${what}, and asks it no more`, async () => {
      const target = add('a', [0, 1])
      target.content.set(content)
      target.answer = answer
      await copyAll()
      assert.equal(target.written.length, 2 * BLOCKS)
      assert.equal(target.asked.length, 2, 'both were under way at once')
      const again = new RegionSet(REGIONS)
      again.add(2 as RegionIndex)
      plan.add(target.record.replica, again)
      await copyAll()
      assert.equal(target.asked.length, 2)
    })
  }

  it('sends a piece whole that does not begin at a block', async () => {
    const target = add('a', [0])
    target.content.set(first())
    extents = [
      { length: 100 as ByteLength, hole: true, zero: true },
      { length: (REGION_BYTES - 100) as ByteLength, hole: false, zero: false },
    ]
    first().fill(0, 0, 100)
    await copyAll()
    assert.deepEqual(target.content.subarray(0, REGION_BYTES), first())
  })

  it('looks only now and then where all of every region is to be sent, and again when that changes', async () => {
    const all = Array.from({ length: REGIONS }, (_, region) => region)
    const target = add('a', all)
    await copyAll()
    assert.deepEqual(target.content, content)
    // As many as are under way at once may have been asked before the first is known to be useless.
    assert.ok(target.asked.length >= 8 && target.asked.length <= 32, `${target.asked.length} of ${REGIONS}`)
    target.asked.length = 0
    target.written.length = 0
    plan.add(target.record.replica, fullSet(REGIONS))
    await copyAll()
    assert.ok(target.asked.length >= REGIONS / 2, `${target.asked.length} of ${REGIONS}`)
    assert.ok(target.written.length <= (REGIONS / 2) * BLOCKS, `${target.written.length} blocks`)
  })
})
