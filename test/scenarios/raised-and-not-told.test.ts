/**
 * A primary takes a replica out, which raises the epoch on the record, and is cut off before the other replica hears of
 * the new epoch. That one knows the promise under the epoch of before. It is the same primary's, which still relies on it
 * and reads from its own disk: whoever wants the volume now has to wait until the promise has run out.
 */
import assert from 'node:assert/strict'
import { DEFAULT_TIMING, PROMISE_SHARE_OF_PRIMARY } from '../../core/mirror/timing.ts'
import { play, readBlock, writeBlock } from '../support/scenario-rig.ts'

const REGIONS = 8
/** So long a primary relies on a promise, at least: it may have been renewed a heartbeat's interval before it was cut off. */
const PROMISED_MS =
  PROMISE_SHARE_OF_PRIMARY * DEFAULT_TIMING.promiseTimeMs - DEFAULT_TIMING.heartbeatIntervalMs

describe('scenario: a primary is cut off right after it took a replica out', () => {
  it('nobody takes the volume while the primary may rely on the promise of the other replica', async () =>
    play(1, REGIONS, async rig => {
      const [h1, h2, h3, h4] = rig.hosts
      await rig.create(h1, h2, h3)
      const device = await rig.activate(h1)
      await writeBlock(device, 0, 1, true)
      rig.network.cut(h1, h2)
      rig.network.cut(h2, h1)
      rig.network.cut(h4, h1)
      const cutAt = rig.world.now
      h3.crash()
      await rig.until('the record says that the third is out', () => !rig.isInSync(h3))
      rig.reachesCoordinator(h1, false)

      const other = await rig.activate(h4, 20_000)
      assert.ok(rig.world.now - cutAt >= PROMISED_MS, `after ${rig.world.now - cutAt} ms`)
      await writeBlock(other, 0, 2, true)
      const late = readBlock(device, 0)
      const tooLate = new Promise<null>(
        resolve => void rig.world.after(DEFAULT_TIMING.promiseTimeMs, () => resolve(null))
      )
      assert.equal(await Promise.race([late, tooLate]), null, 'the first one has read what was there before')
    }))
})
