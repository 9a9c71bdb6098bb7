import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { type Proposal, type Updated, update } from '../../../cluster/update.ts'
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

  /** Adds an item; two items of one name would be the damage that a mistaken retry does. */
  const add =
    (item: string) =>
    (current: Entry | null): Proposal => ({ value: JSON.stringify([...itemsOf(current), item]) })
  const itemsOf = (entry: Entry | null): string[] => JSON.parse(entry?.value ?? '[]') as string[]
  const items = (): string[] => itemsOf(store.read('list').entry)

  async function run(
    change: (current: Entry | null) => Proposal | 'unchanged',
    isMine: (current: Entry | null) => boolean = current => itemsOf(current).includes('mine')
  ): Promise<Updated> {
    const random = { uuid: randomUUID, fraction: () => 0.5 }
    const running = update(client, 'list', change, {
      clock,
      random,
      deadline: millis(clock.now() + 10_000),
      isMine,
    })
    // The failure is looked at once time has passed.
    running.catch(() => undefined)
    await clock.advance(20_000)
    return running
  }

  const other = (item: string): unknown =>
    store.transact('other', [], [{ key: 'list', value: add(item)(store.read('list').entry).value }])

  it('changes the entry and returns it', async () => {
    const result = await run(add('mine'))
    assert.deepEqual(result, { changed: true, ...store.read('list') })
    assert.deepEqual(items(), ['mine'])
  })

  it('creates, and removes', async () => {
    store.transact('setup', [], [{ key: 'list', value: null }])
    await run(add('mine'))
    assert.deepEqual(items(), ['mine'])
    assert.deepEqual(await run(() => ({ value: null })), { changed: true, ...store.read('list') })
    assert.equal(store.read('list').entry, null)
  })

  it('makes the changes alongside in the same transaction', async () => {
    await run(() => ({ value: null, alongside: [{ key: 'tombstone', value: 'x' }] }))
    assert.equal(store.read('list').entry, null)
    assert.equal(store.read('tombstone').entry?.value, 'x')
  })

  it('asks again what to do when a condition on another entry does not hold', async () => {
    const asked: number[] = []
    await run(current => {
      const { revision } = store.read('other')
      asked.push(revision)
      if (asked.length === 1) {
        store.transact('other', [], [{ key: 'other', value: 'x' }])
      }
      return {
        ...add('mine')(current),
        conditions: [{ key: 'other', revision: asked.length === 1 ? 0 : revision }],
      }
    })
    assert.equal(asked.length, 2)
    assert.deepEqual(items(), ['mine'])
  })

  it('changes nothing when there is nothing to change, or when the change throws', async () => {
    const { revision } = store.list('')
    assert.deepEqual(await run(() => 'unchanged'), { changed: false, ...store.read('list') })
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
      assert.ok((await run(add('mine'))).changed)
      assert.deepEqual(items(), ['mine'])
    })

    it(`makes the change exactly once when many are lost that happen ${when}, among changes of others`, async () => {
      fates = [unknown(effectMs), unknown(null), UNAVAILABLE, unknown(effectMs)]
      let calls = 0
      beforeTransact = () => ++calls === 3 && other('a')
      assert.ok((await run(add('mine'))).changed)
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
})
