/**
 * The datapath process of a primary is started again and takes up its volume, whose replicas cannot be reached just then.
 * The guest is given up meanwhile, and the volume deactivated: the opening is ended, and the guest's host is told that it
 * is done. What an earlier process wrote in the record is still there, the name of this host; so somebody has to close
 * the volume when its replicas are back, or nobody could ever destroy or resize it.
 */
import assert from 'node:assert/strict'
import { millis } from '../../core/units.ts'
import { nodeOf, play, type ScenarioRig, writeBlock } from '../support/scenario-rig.ts'

const REGIONS = 4

/** A volume that h1 has, whose process was started again while the hosts of both replicas were dead. */
async function takenUpWithoutReplicas(rig: ScenarioRig): Promise<void> {
  const [h1, h2, h3] = rig.hosts
  await rig.create(h2, h3)
  await writeBlock(await rig.activate(h1), 0, 1)
  h1.crash()
  h2.crash()
  h3.crash()
  await rig.world.pause(500)
  h1.start()
  await rig.until('h1 takes the volume up', () => rig.mirror(h1)?.phase === 'opening')
  await rig.world.pause(5_000)
}

describe('scenario: a volume is given up while it is opened again', () => {
  it('is closed when its replicas are back', async () =>
    play(1, REGIONS, async rig => {
      const [h1, h2, h3] = rig.hosts
      await takenUpWithoutReplicas(rig)
      await rig.deactivate(h1)
      assert.equal(rig.isPrimary(h1), true)
      h2.start()
      h3.start()
      await rig.until('nobody has the volume', () => rig.state.primary === null)
      assert.equal(rig.allInSync, true)
    }))

  it('is closed when an activation was tried in vain meanwhile', async () =>
    play(2, REGIONS, async rig => {
      const [h1, h2, h3] = rig.hosts
      await takenUpWithoutReplicas(rig)
      await rig.deactivate(h1)
      await rig.world.pause(3_000)
      await assert.rejects(nodeOf(h1).activate(rig.sr, rig.volume, millis(2_000)))
      await nodeOf(h1).detach(rig.volume)
      h2.start()
      h3.start()
      await rig.until('nobody has the volume', () => rig.state.primary === null)
    }))

  it('is left to the guest for which it is activated again', async () =>
    play(3, REGIONS, async rig => {
      const [h1, h2, h3] = rig.hosts
      await takenUpWithoutReplicas(rig)
      await rig.deactivate(h1)
      h2.start()
      h3.start()
      await writeBlock(await rig.activate(h1), 1, 2)
      await rig.world.pause(10_000)
      assert.equal(rig.mirror(h1)?.phase, 'serving')
    }))

  it('is nothing to a host whose volume another one has taken', async () =>
    play(4, REGIONS, async rig => {
      const [h1, h2, h3, h4] = rig.hosts
      await takenUpWithoutReplicas(rig)
      rig.reachesCoordinator(h1, false)
      const deactivated = rig.deactivate(h1)
      h2.start()
      h3.start()
      await deactivated
      const device = await rig.activate(h4, 20_000)
      rig.reachesCoordinator(h1, true)
      await rig.world.pause(10_000)
      await writeBlock(device, 1, 2)
      assert.equal(rig.isPrimary(h4), true)
      assert.equal(rig.mirror(h1), null)
    }))
})
