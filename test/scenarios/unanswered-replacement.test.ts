/**
 * A host lost the files of its replica, which is therefore replaced by a new one with an id of its own. The new one is
 * made, and the answer that says so is lost. The next attempt finds files that it did not expect: they are an empty
 * replica that never accepted an epoch, so it takes them over instead of being refused by them for ever.
 */
import assert from 'node:assert/strict'
import { replicasOf } from '../../core/mirror/volume-change.ts'
import { nodeOf, play, writeBlock } from '../support/scenario-rig.ts'

const REGIONS = 8

describe('scenario: the answer to the making of a replacement is lost', () => {
  it('the next attempt adopts what was made', async () =>
    play(8, REGIONS, async rig => {
      const [h1, h2] = rig.hosts
      await rig.create(h1, h2)
      const device = await rig.activate(h1)
      for (let region = 0; region < REGIONS; region++) await writeBlock(device, region, region + 1, true)
      const lost = replicasOf(rig.state).find(({ host }) => host === h2.id)!.replica
      h2.crash()
      await rig.until('h2 is taken out', () => !rig.isInSync(h2))
      rig.loseReplica(h2)
      h2.start()

      const { replicas } = nodeOf(h2)
      const create = replicas.create.bind(replicas)
      let attempts = 0
      replicas.create = async (address, blank) => {
        const first = ++attempts === 1
        const made = await create(address, blank)
        return first ? new Promise(() => undefined) : made
      }
      await rig.until('the replacement is in-sync', () => rig.allInSync)
      assert.equal(attempts, 2)
      const now = replicasOf(rig.state).find(({ host }) => host === h2.id)!.replica
      assert.notEqual(now, lost)
      await device.flush()
      rig.assertIdentical(h1, h2)
      assert.deepEqual(
        rig.firstBytes(h2),
        Array.from({ length: REGIONS }, (_, region) => region + 1)
      )
    }))
})
