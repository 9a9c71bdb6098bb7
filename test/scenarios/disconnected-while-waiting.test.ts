/**
 * A guest asks for something while the volume is being closed under it, and is disconnected. Others write. When the host opens
 * the volume again, for another guest, nothing of what the first one asked may happen any more. (Without that its write was
 * made then, over what others had written since.)
 */
import assert from 'node:assert/strict'
import { millis } from '../../core/units.ts'
import { GuestConnection } from '../../datapath/process/guest-connection.ts'
import { nodeOf, play, readBlock, writeBlock } from '../support/scenario-rig.ts'

const REGIONS = 4

describe('scenario: a guest is disconnected while its requests wait', () => {
  it('they never happen, whoever opens the volume later', async () =>
    play(1, REGIONS, async rig => {
      const [h1, h2, h3] = rig.hosts
      await rig.create(h2, h3)
      await writeBlock(await rig.activate(h1), 0, 1, true)
      const device = nodeOf(h1).volume(rig.volume)!.device!
      await rig.deactivate(h1)
      const connection = new GuestConnection(device)
      const write = assert.rejects(writeBlock(connection, 0, 2, true), { code: 'EXPORT_REFUSED' })
      connection.breakOff('the volume was deactivated')
      await write
      await writeBlock(await rig.activate(h2), 0, 3, true)
      await rig.deactivate(h2)
      await nodeOf(h1).activate(rig.sr, rig.volume, millis(9_000))
      await rig.world.pause(1_000)
      assert.equal(await readBlock(device, 0), 3)
    }))

  it('those of one who stays connected happen when the volume is open', async () =>
    play(2, REGIONS, async rig => {
      const [h1, h2, h3] = rig.hosts
      await rig.create(h2, h3)
      const device = await nodeOf(h1).attach(rig.sr, rig.volume)
      const written = writeBlock(new GuestConnection(device), 0, 2, true)
      await nodeOf(h1).activate(rig.sr, rig.volume, millis(9_000))
      await written
      assert.equal(await readBlock(device, 0), 2)
    }))
})
