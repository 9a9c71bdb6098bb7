/**
 * Every replica has taken a write, and the primary is stopped before it sees their answers. Another host takes the
 * volume and has writes acknowledged. The first one wakes up with all answers in its hands: to acknowledge now would
 * be a second writer, although nothing would be lost by it.
 */
import assert from 'node:assert/strict'
import { DEFAULT_TIMING } from '../../core/mirror/timing.ts'
import { play, readBlock, type ScenarioRig, writeBlock } from '../support/scenario-rig.ts'

const REGIONS = 8

/** Activated on the first host; a write of 1 is on both replicas, and their answers reach a stopped process. */
async function writtenEverywhereAndStopped(rig: ScenarioRig) {
  const [h1, h2, h3] = rig.hosts
  await rig.create(h2, h3)
  const device = await rig.activate(h1)
  let acknowledged = false
  const written = writeBlock(device, 0, 1, true).then(() => (acknowledged = true))
  await rig.until('both replicas have it', () => [h2, h3].every(host => rig.content(host)[0] === 1))
  h1.process!.pause()
  assert.equal(acknowledged, false)
  return { device, written, isAcknowledged: () => acknowledged }
}

describe('scenario: the answers to a write come to a primary that was stopped meanwhile', () => {
  it('it does not acknowledge once another host has the volume', async () =>
    play(1, REGIONS, async rig => {
      const [h1, , , h4] = rig.hosts
      const { isAcknowledged } = await writtenEverywhereAndStopped(rig)
      await rig.world.pause(2 * DEFAULT_TIMING.promiseTimeMs)
      const other = await rig.activate(h4)
      assert.equal(await readBlock(other, 0), 1)
      await writeBlock(other, 0, 2, true)

      h1.process!.resume()
      await rig.until('the first one knows', () => rig.mirror(h1)?.phase === 'replaced')
      await rig.world.pause(2 * DEFAULT_TIMING.promiseTimeMs)
      assert.equal(isAcknowledged(), false)
      assert.equal(await readBlock(other, 0), 2)
    }))

  it('it acknowledges when it knows again that nobody has taken the volume', async () =>
    play(2, REGIONS, async rig => {
      const [h1] = rig.hosts
      const { device, written, isAcknowledged } = await writtenEverywhereAndStopped(rig)
      await rig.world.pause(2 * DEFAULT_TIMING.promiseTimeMs)
      h1.process!.resume()
      await rig.world.pause(0)
      assert.equal(isAcknowledged(), false, 'before it has heard of anybody again')
      await written
      assert.equal(await readBlock(device, 0), 1)
    }))
})
