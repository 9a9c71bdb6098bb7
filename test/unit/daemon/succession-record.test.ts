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
  /** The SR that a host says it is in. */
  let up: Map<HostId, SrId>
  let record: SuccessionRecord
  /** What it begins with: h1 holds the authority. */
  let begin: string

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
    up = new Map([h2, h3].map(host => [host, sr]))
    record = new SuccessionRecord({
      coordinator,
      clock,
      random: nodeRandom,
      srOf: async host => Promise.resolve(up.get(host) ?? null),
      nameOf: host => `h${[h1, h2, h3].indexOf(host) + 1}`,
    })
    const key = srKey(sr)
    begin = serialiseSrRecord(key, {
      version: 1,
      sr,
      name: 'sr',
      description: '',
      generation: 1,
      configuration: { copies: 2, headroom: { unit: 'fraction', amount: 0.1 } },
      hosts: [h1, h2, h3],
      createdBy: h1,
    })
    store.transact('the test', [], [{ key, value: begin }])
    for (const host of [h1, h2, h3]) setMember(host, 'a member')
  })
  afterEach(async () => coordinator.close())

  const setMember = (host: HostId, value: string | null): void => {
    store.transact('the test', [], [{ key: memberKey(host), value }])
  }
  const elsewhere = { code: 'SUCCESSION_ELSEWHERE' }
  async function goesNoFurther(host: HostId): Promise<void> {
    await assert.rejects(record.requireClaim(sr, host, deadline()), elsewhere)
    await assert.rejects(record.hold(sr, host, deadline()), elsewhere)
    await assert.rejects(record.release(sr, host, [], deadline()), elsewhere)
  }

  it('names one host that succeeds, and the holder, and forgets the succession at the end', async () => {
    await record.claim(sr, h1, h2, deadline())
    await record.claim(sr, h1, h2, deadline())
    await record.requireClaim(sr, h2, deadline())
    await record.hold(sr, h2, deadline())
    const { authority, succession } = await record.read(sr, deadline())
    assert.deepEqual([authority, succession], [h2, { removed: [h1], by: h2 }])
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
    await record.claim(sr, h1, h2, deadline())
    const key = memberKey(h1)
    store.transact('the test', [], [{ key, value: 'not a member any more' }])
    fate = { kind: 'unknown', effectMs: millis(0), afterMs: millis(20) }
    const released = record.release(sr, h2, [key], deadline())
    clock.after(millis(10), () => store.transact('the test', [], [{ key, value: 'joined again' }]))
    await released
    assert.equal(store.read(key).entry?.value, 'joined again')
  })

  it('lets no second host succeed while the first is up', async () => {
    await record.claim(sr, h1, h2, deadline())
    await assert.rejects(record.claim(sr, h1, h3, deadline()), {
      ...elsewhere,
      message: /^Host h2 takes the place of .*: it has begun this/,
    })
    await goesNoFurther(h3)
  })

  it('lets another host take it up when the first is lost, or no member, and then goes no further', async () => {
    const isRemoved = () => setMember(h2, null)
    const hasLeft = () => up.set(h2, randomUUID() as SrId)
    for (const lose of [() => up.delete(h2), hasLeft, isRemoved]) {
      await record.claim(sr, h1, h2, deadline())
      lose()
      await record.claim(sr, h1, h3, deadline())
      await goesNoFurther(h2)
      await record.release(sr, h3, [], deadline())
      store.transact('the test', [], [{ key: srKey(sr), value: begin }])
      up.set(h2, sr)
    }
  })

  it('lets another host take it up from one that is removed itself, up or not', async () => {
    await record.claim(sr, h1, h2, deadline())
    await record.claim(sr, h2, h3, deadline())
    await goesNoFurther(h2)
  })

  it('forgets nobody who was to be removed, whoever takes it up, but does not let two remove each other', async () => {
    const others = [newHostId(), newHostId()] as const
    await record.claim(sr, h1, h2, deadline())
    for (const other of others) await record.claim(sr, other, h2, deadline())
    assert.deepEqual(await record.claim(sr, h2, h3, deadline()), new Set([h1, ...others, h2]))
    await assert.rejects(record.claim(sr, h3, h2, deadline()), elsewhere)
    assert.deepEqual((await record.read(sr, deadline())).succession, {
      removed: [h1, ...others, h2],
      by: h3,
    })
  })

  it('is begun for the holder only, not once more by one who wanted the same and was slower', async () => {
    await assert.rejects(record.claim(sr, h2, h3, deadline()), elsewhere)
    await record.claim(sr, h1, h2, deadline())
    await record.release(sr, h2, [], deadline())
    await assert.rejects(record.claim(sr, h1, h3, deadline()), { message: /^Host h2 .*done so meanwhile/ })
    assert.equal((await record.read(sr, deadline())).succession, undefined)
  })

  it('is begun by members only, also when this one is removed in the same moment', async () => {
    setMember(h2, null)
    await assert.rejects(record.claim(sr, h1, h2, deadline()), { code: 'NOT_IN_CLUSTER' })
    setMember(h2, 'a member')
    // On its way, while another host removes this one.
    fate = { kind: 'answer', beforeMs: millis(20), afterMs: millis(0) }
    const claimed = record.claim(sr, h1, h2, deadline())
    clock.after(millis(10), () => setMember(h2, null))
    await assert.rejects(claimed, { code: 'NOT_IN_CLUSTER' })
    assert.equal((await record.read(sr, deadline())).succession, undefined)
  })

  it('has a host removed in the ordinary way only while nobody succeeds and the holder is the same', async () => {
    const key = memberKey(h3)
    const isThere = async () => (await coordinator.read(key)).entry !== null
    await assert.rejects(record.remove(sr, h2, [key], deadline()), elsewhere)
    await record.claim(sr, h1, h2, deadline())
    await assert.rejects(record.remove(sr, h1, [key], deadline()), elsewhere)
    assert.equal(await isThere(), true)
    await record.release(sr, h2, [], deadline())
    await record.remove(sr, h2, [key], deadline())
    assert.equal(await isThere(), false)
  })

  it('lets one of two begin that want to at the same time', async () => {
    const both = await Promise.allSettled([h2, h3].map(async by => record.claim(sr, h1, by, deadline())))
    assert.deepEqual(both.map(({ status }) => status).sort(), ['fulfilled', 'rejected'])
  })
})
