import assert from 'node:assert/strict'
import { millis } from '../../../core/units.ts'
import { nodeRandom } from '../../../daemon/ports/node-random.ts'
import { amend, transactUntilKnown } from '../../../volume/amend.ts'
import { Deadline } from '../../../volume/deadline.ts'
import { SimulatedCoordinator, type Fate } from '../../simulator/simulated-coordinator.ts'
import { ManualClock } from '../cluster/manual-clock.ts'

const AT_ONCE: Fate = { kind: 'answer', beforeMs: millis(0), afterMs: millis(0) }
const lost = (effectMs: number | null): Fate => ({
  kind: 'unknown',
  afterMs: millis(10),
  effectMs: effectMs === null ? null : millis(effectMs),
})

/** Moves time until something has ended. */
async function settled<T>(clock: ManualClock, work: Promise<T>): Promise<T> {
  let ended = false
  const done = () => (ended = true)
  work.then(done, done)
  while (!ended) await clock.advance(1)
  return work
}

describe('amend', () => {
  const start = (fates: Fate[]) => {
    const clock = new ManualClock()
    let transactions = 0
    const simulated = new SimulatedCoordinator({
      clock,
      decide: ({ verb }) => (verb === 'transact' ? (transactions++, fates.shift() ?? AT_ONCE) : AT_ONCE),
    })
    const coordinator = simulated.client('h1')
    const context = { clock, random: nodeRandom, coordinator }
    const addOne = async () =>
      amend(
        context,
        'count',
        entry => ({ value: String(Number(entry?.value ?? '0') + 1) }),
        new Deadline(clock, 'adding', 1000)
      )
    return { clock, simulated, coordinator, context, addOne, transactions: () => transactions }
  }

  it('loses none of many changes that are made at once', async () => {
    const { clock, coordinator, addOne } = start([])
    await settled(clock, Promise.all(Array.from({ length: 8 }, addOne)))
    assert.equal((await settled(clock, coordinator.read('count'))).entry?.value, '8')
  })

  for (const [when, effectMs] of [
    ['had its effect', 5],
    ['has its effect later', 15],
    ['never has one', null],
  ] as const) {
    it(`makes a wanted state certain when an answer was lost and the change ${when}`, async () => {
      const { clock, coordinator, context } = start([lost(effectMs)])
      const changed = amend(
        context,
        'name',
        entry => (entry?.value === 'new' ? 'unchanged' : { value: 'new' }),
        new Deadline(clock, 'renaming', 1000)
      )
      await settled(clock, changed)
      // What arrives late must not undo what others do from here on.
      const { entry } = await settled(clock, coordinator.read('name'))
      const next = coordinator.transact(
        [{ key: 'name', revision: entry!.revision }],
        [{ key: 'name', value: 'newer' }]
      )
      assert.ok((await settled(clock, next)).committed)
      await clock.advance(100)
      assert.equal((await settled(clock, coordinator.read('name'))).entry?.value, 'newer')
    })
  }

  it('does not call a transaction undone whose first answer was lost', async () => {
    const { clock, context } = start([lost(5), { kind: 'unavailable', afterMs: millis(1) }])
    const deadline = new Deadline(clock, 'creating', 1000)
    const made = transactUntilKnown(
      context,
      [{ key: 'a', revision: 0 }],
      [{ key: 'a', value: '1' }],
      deadline
    )
    await settled(clock, assert.rejects(made, { code: 'COORDINATOR_OUTCOME_UNKNOWN' }))
  })

  it('gives up at its deadline', async () => {
    const { clock, addOne } = start(Array.from({ length: 1000 }, () => lost(null)))
    const changed = assert.rejects(addOne(), { code: 'COORDINATOR_OUTCOME_UNKNOWN' })
    await settled(clock, changed)
  })
})
