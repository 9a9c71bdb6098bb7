/**
 * A volume grows while a host is opening it: its replicas have accepted by then, and do not know the new size. They are
 * asked once more. (Without that the host became the primary of a volume whose replicas were too small, could not serve it,
 * and went on caring for them beside whoever opened it next.)
 */
import assert from 'node:assert/strict'
import { play, readBlock, writeBlock } from '../support/scenario-rig.ts'

const REGIONS = 16
const GROWN_REGIONS = 32

describe('scenario: a volume grows while it is being opened', () => {
  it('is opened with its new size', async () =>
    play(121, REGIONS, async rig => {
      const [h1, h2] = rig.hosts
      await rig.create(h1, h2)
      h1.diskSlowness = 50
      const { reserved } = rig.state
      const activation = rig.activate(h1)
      await rig.until('an epoch is reserved', () => rig.state.reserved.epoch > reserved.epoch)
      await rig.world.pause(10)
      assert.equal(rig.state.primary, null)
      rig.grow(GROWN_REGIONS)
      const device = await activation
      h1.diskSlowness = 1
      await writeBlock(device, GROWN_REGIONS - 1, 7, true)
      assert.equal(await readBlock(device, GROWN_REGIONS - 1), 7)
      await rig.until('all are in-sync', () => rig.allInSync)
      rig.assertIdentical(h1, h2)
    }))
})
