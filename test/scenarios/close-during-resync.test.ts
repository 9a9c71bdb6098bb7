/**
 * A replica that was away is being brought up to date when the volume is to be closed: by its guest's host, or because a
 * guest wants a volume that only maintenance has open. The closing does not wait for the copy, and is not
 * forgotten by it either: it ends long before the copy would, and the rest is copied at the next opening.
 */
import assert from 'node:assert/strict'
import { type SimulatedHost } from '../simulator/simulated-host.ts'
import { nodeOf, play, readBlock, type ScenarioRig, writeBlock } from '../support/scenario-rig.ts'

const REGIONS = 128
/** A close takes some messages and syncs; the copy of all regions takes far longer, in milliseconds. */
const CLOSE_TIME_MS = 500

/** One replica is away while all regions are written. */
async function writeWithout(rig: ScenarioRig, primary: SimulatedHost, away: SimulatedHost): Promise<void> {
  const device = await rig.activate(primary)
  away.crash()
  await rig.until('the replica is taken out', () => !rig.isInSync(away))
  for (let region = 0; region < REGIONS; region++) await writeBlock(device, region, 5)
}

/** Resolves when some regions are copied and most are not. */
async function inTheMidst(rig: ScenarioRig, primary: SimulatedHost): Promise<void> {
  await rig.until('the copy is under way', () =>
    (rig.mirror(primary)?.replicas() ?? []).some(
      ({ state, doneRegions }) => state === 'rebuilding' && doneRegions > 0
    )
  )
  assert.equal(rig.allInSync, false)
}

describe('scenario: a volume is closed during a resync', () => {
  for (const seed of [2, 18, 19]) {
    it(`a guest's volume is closed within its deadline (seed ${seed})`, async () =>
      play(seed, REGIONS, async rig => {
        const [h1, h2] = rig.hosts
        await rig.create(h1, h2)
        await writeWithout(rig, h1, h2)
        h2.start()
        await inTheMidst(rig, h1)
        const askedAt = rig.world.now
        await rig.deactivate(h1, 20_000)
        assert.ok(rig.world.now - askedAt < CLOSE_TIME_MS, `it took ${rig.world.now - askedAt} ms`)
        assert.equal(rig.state.primary, null)
        assert.equal(rig.isInSync(h2), false, 'it was copied in part only')

        await rig.activate(h1)
        await rig.until('the rest is copied', () => rig.allInSync)
        rig.assertIdentical(h1, h2)
      }))

    it(`a guest gets a volume that is open for maintenance (seed ${seed})`, async () =>
      play(seed, REGIONS, async rig => {
        const [h1, h2] = rig.hosts
        await rig.create(h1, h2)
        await writeWithout(rig, h1, h2)
        await rig.deactivate(h1)
        h2.start()
        nodeOf(h1).resync(rig.sr, rig.volume)
        await inTheMidst(rig, h1)
        const askedAt = rig.world.now
        const device = await rig.activate(h1)
        assert.ok(rig.world.now - askedAt < CLOSE_TIME_MS, `it took ${rig.world.now - askedAt} ms`)
        assert.equal(await readBlock(device, REGIONS - 1), 5)
        await rig.until('the rest is copied', () => rig.allInSync)
        rig.assertIdentical(h1, h2)
      }))
  }
})
