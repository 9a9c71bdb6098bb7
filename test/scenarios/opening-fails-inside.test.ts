/**
 * A replica tells its write intents for a volume of another size, as one might that a change of the size met half-way. The
 * opening cannot go on with that. It ends as a whole: no link and no timer of it may be at work beside the next opening,
 * which would be two primaries in one process; and the process, with all its other volumes, goes on.
 */
import assert from 'node:assert/strict'
import { RegionSet } from '../../core/mirror/region-set.ts'
import { millis } from '../../core/units.ts'
import { type SimulatedHost } from '../simulator/simulated-host.ts'
import { nodeOf, play, readBlock, writeBlock } from '../support/scenario-rig.ts'

const REGIONS = 4

/** The host's process answers with a wrong size once. @returns whether it has */
function spoilIntents(host: SimulatedHost): () => boolean {
  const { replicas } = nodeOf(host)
  const intents = replicas.intents.bind(replicas)
  let spoiled = false
  replicas.intents = async name => {
    if (spoiled) return intents(name)
    spoiled = true
    return new RegionSet(2 * REGIONS)
  }
  return () => spoiled
}

describe('scenario: an opening fails in the middle', () => {
  it('leaves nothing at work, and the next one serves', async () =>
    play(1, REGIONS, async rig => {
      const [h1, h2, h3] = rig.hosts
      await rig.create(h2, h3)
      const spoiled = spoilIntents(h2)
      const node = nodeOf(h1)
      const device = await node.attach(rig.sr, rig.volume)
      await assert.rejects(node.activate(rig.sr, rig.volume, millis(9_000)))
      assert.equal(spoiled(), true)
      await node.activate(rig.sr, rig.volume, millis(9_000))
      await writeBlock(device, 0, 1)
      const connected = (): number => rig.log.filter(line => line.includes('replica disconnected')).length
      const before = connected()
      h3.crash()
      await rig.until('h3 is taken out', () => !rig.isInSync(h3))
      assert.equal(connected() - before, 1, 'one mirror noticed, and no other')
      assert.equal(await readBlock(device, 0), 1)
    }))

  it('is tried again when it was an opening after a loss of all power', async () =>
    play(2, REGIONS, async rig => {
      const [h1, h2, h3] = rig.hosts
      await rig.create(h2, h3)
      const device = await rig.activate(h1)
      await writeBlock(device, 0, 1, true)
      for (const host of [h2, h3]) host.cutPower()
      await rig.world.pause(500)
      for (const host of [h2, h3]) host.start()
      const spoiled = spoilIntents(h2)
      await rig.until('it was answered', spoiled)
      assert.equal(await readBlock(device, 0), 1)
      assert.equal(rig.mirror(h1)?.phase, 'serving')
      await rig.deactivate(h1)
    }))
})
