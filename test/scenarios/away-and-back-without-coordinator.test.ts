/**
 * The coordinator is lost, and then a replica for a moment. The primary wants to take the replica out, which it cannot
 * do now. When the replica is back first, the guest goes on at once: with all in-sync replicas in contact nobody needs
 * the coordinator.
 */
import assert from 'node:assert/strict'
import { play, readBlock, writeBlock } from '../support/scenario-rig.ts'

describe('scenario: a replica is away and back while the coordinator cannot be reached', () => {
  for (const awayMs of [3_500, 8_000]) {
    it(`the write that waited goes on, after ${awayMs} ms without the replica`, async () =>
      play(21, 8, async rig => {
        const [h1, h2] = rig.hosts
        await rig.create(h1, h2)
        const device = await rig.activate(h1)
        await writeBlock(device, 0, 1)
        rig.reachesCoordinator(h1, false)
        rig.network.cut(h1, h2)
        rig.network.cut(h2, h1)
        let done = false
        void writeBlock(device, 0, 2).then(() => (done = true))
        await rig.world.pause(awayMs)
        assert.equal(
          done,
          false,
          'the other replica has not answered, and the record cannot say that it is out'
        )
        rig.network.heal()
        await rig.until('the write is done', () => done, 8_000)
        assert.equal(await readBlock(device, 0), 2)
        rig.reachesCoordinator(h1, true)
        await rig.until('both are in-sync', () => rig.allInSync, 20_000)
        rig.assertIdentical(h1, h2)
      }))
  }
})
