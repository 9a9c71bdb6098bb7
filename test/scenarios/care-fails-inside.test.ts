/**
 * Caring for a replica fails in a way that nobody thought of, just as the replica is to be taken out. That is a mistake of
 * ours; but the guest's writes wait for this replica, and all other volumes of the process are well. So it is taken up
 * again, and the process does not end.
 */
import assert from 'node:assert/strict'
import { play, readBlock, writeBlock } from '../support/scenario-rig.ts'

describe('scenario: caring for a replica fails inside', () => {
  it('is taken up again, and the replica is taken out', async () =>
    play(1, 4, async rig => {
      const [h1, h2, h3] = rig.hosts
      await rig.create(h2, h3)
      const device = await rig.activate(h1)
      await writeBlock(device, 0, 1)
      const mirror = rig.mirror(h1)!
      const exclude = mirror.exclude.bind(mirror)
      let failures = 0
      mirror.exclude = async (link, reason) => {
        if (failures++ === 0) throw new Error('a mistake')
        return exclude(link, reason)
      }
      h3.crash()
      await writeBlock(device, 0, 2)
      assert.equal(rig.isInSync(h3), false)
      assert.ok(failures > 1)
      assert.ok(rig.log.some(line => line.includes('caring for a replica failed')))
      assert.equal(await readBlock(device, 0), 2)
      await rig.deactivate(h1)
    }))
})
