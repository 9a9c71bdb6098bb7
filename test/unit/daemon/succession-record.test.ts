import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { hostKey, memberKey, srKey } from '../../../cluster/keys.ts'
import { serialiseSrRecord } from '../../../cluster/records.ts'
import { type Coordinator } from '../../../core/ports/coordinator.ts'
import { type HostId, millis, type SrId } from '../../../core/units.ts'
import { SuccessionRecord } from '../../../daemon/cluster/succession-record.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { nodeRandom } from '../../../daemon/ports/node-random.ts'
import { Deadline } from '../../../volume/deadline.ts'
import { type Fate, type SimulatedCall, SimulatedCoordinator } from '../../simulator/simulated-coordinator.ts'
import { newHostId } from '../../support/trust-rig.ts'

const clock = createNodeClock()
const deadline = () => new Deadline(clock, 'the test', 20_000)
const [h1, h2, h3] = [newHostId(), newHostId(), newHostId()]
const ANSWER: Fate = { kind: 'answer', beforeMs: millis(0), afterMs: millis(0) }

describe('the record of a succession', () => {
  let store: SimulatedCoordinator
  let coordinator: Coordinator
  /** What becomes of the next transaction, if not the usual. */
  let fate: Fate | null
  let sr: SrId
  let up: Set<HostId>
  let record: SuccessionRecord

  beforeEach(() => {
    fate = null
    const decide = ({ verb }: SimulatedCall): Fate => {
      const next = verb === 'transact' ? fate : null
      if (next !== null) fate = null
      return next ?? ANSWER
    }
    store = new SimulatedCoordinator({ clock, decide })
    coordinator = store.client('h2')
    sr = randomUUID() as SrId
    up = new Set([h2, h3])
    const isUp = async (host: HostId) => Promise.resolve(up.has(host))
    record = new SuccessionRecord({ coordinator, clock, random: nodeRandom }, isUp)
    const key = srKey(sr)
    const value = serialiseSrRecord(key, {
      version: 1,
      sr,
      name: 'sr',
      description: '',
      generation: 1,
      configuration: { copies: 2, headroom: { unit: 'fraction', amount: 0.1 } },
      hosts: [h1, h2, h3],
      createdBy: h1,
    })
    store.transact('the test', [], [{ key, value }])
  })
  afterEach(async () => coordinator.close())

  const waits = { code: 'SUCCESSION_WAITS' }
  async function goesNoFurther(host: HostId): Promise<void> {
    await assert.rejects(record.requireClaim(sr, host, deadline()), waits)
    await assert.rejects(record.hold(sr, host, deadline()), waits)
    await assert.rejects(record.release(sr, host, [], deadline()), waits)
  }

  it('names one host that succeeds, and the holder, and forgets the succession at the end', async () => {
    await record.claim(sr, h1, h2, new Set([h1]), deadline())
    await record.claim(sr, h1, h2, new Set([h1]), deadline())
    await record.requireClaim(sr, h2, deadline())
    await record.hold(sr, h2, deadline())
    const { authority, succession } = await record.read(sr, deadline())
    assert.deepEqual([authority, succession], [h2, { removed: h1, by: h2 }])
    const removals = [memberKey(h1), hostKey(h1)]
    await coordinator.transact(
      [],
      removals.map(key => ({ key, value: 'written again' }))
    )
    await record.release(sr, h2, removals, deadline())
    const released = await record.read(sr, deadline())
    assert.deepEqual([released.authority, released.succession], [h2, undefined])
    for (const key of removals) assert.equal((await coordinator.read(key)).entry, null)
  })

  it('is released once, also when that was not answered, and leaves alone who has joined since', async () => {
    await record.claim(sr, h1, h2, new Set([h1]), deadline())
    const key = memberKey(h1)
    store.transact('the test', [], [{ key, value: 'not a member any more' }])
    fate = { kind: 'unknown', effectMs: millis(0), afterMs: millis(20) }
    const released = record.release(sr, h2, [key], deadline())
    clock.after(millis(10), () => store.transact('the test', [], [{ key, value: 'joined again' }]))
    await released
    assert.equal(store.read(key).entry?.value, 'joined again')
  })

  it('lets no second host succeed while the first is up', async () => {
    await record.claim(sr, h1, h2, new Set([h1]), deadline())
    await assert.rejects(record.claim(sr, h1, h3, new Set([h1]), deadline()), waits)
    await goesNoFurther(h3)
  })

  it('lets another host take it up when the first is lost, which then goes no further', async () => {
    await record.claim(sr, h1, h2, new Set([h1]), deadline())
    up.delete(h2)
    await record.claim(sr, h2, h3, new Set([h2]), deadline())
    await record.requireClaim(sr, h3, deadline())
    await goesNoFurther(h2)
  })

  it('lets another host take it up from one that is removed itself, up or not', async () => {
    await record.claim(sr, h1, h2, new Set([h1]), deadline())
    await record.claim(sr, h1, h3, new Set([h1, h2]), deadline())
    await goesNoFurther(h2)
  })

  it('has a host removed in the ordinary way only while nobody succeeds and the holder is the same', async () => {
    const key = memberKey(h3)
    const isThere = async () => (await coordinator.read(key)).entry !== null
    await coordinator.transact([], [{ key, value: 'a member' }])
    await assert.rejects(record.remove(sr, h2, [key], deadline()), waits)
    await record.claim(sr, h1, h2, new Set([h1]), deadline())
    await assert.rejects(record.remove(sr, h1, [key], deadline()), waits)
    assert.equal(await isThere(), true)
    await record.release(sr, h2, [], deadline())
    await record.remove(sr, h2, [key], deadline())
    assert.equal(await isThere(), false)
  })

  it('lets one of two begin that want to at the same time', async () => {
    const both = await Promise.allSettled(
      [h2, h3].map(async by => record.claim(sr, h1, by, new Set([h1]), deadline()))
    )
    assert.deepEqual(both.map(({ status }) => status).sort(), ['fulfilled', 'rejected'])
  })
})
