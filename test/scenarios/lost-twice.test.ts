/**
 * One replica lost power beside its primary and says so. Before it is reconciled, the other one loses power, too. What the
 * guest has written in between is on the first: it is not lost, and a flush must not say that it is.
 */
import assert from 'node:assert/strict'
import { play, readBlock, writeBlock } from '../support/scenario-rig.ts'

const REGIONS = 16

describe('scenario: one replica loses power after the other, and is not reconciled in between', () => {
  it('a flush does not fail for writes that the first one has', async () =>
    play(31, REGIONS, async rig => {
      const [h1, h2, h3, h4] = rig.hosts
      await rig.create(h1, h2)
      const before = await rig.activate(h3)
      for (let region = 0; region < 8; region++) await writeBlock(before, region, 1)
      await before.flush()
      h3.crash()
      h1.cutPower()
      h1.start()

      const device = await rig.activate(h4)
      // The first replica is still being reconciled.
      await writeBlock(device, REGIONS - 1, 2)
      h2.cutPower()
      h2.start()
      await device.flush()
      assert.equal(await readBlock(device, REGIONS - 1), 2)
      await rig.until('all are in-sync', () => rig.allInSync)
      rig.assertIdentical(h1, h2)
    }))
})
