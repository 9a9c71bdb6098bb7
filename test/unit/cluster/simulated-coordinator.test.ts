import assert from 'node:assert/strict'
import { setTimeout as delay } from 'node:timers/promises'
import { hasCode } from '../../../core/errors.ts'
import { type Coordinator } from '../../../core/ports/coordinator.ts'
import { millis } from '../../../core/units.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { coordinatorContract } from '../../contract/coordinator.ts'
import { type Fate, SimulatedCoordinator } from '../../simulator/simulated-coordinator.ts'
import { ManualClock } from './manual-clock.ts'

coordinatorContract('simulated', async historyRevisions => {
  const store = new SimulatedCoordinator({ clock: createNodeClock(), historyRevisions })
  const clients: Coordinator[] = []
  return {
    async client() {
      const client = store.client(`client ${clients.length}`)
      clients.push(client)
      return client
    },
    settle: async () => delay(2),
    async end() {
      await Promise.all(clients.map(async client => client.close()))
    },
  }
})

describe('the trouble that a simulated coordinator makes', () => {
  let clock: ManualClock
  let fate: Fate
  let store: SimulatedCoordinator
  let client: Coordinator

  beforeEach(() => {
    clock = new ManualClock()
    fate = { kind: 'answer', beforeMs: millis(0), afterMs: millis(0) }
    store = new SimulatedCoordinator({ clock, decide: () => fate, callTimeMs: millis(1000) })
    client = store.client('h1')
  })

  /** Starts a change of `a` and follows what its caller is told. */
  function start(value: string): { told: string } {
    const outcome = { told: 'nothing' }
    client.transact([], [{ key: 'a', value }]).then(
      () => (outcome.told = 'done'),
      (error: unknown) => {
        outcome.told = hasCode(error, 'COORDINATOR_OUTCOME_UNKNOWN')
          ? 'unknown'
          : hasCode(error, 'COORDINATOR_UNAVAILABLE')
            ? 'unavailable'
            : 'something else'
      }
    )
    return outcome
  }
  const value = (): string | undefined => store.read('a').entry?.value

  it('delays the effect and the answer as told', async () => {
    fate = { kind: 'answer', beforeMs: millis(10), afterMs: millis(5) }
    const outcome = start('1')
    await clock.advance(9)
    assert.deepEqual([value(), outcome.told], [undefined, 'nothing'])
    await clock.advance(2)
    assert.deepEqual([value(), outcome.told], ['1', 'nothing'])
    await clock.advance(5)
    assert.equal(outcome.told, 'done')
  })

  it('does nothing, ever, when it was unavailable', async () => {
    fate = { kind: 'unavailable', afterMs: millis(3) }
    const outcome = start('1')
    await clock.advance(10_000)
    assert.deepEqual([value(), outcome.told], [undefined, 'unavailable'])
  })

  it('lets an unknown change happen before, after or never', async () => {
    fate = { kind: 'unknown', afterMs: millis(10), effectMs: millis(1) }
    const before = start('before')
    await clock.advance(2)
    assert.deepEqual([value(), before.told], ['before', 'nothing'])
    await clock.advance(10)
    assert.equal(before.told, 'unknown')

    fate = { kind: 'unknown', afterMs: millis(1), effectMs: millis(10) }
    const after = start('after')
    await clock.advance(2)
    assert.deepEqual([value(), after.told], ['before', 'unknown'])
    await clock.advance(10)
    assert.equal(value(), 'after')

    fate = { kind: 'unknown', afterMs: millis(1), effectMs: null }
    const never = start('never')
    await clock.advance(10_000)
    assert.deepEqual([value(), never.told], ['after', 'unknown'])
  })

  it('tells a client that is cut off before the effect that nothing happened', async () => {
    fate = { kind: 'answer', beforeMs: millis(10), afterMs: millis(10) }
    const outcome = start('1')
    await clock.advance(5)
    store.setReachable('h1', false)
    await clock.advance(994)
    assert.equal(outcome.told, 'nothing')
    await clock.advance(1)
    assert.deepEqual([value(), outcome.told], [undefined, 'unavailable'])
  })

  it('tells a client that is cut off between effect and answer that the outcome is unknown', async () => {
    fate = { kind: 'answer', beforeMs: millis(10), afterMs: millis(10) }
    const outcome = start('1')
    await clock.advance(15)
    store.setReachable('h1', false)
    await clock.advance(1000)
    assert.deepEqual([value(), outcome.told], ['1', 'unknown'])
  })

  it('tells the watches of a client that was cut off everything once it is connected again', async () => {
    const seen: [number, number][] = []
    client.watch('', 0, {
      changed: (revision, events) => seen.push([revision, events.length]),
      failed: error => assert.fail(error),
    })
    store.setReachable('h1', false)
    store.transact('h2', [], [{ key: 'a', value: '1' }])
    store.transact('h2', [], [{ key: 'a', value: '2' }])
    await clock.advance(100)
    assert.deepEqual(seen, [])
    store.setReachable('h1', true)
    await clock.advance(1)
    assert.deepEqual(seen, [
      [1, 1],
      [2, 1],
    ])
  })

  it('holds answers and reports back while the process is paused', async () => {
    const held: (() => void)[] = []
    const paused = store.client('h2', action => held.push(action))
    const seen: number[] = []
    paused.watch('', 0, { changed: revision => seen.push(revision), failed: error => assert.fail(error) })
    let answered = false
    void paused.transact([], [{ key: 'a', value: '1' }]).then(() => (answered = true))
    await clock.advance(10)
    assert.deepEqual([value(), answered, seen], ['1', false, []])
    store.setReachable('h2', false)
    store.transact('h1', [], [{ key: 'a', value: 'later' }])
    held.splice(0).forEach(action => action())
    await clock.advance(10)
    assert.deepEqual([answered, seen], [true, [1]])
  })
})
