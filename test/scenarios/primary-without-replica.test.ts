/**
 * A primary without a replica of its own serves a guest when the hosts of both replicas lose power. One comes back with
 * its files gone, for good; the other one with all that was flushed, but with another boot id. Neither can be taken out
 * in favour of the other. A fresh opening knows what to do, to go on with the one that is left, and so must
 * the primary that lives.
 */
import assert from 'node:assert/strict'
import { play, readBlock, writeBlock } from '../support/scenario-rig.ts'

const REGIONS = 8

describe('scenario: a primary without a replica loses one replica while the other is rebooted', () => {
  for (const seed of [17, 18, 19]) {
    it(`it goes on with the one that is left, and makes a new one (seed ${seed})`, async () =>
      play(seed, REGIONS, async rig => {
        const [h1, h2, h3] = rig.hosts
        await rig.create(h2, h3)
        const device = await rig.activate(h1)
        await writeBlock(device, 0, 1, true)
        await device.flush()
        await rig.world.pause(500)
        h2.cutPower()
        h3.cutPower()
        rig.loseReplica(h2)
        await rig.world.pause(500)
        h2.start()
        h3.start()

        let written = false
        void writeBlock(device, 1, 2, true).then(() => (written = true))
        await rig.until('the write is done', () => written)
        assert.equal(rig.isPrimary(h1), true)
        assert.equal(await readBlock(device, 0), 1)
        await rig.until('both replicas are in-sync', () => rig.allInSync)
        rig.assertIdentical(h2, h3)
        assert.deepEqual(rig.firstBytes(h2).slice(0, 2), [1, 2])
      }))
  }
})
