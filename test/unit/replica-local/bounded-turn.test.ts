import assert from 'node:assert/strict'
import { type Millis, millis, type VolumeKey } from '../../../core/units.ts'
import { BoundedTurn } from '../../../datapath/replica-local/bounded-turn.ts'
import { World } from '../../simulator/world.ts'

const PATIENCE_MS = millis(1500)
const LIMIT_MS = 100_000

/** Plays a story with a turn; time is virtual. */
async function play(story: (turn: BoundedTurn, world: World) => Promise<void>): Promise<void> {
  const world = new World(1, () => undefined)
  const clock = {
    now: () => world.now as Millis,
    after: (ms: Millis, action: () => void) => world.after(ms, action),
  }
  await world.runUntil(story(new BoundedTurn(clock, 'v' as VolumeKey), world), LIMIT_MS)
}

describe('a turn that is waited for within limits', () => {
  it('runs one action after the other, in order', async () =>
    play(async (turn, world) => {
      const order: number[] = []
      const actions = [3, 2, 1].map(async ms =>
        turn.run('something', async () => {
          await world.pause(ms)
          order.push(ms)
          return ms
        })
      )
      assert.deepEqual(await Promise.all(actions), [3, 2, 1])
      assert.deepEqual(order, [3, 2, 1])
      await world.pause(1)
      assert.equal(turn.doing, null)
    }))

  it('goes on after an action that failed', async () =>
    play(async turn => {
      await assert.rejects(
        turn.run('something', async () => Promise.reject(new Error('no'))),
        /no/
      )
      assert.equal(await turn.run('something', async () => Promise.resolve(1)), 1)
    }))

  it('tells who has waited long enough what it is about, and never runs what was given up', async () =>
    play(async (turn, world) => {
      let free: () => void = () => undefined
      const hangs = turn.run('it is being opened', async () => new Promise<void>(resolve => (free = resolve)))
      await world.pause(60_000)
      let ran = 0
      for (let i = 0; i < 100; i++) {
        const { now } = world
        const given = turn.run('something', async () => Promise.resolve(++ran), PATIENCE_MS)
        if (i % 50 === 0) {
          await assert.rejects(given, {
            code: 'REPLICA_BUSY',
            message: /it is being opened, for 6\d s now/,
          })
          assert.equal(world.now - now, PATIENCE_MS)
        } else {
          given.catch(() => undefined)
        }
      }
      await world.pause(PATIENCE_MS)
      free()
      await hangs
      assert.equal(await turn.run('something', async () => Promise.resolve('the next')), 'the next')
      assert.equal(ran, 0)
    }))

  it('lets an action that has begun come to its end though its caller has gone', async () =>
    play(async (turn, world) => {
      let ended = false
      const slow = turn.run(
        'it is slow',
        async () => {
          await world.pause(5000)
          ended = true
        },
        PATIENCE_MS
      )
      await assert.rejects(slow, { code: 'REPLICA_BUSY' })
      const seen = await turn.run('the next', async () => Promise.resolve(ended))
      assert.equal(seen, true)
    }))
})
