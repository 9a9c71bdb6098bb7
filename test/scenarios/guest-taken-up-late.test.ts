/**
 * A datapath process is started again while its guest runs and the coordinator is away, so that it cannot take the
 * guest's volume up yet. Meanwhile xosand, which compares, tells it to activate the volume. However that ends, the guest
 * is the one from before: it must be served in the end, and be told if writes that it had not flushed are lost.
 */
import assert from 'node:assert/strict'
import { millis } from '../../core/units.ts'
import { nodeOf, play, readBlock, writeBlock } from '../support/scenario-rig.ts'

const REGIONS = 8

describe('scenario: a process takes up its guest while the coordinator is away', () => {
  it('an activation that runs out of its time meanwhile takes nothing from the guest', async () =>
    play(1, REGIONS, async rig => {
      const [h1, h2, h3] = rig.hosts
      await rig.create(h2, h3)
      await writeBlock(await rig.activate(h1), 0, 1, true)
      rig.reachesCoordinator(h1, false)
      h1.crash()
      h1.start()
      await rig.world.pause(1_000)
      const activation = nodeOf(h1).activate(rig.sr, rig.volume, millis(10_000))
      await assert.rejects(activation, { code: 'DEADLINE_EXCEEDED' })
      await rig.world.pause(10_000)
      rig.reachesCoordinator(h1, true)
      await rig.until('it serves again', () => rig.mirror(h1)?.phase === 'serving')
      await rig.until('it is attached', () => nodeOf(h1).volume(rig.volume)?.device != null)
      assert.equal(await readBlock(nodeOf(h1).volume(rig.volume)!.device!, 0), 1)
      await rig.world.pause(20_000)
      assert.equal(rig.isPrimary(h1), true)
    }))

  it('an activation that succeeds goes on for the guest: what was lost is told', async () =>
    play(2, REGIONS, async rig => {
      const [h1, h2] = rig.hosts
      await rig.create(h2)
      await writeBlock(await rig.activate(h1), 0, 1)
      rig.reachesCoordinator(h1, false)
      h1.crash()
      h2.cutPower()
      h1.start()
      h2.start()
      await rig.world.pause(1_000)
      const activation = nodeOf(h1).activate(rig.sr, rig.volume, millis(20_000))
      await rig.world.pause(1_000)
      rig.reachesCoordinator(h1, true)
      await activation
      await rig.until('it is attached', () => nodeOf(h1).volume(rig.volume)?.device != null)
      await assert.rejects(nodeOf(h1).volume(rig.volume)!.device!.flush(), { code: 'WRITES_LOST' })
    }))
})
