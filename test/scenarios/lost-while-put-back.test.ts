/**
 * A replica has been brought up to date, and its primary tries to say so in the record; the coordinator is away, or leaves it
 * in doubt whether it has said so. Meanwhile
 * the replica's host loses power, and with it what was written after the flush that went before. When the coordinator is
 * back the record must not say that this replica is in-sync.
 */
import assert from 'node:assert/strict'
import { play, writeBlock } from '../support/scenario-rig.ts'

const REGIONS = 8

describe('scenario: a replica is lost while the record waits to say that it is back', () => {
  for (const [seed, isInDoubt] of [
    [31, false],
    [32, false],
    [33, false],
    [34, true],
    [35, true],
    [36, true],
  ] as const) {
    it(`it is not put back before it is there again (seed ${seed}${isInDoubt ? ', in doubt' : ''})`, async () =>
      play(seed, REGIONS, async rig => {
        const [h1, h2] = rig.hosts
        await rig.create(h1, h2)
        const device = await rig.activate(h1)
        await writeBlock(device, 0, 1)
        h2.crash()
        await rig.until('the replica is taken out', () => !rig.isInSync(h2))
        await writeBlock(device, 1, 2)
        if (isInDoubt) rig.leaveInDoubt(h1)
        else rig.reachesCoordinator(h1, false)
        h2.start()
        await rig.world.pause(1_500)
        await writeBlock(device, 2, 3)
        h2.cutPower()
        await rig.world.pause(4_000)

        rig.reachesCoordinator(h1, true)
        const until = rig.world.now + 4_000
        while (rig.world.now < until) {
          assert.equal(rig.isInSync(h2), false)
          await rig.world.pause(0.2)
        }

        h2.start()
        await rig.until('both replicas are in-sync', () => rig.allInSync)
        await device.flush()
        rig.assertIdentical(h1, h2)
        assert.deepEqual(rig.firstBytes(h2).slice(0, 3), [1, 2, 3])
      }))
  }
})
