/**
 * A volume is open on a host, and nobody there has it any more: its xosand died after the datapath process had opened it
 * and before it was noted for whom, or the datapath process was stopped when xapi detached the last domain. Nobody asks a
 * second time. xosand compares what is open with what domains hold, and closes it; then any other host can have it.
 */
import assert from 'node:assert/strict'
import { playInPool } from '../support/pool-rig.ts'

describe('scenario: a volume is open on a host where nobody has it', () => {
  it('is closed when its xosand died before it was noted for whom', async () =>
    playInPool(1, async rig => {
      const [h1, h2] = rig.hosts
      const volume = await rig.created(h1)
      await rig.datapathCall(h1, 'Datapath.attach', volume, 'u0_1')
      const activating = rig.datapathCall(h1, 'Datapath.activate', volume, 'u0_1')
      await rig.until('h1 is the primary', () => rig.stateOf(volume).primary === h1.id)
      rig.daemon(h1).kill()
      assert.equal((await activating).kind, 'lost')
      await rig.world.pause(1_000)
      assert.equal(rig.stateOf(volume).primary, h1.id)
      rig.daemon(h1).start()
      await rig.world.pause(5_000)
      await rig.datapathCall(h2, 'Datapath.attach', volume, 'u0_2')
      assert.equal((await rig.datapathCall(h2, 'Datapath.activate', volume, 'u0_2')).kind, 'done')
    }))

  it('is closed when the datapath process was stopped while it was detached', async () =>
    playInPool(2, async rig => {
      const [h1, h2] = rig.hosts
      const volume = await rig.created(h1)
      await rig.datapathCall(h1, 'Datapath.attach', volume, 'u0_1')
      await rig.datapathCall(h1, 'Datapath.activate', volume, 'u0_1')
      h1.pause()
      // Served in this order; when the turn of the second comes its time is over.
      const calls = [
        rig.datapathCall(h1, 'Datapath.attach', volume, 'u0_2'),
        rig.datapathCall(h1, 'Datapath.detach', volume, 'u0_1'),
      ]
      await Promise.all(calls)
      h1.resume()
      await rig.datapathCall(h1, 'Datapath.detach', volume, 'u0_2')
      await rig.world.pause(15_000)
      await rig.datapathCall(h2, 'Datapath.attach', volume, 'u0_2')
      assert.equal((await rig.datapathCall(h2, 'Datapath.activate', volume, 'u0_2')).kind, 'done')
    }))

  it('is closed when its time to be detached was over before an earlier activation was served', async () =>
    playInPool(3, async rig => {
      const [h1, h2] = rig.hosts
      const volume = await rig.created(h1)
      await rig.datapathCall(h1, 'Datapath.attach', volume, 'u0_1')
      h1.pause()
      const activation = rig.datapathCall(h1, 'Datapath.activate', volume, 'u0_1')
      await rig.world.pause(1_000)
      assert.equal((await rig.datapathCall(h1, 'Datapath.detach', volume, '')).kind, 'done')
      // Its guest comes as soon as the volume is there, and does not go by itself.
      rig.connect(h1, volume)
      h1.resume()
      assert.equal((await activation).kind, 'done')
      await rig.until('h1 is the primary no more', () => rig.stateOf(volume).primary === null)
      await rig.datapathCall(h2, 'Datapath.attach', volume, 'u0_2')
      assert.equal((await rig.datapathCall(h2, 'Datapath.activate', volume, 'u0_2')).kind, 'done')
    }))
})
