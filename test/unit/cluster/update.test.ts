import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { type Proposal, transactUntilKnown, update } from '../../../cluster/update.ts'
import { hasCode } from '../../../core/errors.ts'
import { type Coordinator, type Entry } from '../../../core/ports/coordinator.ts'
import { millis } from '../../../core/units.ts'
import { type Fate, type SimulatedCall, SimulatedCoordinator } from '../../simulator/simulated-coordinator.ts'
import { ManualClock } from './manual-clock.ts'

const ANSWER: Fate = { kind: 'answer', beforeMs: millis(0), afterMs: millis(0) }
const UNAVAILABLE: Fate = { kind: 'unavailable', afterMs: millis(1) }
const unknown = (effectMs: number | null): Fate => ({
  kind: 'unknown',
  afterMs: millis(1),
  effectMs: effectMs === null ? null : millis(effectMs),
})

describe('update', () => {
  let clock: ManualClock
  let store: SimulatedCoordinator
  let client: Coordinator
  /** Fates of the coming transactions; when used up, calls are answered. */
  let fates: Fate[]
  /** Runs when a transaction is sent. */
  let beforeTransact: () => void
  let readFate: Fate

  beforeEach(() => {
    clock = new ManualClock()
    fates = []
    readFate = ANSWER
    beforeTransact = () => undefined
    const decide = ({ verb }: SimulatedCall): Fate => {
      if (verb !== 'transact') {
        return readFate
      }
      beforeTransact()
      return fates.shift() ?? ANSWER
    }
    store = new SimulatedCoordinator({ clock, decide })
    client = store.client('h1')
    store.transact('setup', [], [{ key: 'list', value: '[]' }])
  })

  /** Adds an item unless it is there; two items of one name would be the damage that a mistaken retry does. */
  const add =
    (item: string) =>
    (current: Entry | null): Proposal | 'unchanged' =>
      itemsOf(current).includes(item) ? 'unchanged' : { value: JSON.stringify([...itemsOf(current), item]) }
  const itemsOf = (entry: Entry | null): string[] => JSON.parse(entry?.value ?? '[]') as string[]
  const items = (): string[] => itemsOf(store.read('list').entry)

  const random = { uuid: randomUUID, fraction: () => 0.5 }

  async function run(decide: (current: Entry | null) => Proposal | 'unchanged'): Promise<void> {
    const context = { coordinator: client, clock, random }
    return inTime(update(context, 'list', decide, millis(clock.now() + 10_000)))
  }

  async function inTime<Result>(running: Promise<Result>): Promise<Result> {
    // The failure is looked at once time has passed.
    running.catch(() => undefined)
    await clock.advance(20_000)
    return running
  }

  const other = (item: string): unknown =>
    store.transact('other', [], [{ key: 'list', value: JSON.stringify([...items(), item]) }])

  it('changes the entry', async () => {
    await run(add('mine'))
    assert.deepEqual(items(), ['mine'])
  })

  it('creates, and removes', async () => {
    store.transact('setup', [], [{ key: 'list', value: null }])
    await run(add('mine'))
    assert.deepEqual(items(), ['mine'])
    await run(current => (current === null ? 'unchanged' : { value: null }))
    assert.equal(store.read('list').entry, null)
  })

  it('makes the changes alongside in the same transaction', async () => {
    await run(() => ({ value: null, alongside: [{ key: 'tombstone', value: 'x' }] }))
    assert.equal(store.read('list').entry, null)
    assert.equal(store.read('tombstone').entry?.value, 'x')
  })

  it('changes nothing when there is nothing to change, or when the change throws', async () => {
    const { revision } = store.list('')
    await run(() => 'unchanged')
    await assert.rejects(
      () =>
        run(() => {
          throw new RangeError('no')
        }),
      RangeError
    )
    assert.equal(store.list('').revision, revision)
  })

  it('applies the change anew to what another made of the entry meanwhile', async () => {
    const others = ['a', 'b', 'c']
    beforeTransact = () => others.length > 0 && other(others.shift()!)
    await run(add('mine'))
    assert.deepEqual(items(), ['a', 'b', 'c', 'mine'])
  })

  it('loses none of many changes that are made at once', async () => {
    const names = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h']
    await Promise.all(names.map(name => run(add(name))))
    assert.deepEqual(items().sort(), names)
  })

  it('finds that a lost change was made, also when the time is over by then', async () => {
    fates = [unknown(0)]
    const context = { coordinator: client, clock, random }
    // Time for the second attempt, but not for the pause before a third.
    await inTime(update(context, 'list', add('mine'), millis(clock.now() + 7)))
    assert.deepEqual(items(), ['mine'])
  })

  it('waits while the coordinator is unavailable', async () => {
    fates = [UNAVAILABLE, UNAVAILABLE, UNAVAILABLE]
    await run(add('mine'))
    assert.deepEqual(items(), ['mine'])
  })

  for (const [when, effectMs] of [
    ['before the answer was lost', 0],
    ['after the caller was told', 3],
    ['long after', 5_000],
    ['never', null],
  ] as const) {
    it(`makes the change exactly once when a lost one happens ${when}`, async () => {
      fates = [unknown(effectMs)]
      await run(add('mine'))
      assert.deepEqual(items(), ['mine'])
    })

    it(`makes the change exactly once when many are lost that happen ${when}, among changes of others`, async () => {
      fates = [unknown(effectMs), unknown(null), UNAVAILABLE, unknown(effectMs)]
      let calls = 0
      beforeTransact = () => ++calls === 3 && other('a')
      await run(add('mine'))
      assert.deepEqual(items().sort(), ['a', 'mine'])
    })
  }

  it('sends exactly the same change again after an unknown outcome, and never reads in between', async () => {
    const verbs: string[] = []
    fates = [unknown(null), unknown(null)]
    const decide = store.decide
    store = new SimulatedCoordinator({
      clock,
      decide: call => {
        verbs.push(call.verb)
        return decide(call)
      },
    })
    client = store.client('h1')
    let proposals = 0
    await run(current => add(`mine ${++proposals}`)(current))
    assert.deepEqual(verbs, ['read', 'transact', 'transact', 'transact'])
    assert.deepEqual(items(), ['mine 1'])
  })

  it('says that the outcome is unknown when the deadline comes first, and only then', async () => {
    fates = Array.from({ length: 1_000 }, () => UNAVAILABLE)
    await assert.rejects(run(add('mine')), error => hasCode(error, 'COORDINATOR_UNAVAILABLE'))
    fates = [unknown(null), ...Array.from({ length: 1_000 }, () => UNAVAILABLE)]
    await assert.rejects(run(add('mine')), error => hasCode(error, 'COORDINATOR_OUTCOME_UNKNOWN'))
    fates = []
    beforeTransact = () => other('again')
    await assert.rejects(run(add('mine')), error => hasCode(error, 'DEADLINE_EXCEEDED'))
    readFate = UNAVAILABLE
    await assert.rejects(run(add('mine')), error => hasCode(error, 'COORDINATOR_UNAVAILABLE'))
    assert.ok(!items().includes('mine'))
  })

  describe('of several entries, transacted until the outcome is known', () => {
    const transact = async () =>
      inTime(
        transactUntilKnown(
          { coordinator: client, clock, random },
          [{ key: 'a', revision: 0 }],
          [
            { key: 'a', value: 'mine' },
            { key: 'b', value: 'mine' },
          ],
          millis(clock.now() + 1_000)
        )
      )

    it('is made once when its first answer was lost, and the entries tell whose they are', async () => {
      fates = [UNAVAILABLE, unknown(null), UNAVAILABLE]
      assert.equal((await transact()).committed, true)
      store.transact('other', [], [{ key: 'a', value: null }])
      fates = [unknown(0)]
      const { committed, current } = await transact()
      assert.deepEqual([committed, current.map(({ value }) => value)], [false, ['mine']])
    })

    it('is not called undone once an answer was lost', async () => {
      fates = [unknown(5), ...Array.from({ length: 1_000 }, () => UNAVAILABLE)]
      await assert.rejects(transact(), { code: 'COORDINATOR_OUTCOME_UNKNOWN' })
      fates = Array.from({ length: 1_000 }, () => UNAVAILABLE)
      await assert.rejects(transact(), { code: 'COORDINATOR_UNAVAILABLE' })
    })
  })
})
