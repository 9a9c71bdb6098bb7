/**
 * The process of a primary without a replica of its own is started again, and its guest, which never noticed, waits. At
 * the same time the hosts of all replicas have lost power, and with it writes that the guest had acknowledged and not yet
 * flushed. The new process never saw those writes. It must tell the guest all the same, with the next flush, for which
 * it takes them as possible until a flush has succeeded.
 */
import assert from 'node:assert/strict'
import { type BlockDevice } from '../../datapath/block-device.ts'
import { type SimulatedHost } from '../simulator/simulated-host.ts'
import { play, readBlock, type ScenarioRig, writeBlock } from '../support/scenario-rig.ts'

const REGIONS = 8

/** The power cut keeps nothing that was not synced. */
function cutPowerLosingAll(host: SimulatedHost): void {
  host.disk.random.fraction = () => 0
  host.cutPower()
}

/** Resolves with the device of the guest that waits, when it is served again. */
async function servedAgain(rig: ScenarioRig, host: SimulatedHost): Promise<BlockDevice> {
  await rig.until(
    'the volume is served again',
    () => rig.mirror(host)?.phase === 'serving' && host.node?.volume(rig.volume)?.device != null
  )
  return host.node!.volume(rig.volume)!.device!
}

describe('scenario: the datapath process of a primary is started again', () => {
  it('a flush fails once when all replicas have lost power, and un-flushed writes with it', async () =>
    play(14, REGIONS, async rig => {
      const [h1, h2, h3] = rig.hosts
      await rig.create(h2, h3)
      const before = await rig.activate(h1)
      await writeBlock(before, 0, 1, true)
      await rig.world.pause(500)
      await writeBlock(before, 0, 2)
      await writeBlock(before, 1, 2)
      h1.crash()
      cutPowerLosingAll(h2)
      cutPowerLosingAll(h3)
      await rig.world.pause(500)
      for (const host of [h1, h2, h3]) host.start()

      const device = await servedAgain(rig, h1)
      await assert.rejects(device.flush(), { code: 'WRITES_LOST' })
      assert.equal(await readBlock(device, 0), 1)
      await device.flush()
      await writeBlock(device, 1, 3)
      await device.flush()
      await rig.until('all is reconciled', () => rig.mirror(h1)?.allInSync === true)
      rig.assertIdentical(h2, h3)
      assert.deepEqual(rig.firstBytes(h2).slice(0, 2), [1, 3])
    }))

  it('a flush succeeds when one replica kept its power, and with it every write', async () =>
    play(15, REGIONS, async rig => {
      const [h1, h2, h3] = rig.hosts
      await rig.create(h2, h3)
      const before = await rig.activate(h1)
      await writeBlock(before, 0, 1, true)
      await writeBlock(before, 0, 2)
      h1.crash()
      cutPowerLosingAll(h3)
      await rig.world.pause(500)
      for (const host of [h1, h3]) host.start()

      const device = await servedAgain(rig, h1)
      await device.flush()
      assert.equal(await readBlock(device, 0), 2)
      await rig.until('all is well', () => rig.allInSync && rig.mirror(h1)?.allInSync === true)
      rig.assertIdentical(h2, h3)
    }))

  it('a flush succeeds when power is lost long after the guest has flushed', async () =>
    play(16, REGIONS, async rig => {
      const [h1, h2, h3] = rig.hosts
      await rig.create(h2, h3)
      await writeBlock(await rig.activate(h1), 0, 1)
      h1.crash()
      await rig.world.pause(500)
      h1.start()
      const device = await servedAgain(rig, h1)
      await device.flush()
      await rig.until('all is reconciled', () => rig.mirror(h1)?.allInSync === true)

      for (const host of [h2, h3]) cutPowerLosingAll(host)
      await rig.world.pause(500)
      for (const host of [h2, h3]) host.start()
      await rig.until('the loss was noticed', () => rig.log.some(line => line.includes('opening again')))
      await device.flush()
      assert.equal(await readBlock(device, 0), 1)
    }))
})
