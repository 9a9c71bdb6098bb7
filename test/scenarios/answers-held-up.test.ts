/**
 * A primary has decided what to answer its guest, and is stopped before the answer is on its way. When it goes on another
 * host may have the volume: then the guest is told nothing any more.
 */
import assert from 'node:assert/strict'
import { millis } from '../../core/units.ts'
import { GuestDevice } from '../../datapath/process/guest-device.ts'
import { nodeOf, play, writeBlock } from '../support/scenario-rig.ts'

const REGIONS = 4

describe('scenario: answers are held up on their way to the guest', () => {
  it('they are told while the primary is the primary, and not when it was stopped for longer than its promises', async () =>
    play(1, REGIONS, async rig => {
      const [h1, h2, h3, h4] = rig.hosts
      await rig.create(h2, h3)
      const device = await rig.activate(h1)
      assert.ok(device instanceof GuestDevice)
      await writeBlock(device, 0, 1)
      await rig.world.pause(1_000)
      assert.equal(device.mayAnswer(), true)
      h1.pause()
      await rig.world.pause(5_000)
      assert.equal(device.mayAnswer(), false)
      const elsewhere = await rig.activate(h4, 20_000)
      await writeBlock(elsewhere, 0, 2)
      assert.equal(device.mayAnswer(), false)
      h1.resume()
      await rig.until('h1 knows that it was replaced', () => rig.mirror(h1)?.phase === 'replaced')
      assert.equal(device.mayAnswer(), false)
      await rig.deactivate(h1)
      assert.equal(device.mayAnswer(), false, 'also when the volume was closed on h1 after that')
    }))

  it('they are not told when the volume was closed before its host knew that it was replaced', async () =>
    play(4, REGIONS, async rig => {
      const [h1, h2, h3, h4] = rig.hosts
      await rig.create(h2, h3)
      const device = await rig.activate(h1)
      assert.ok(device instanceof GuestDevice)
      h1.pause()
      await writeBlock(await rig.activate(h4, 20_000), 0, 2)
      const node = nodeOf(h1)
      let deactivated = false
      // The first thing that it finds when it goes on.
      h1.process!.deliver(
        () => void node.deactivate(rig.volume, millis(9_000)).then(() => (deactivated = true))
      )
      h1.resume()
      await rig.until('h1 has closed the volume', () => deactivated)
      assert.equal(device.mayAnswer(), false)
    }))

  it('they are not told when another host took the volume while this one opened it again, and was told to end', async () =>
    play(5, REGIONS, async rig => {
      const [h1, h2, h3, h4] = rig.hosts
      await rig.create(h2, h3)
      const device = await rig.activate(h1)
      assert.ok(device instanceof GuestDevice)
      for (const host of [h2, h3]) host.cutPower()
      await rig.world.pause(500)
      for (const host of [h2, h3]) host.start()
      await rig.until('h1 opens it again', () => rig.log.some(line => line.includes('opening again')))
      for (const host of [h2, h3]) {
        rig.network.cut(h1, host)
        rig.network.cut(host, h1)
      }
      await writeBlock(await rig.activate(h4, 30_000), 0, 2)
      assert.equal(rig.mirror(h1)?.phase, 'opening')
      await rig.deactivate(h1)
      assert.equal(device.mayAnswer(), false)
    }))

  it('they are told when it was stopped and nobody has taken the volume meanwhile', async () =>
    play(2, REGIONS, async rig => {
      const [h1, h2, h3] = rig.hosts
      await rig.create(h2, h3)
      const device = await rig.activate(h1)
      assert.ok(device instanceof GuestDevice)
      h1.pause()
      await rig.world.pause(5_000)
      assert.equal(device.mayAnswer(), false)
      h1.resume()
      await rig.until('the promises are renewed', () => device.mayAnswer())
    }))

  it('they are told when the volume was closed in order', async () =>
    play(3, REGIONS, async rig => {
      const [h1, h2, h3] = rig.hosts
      await rig.create(h2, h3)
      const device = await rig.activate(h1)
      assert.ok(device instanceof GuestDevice)
      await writeBlock(device, 0, 1)
      await rig.deactivate(h1)
      assert.equal(device.mayAnswer(), true)
    }))
})
