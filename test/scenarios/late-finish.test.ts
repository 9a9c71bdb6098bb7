/**
 * A primary closes a volume, and its last word to a replica (all that was written is on every replica, the intents may
 * go) is late. The next primary has by then taken another replica out and goes on writing, so the intents that the late
 * word meets are the only memory of what that other replica lacks. Sessions are counted anew in each epoch: the
 * number in the late word is that of the session which it meets, and only the epoch tells them apart.
 */
import assert from 'node:assert/strict'
import { nodeOf, play, writeBlock } from '../support/scenario-rig.ts'

const REGIONS = 8

describe('scenario: the finish of an earlier primary comes late', () => {
  for (const seed of [1, 2, 3, 4, 5]) {
    it(`it clears nothing of what the next primary has written (seed ${seed})`, async () =>
      play(seed, REGIONS, async rig => {
        const [h1, h2, h3, h4] = rig.hosts
        await rig.create(h2, h3)
        const before = await rig.activate(h1)
        await writeBlock(before, 0, 1, true)

        const { replicas } = nodeOf(h2)
        const finish = replicas.finish.bind(replicas)
        let arrives = false
        let verdict: Promise<void> | null = null
        replicas.finish = async request => {
          await rig.until('the finish arrives', () => arrives, 600_000)
          verdict = finish(request)
          await verdict
        }
        await rig.deactivate(h1).catch(() => undefined)
        await rig.until('nobody has the volume', () => rig.state.primary === null)
        replicas.finish = finish

        const after = await rig.activate(h4)
        await rig.world.pause(100)
        h3.crash()
        await rig.until('h3 is taken out', () => !rig.isInSync(h3))
        for (let region = 0; region < REGIONS; region++) await writeBlock(after, region, 7, true)
        arrives = true
        await rig.until('the finish was judged', () => verdict !== null)
        await assert.rejects(verdict!, { code: 'EPOCH_STALE' })

        h3.start()
        await rig.until('h3 is back', () => rig.allInSync)
        assert.deepEqual(rig.firstBytes(h3), Array<number>(REGIONS).fill(7))
        rig.assertIdentical(h2, h3)
      }))
  }
})
