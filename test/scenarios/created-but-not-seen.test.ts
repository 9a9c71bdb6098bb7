/**
 * The copy of the metadata on the host that makes a volume is behind. What it does not know yet must neither keep the
 * volume from being made, nor make a call fail whose volume is there: xapi would never ask for it again.
 */
import assert from 'node:assert/strict'
import { IDENTITY_KEY, srKey, storeKey } from '../../cluster/keys.ts'
import { millis } from '../../core/units.ts'
import { ANSWER, playInPool } from '../support/pool-rig.ts'

describe('scenario: a volume is made on a host whose catalogue is behind', () => {
  it('on hosts that have joined a moment ago', async () =>
    playInPool(3, async rig => {
      const [h1, h2, h3] = rig.hosts
      const keys = [srKey(rig.sr), storeKey(rig.sr, h2.id), storeKey(rig.sr, h3.id)]
      const records = keys.map(key => rig.coordinator.read(key).entry!)
      const [record] = records
      // As the SR was while h1 was alone.
      rig.coordinator.transact(
        'story',
        [],
        keys.slice(1).map(key => ({ key, value: null }))
      )
      await rig.world.pause(1_000)
      rig.watchDelayMs = 800
      rig.coordinator.transact(
        'story',
        [],
        records.map(({ key, value }) => ({ key, value }))
      )
      assert.ok(record !== undefined)
      assert.equal((await rig.create(h1)).kind, 'done')
    }))

  it('whose coordinator goes away the moment after', async () =>
    playInPool(4, async rig => {
      const [h1] = rig.hosts
      rig.watchDelayMs = 60_000
      rig.fateOf = (_, keys) =>
        keys.includes(IDENTITY_KEY) ? { kind: 'unavailable', afterMs: millis(100) } : ANSWER
      const answer = await rig.create(h1)
      assert.equal(answer.kind, 'done')
      assert.equal(rig.records.length, 2)
    }))
})
