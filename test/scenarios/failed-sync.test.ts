/**
 * A sync fails once with EIO, and the next one succeeds. The kernel has by then dropped the pages that it could not
 * write, so the success says nothing of them. Whatever was not flushed before counts as lost on that replica: with
 * no other one the guest is told, once; with another one the replica is taken out and comes back as a copy.
 */
import assert from 'node:assert/strict'
import { type SimulatedHost } from '../simulator/simulated-host.ts'
import { nodeOf, play, readBlock, type ScenarioRig, writeBlock } from '../support/scenario-rig.ts'

const REGIONS = 16

async function assertNoIntents(rig: ScenarioRig, ...hosts: readonly SimulatedHost[]): Promise<void> {
  await rig.until('all intents are cleared', () =>
    hosts.every(host => nodeOf(host).replicas.intentsOf(rig.volume)?.isEmpty === true)
  )
}

describe('scenario: a sync fails once', () => {
  it('a flush of the only replica fails, once', async () =>
    play(4, REGIONS, async rig => {
      const [h1] = rig.hosts
      await rig.create(h1)
      const device = await rig.activate(h1)
      await writeBlock(device, 0, 1, true)
      await writeBlock(device, 0, 2)
      await writeBlock(device, 7, 2)
      rig.failNextSync(h1)
      await assert.rejects(device.flush(), { code: 'WRITES_LOST' })
      await writeBlock(device, 7, 3)
      await device.flush()
      assert.equal(await readBlock(device, 7), 3)
    }))

  for (const { which, name } of [
    { which: 0, name: "the primary's own replica" },
    { which: 1, name: "the other host's replica" },
  ]) {
    it(`${name} is taken out and rebuilt when the round that clears intents meets it`, async () =>
      play(12, REGIONS, async rig => {
        const [h1, h2] = rig.hosts
        await rig.create(h1, h2)
        const device = await rig.activate(h1)
        await writeBlock(device, 0, 1, true)
        await rig.world.pause(3_000)
        const hasFailed = rig.failNextSync(rig.hosts[which]!)
        await writeBlock(device, 3, 2)
        await rig.until('a sync has failed', hasFailed)
        await rig.until('the replica is taken out', () => !rig.isInSync(rig.hosts[which]!))
        await rig.until('the replica is back', () => rig.allInSync)
        await writeBlock(device, 5, 2)
        await device.flush()
        rig.assertIdentical(h1, h2)
        await assertNoIntents(rig, h1, h2)
        assert.equal(rig.isPrimary(h1), true)
      }))

    it(`a flush succeeds when only ${name} fails`, async () =>
      play(13, REGIONS, async rig => {
        const [h1, h2] = rig.hosts
        await rig.create(h1, h2)
        const device = await rig.activate(h1)
        await writeBlock(device, 3, 2)
        const hasFailed = rig.failNextSync(rig.hosts[which]!)
        await device.flush()
        assert.equal(hasFailed(), true)
        assert.equal(rig.isInSync(rig.hosts[which]!), false)
        await rig.until('the replica is back', () => rig.allInSync)
        rig.assertIdentical(h1, h2)
      }))

    it(`a close that meets a failed sync of ${name} ends, and leaves no difference without an intent`, async () =>
      play(14, REGIONS, async rig => {
        const [h1, h2] = rig.hosts
        await rig.create(h1, h2)
        const device = await rig.activate(h1)
        await writeBlock(device, 0, 1, true)
        await writeBlock(device, 3, 2)
        const hasFailed = rig.failNextSync(rig.hosts[which]!)
        await rig.deactivate(h1, 15_000)
        assert.equal(hasFailed(), true)
        assert.equal(rig.state.primary, null)

        const again = await rig.activate(h1)
        assert.equal(await readBlock(again, 3), 2)
        await rig.until('both replicas are in-sync', () => rig.allInSync)
        rig.assertIdentical(h1, h2)
      }))
  }
})
