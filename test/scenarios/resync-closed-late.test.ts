/**
 * A host brings a closed volume's stale replica up to date, and loses the coordinator before it has closed the volume
 * again, for longer than it waits for that. The closing goes on by itself; what is left of it must not look like an open
 * volume, or no replica of the volume would ever be brought up to date by this host again.
 */
import assert from 'node:assert/strict'
import { type SimulatedHost } from '../simulator/simulated-host.ts'
import { nodeOf, play, type ScenarioRig, writeBlock } from '../support/scenario-rig.ts'

const REGIONS = 8
/** Longer than a resync waits for the closing at its end, in milliseconds. */
const AWAY_MS = 60_000

/** The volume is written from a host while another one is down, and closed; then that is there again. */
async function makeStale(rig: ScenarioRig, primary: SimulatedHost, other: SimulatedHost): Promise<void> {
  other.crash()
  await writeBlock(await rig.activate(primary), 0, 1, true)
  await rig.until(`${other.name} is stale`, () => !rig.isInSync(other))
  await rig.deactivate(primary)
  other.start()
}

describe('scenario: a resync ends while the coordinator is away', () => {
  it('the same host begins the next one', async () =>
    play(1, REGIONS, async rig => {
      const [h1, h2, , h4] = rig.hosts
      await rig.create(h1, h2)
      await makeStale(rig, h4, h2)
      assert.equal(nodeOf(h1).resync(rig.sr, rig.volume), true)
      await rig.until('h2 is in-sync', () => rig.isInSync(h2))
      rig.reachesCoordinator(h1, false)
      await rig.world.pause(AWAY_MS)
      assert.equal(rig.isPrimary(h1), true)
      rig.reachesCoordinator(h1, true)
      await rig.until('it is closed', () => rig.state.primary === null)

      await makeStale(rig, h4, h2)
      assert.equal(nodeOf(h1).resync(rig.sr, rig.volume), true)
      await rig.until('h2 is in-sync again', () => rig.isInSync(h2))
      await rig.until('it is closed', () => rig.state.primary === null)
      rig.assertIdentical(h1, h2)
    }))
})
