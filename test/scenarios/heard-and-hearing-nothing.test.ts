/**
 * What a primary sends arrives, and nothing comes back to it: it stops serving when the promises that it knows of have
 * run out. The replicas hear it all the time. They must let another host have the volume all the same, though the
 * primary, which cannot reach the coordinator either and so cannot take them out, tries to connect them again and again.
 */
import assert from 'node:assert/strict'
import { DEFAULT_TIMING } from '../../core/mirror/timing.ts'
import { play, readBlock, writeBlock } from '../support/scenario-rig.ts'

const REGIONS = 8

describe('scenario: a primary is heard by the replicas and hears nothing', () => {
  it('another host gets the volume when the promises have run out', async () =>
    play(3, REGIONS, async rig => {
      const [h1, h2, h3, h4] = rig.hosts
      await rig.create(h2, h3)
      const device = await rig.activate(h1)
      await writeBlock(device, 0, 1, true)
      rig.reachesCoordinator(h1, false)
      for (const host of [h2, h3, h4]) rig.network.cut(host, h1)
      // The primary asks for one promise time more than it is answered, and then one must run out.
      await rig.world.pause(3 * DEFAULT_TIMING.promiseTimeMs)
      const other = await rig.activate(h4)
      assert.equal(await readBlock(other, 0), 1)
      await writeBlock(other, 0, 2, true)

      rig.network.heal()
      rig.reachesCoordinator(h1, true)
      await rig.until('the first one knows', () => rig.mirror(h1)?.phase === 'replaced')
      assert.equal(await readBlock(other, 0), 2)
      assert.equal(rig.allInSync, true)
    }))

  it('it goes on itself when it hears them again', async () =>
    play(4, REGIONS, async rig => {
      const [h1, h2, h3] = rig.hosts
      await rig.create(h2, h3)
      const device = await rig.activate(h1)
      await writeBlock(device, 0, 1, true)
      rig.reachesCoordinator(h1, false)
      for (const host of [h2, h3]) rig.network.cut(host, h1)
      const written = writeBlock(device, 0, 2, true)
      await rig.world.pause(20_000)
      rig.network.heal()
      // Without the coordinator: nothing about the volume has changed.
      await written
      assert.equal(await readBlock(device, 0), 2)
      rig.assertIdentical(h2, h3)
    }))
})
