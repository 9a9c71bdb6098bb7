/**
 * A guest is at work on one host when another host is told to activate the same volume. It must learn so without harm:
 * a replica that the attempt takes from the primary can only be given back through the record, and a primary that
 * cannot reach the coordinator would stand still for as long as that lasts. So the primary's own host is asked first,
 * and its replica keeps its promise for as long as the process beside it serves the volume.
 */
import assert from 'node:assert/strict'
import { type BlockDevice } from '../../datapath/block-device.ts'
import { nodeOf, play, type ScenarioRig, writeBlock } from '../support/scenario-rig.ts'

const REGIONS = 8
/** Longer than stragglers of the network and of the disks together, in milliseconds. */
const STALL_MS_MAX = 400

/** Writes again and again. @returns what ends it, and tells the longest wait for a write in milliseconds */
function work(rig: ScenarioRig, device: BlockDevice): () => number {
  let longestMs = 0
  let startedAt = rig.world.now
  let over = false
  void (async () => {
    while (!over) {
      startedAt = rig.world.now
      await writeBlock(device, 0, 1)
      longestMs = Math.max(longestMs, rig.world.now - startedAt)
      await rig.world.pause(5)
    }
  })()
  return () => {
    over = true
    // One that never ended is a wait, too.
    return Math.max(longestMs, rig.world.now - startedAt)
  }
}

/** The other host is refused and the guest notices nothing, also long after. */
async function assertRefused(rig: ScenarioRig, device: BlockDevice): Promise<void> {
  const [h1, , h3] = rig.hosts
  const { epoch, mirrors } = rig.state
  const end = work(rig, device)
  for (let attempt = 0; attempt < 2; attempt++) {
    await rig.world.pause(1_000)
    await assert.rejects(rig.activate(h3), { code: 'ACTIVATED_ON_ANOTHER_HOST' })
  }
  await rig.world.pause(20_000)
  const stallMs = end()
  assert.ok(stallMs < STALL_MS_MAX, `a write took ${stallMs} ms`)
  assert.equal(rig.isPrimary(h1), true)
  assert.deepEqual([rig.state.epoch, rig.state.mirrors], [epoch, mirrors])
}

describe('scenario: another host is told to activate a volume that serves a guest', () => {
  it('it is refused while all replicas are in contact', async () =>
    play(10, REGIONS, async rig => {
      const [h1, h2] = rig.hosts
      await rig.create(h1, h2)
      const device = await rig.activate(h1)
      await rig.world.pause(6_000)
      await assertRefused(rig, device)
    }))

  it('it is refused when the primary holds no replica', async () =>
    play(11, REGIONS, async rig => {
      const [h1, h2, , h4] = rig.hosts
      await rig.create(h2, h4)
      const device = await rig.activate(h1)
      await rig.world.pause(6_000)
      await assertRefused(rig, device)
    }))

  it('it takes nothing from a primary that cannot reach the coordinator', async () =>
    play(12, REGIONS, async rig => {
      const [h1, h2] = rig.hosts
      await rig.create(h1, h2)
      const device = await rig.activate(h1)
      await rig.world.pause(6_000)
      rig.reachesCoordinator(h1, false)
      await assertRefused(rig, device)
      rig.reachesCoordinator(h1, true)
      await rig.world.pause(5_000)
      await assertRefused(rig, device)
    }))

  it('it takes no replica whose promise has run out while the primary could not reach it', async () =>
    play(14, REGIONS, async rig => {
      const [h1, h2, h3] = rig.hosts
      await rig.create(h1, h2)
      const device = await rig.activate(h1)
      await rig.world.pause(6_000)
      rig.reachesCoordinator(h1, false)
      rig.network.cut(h1, h2)
      rig.network.cut(h2, h1)
      // By now h2 owes h1 nothing any more, and would accept whoever asks.
      await rig.world.pause(10_000)
      const { replicas } = nodeOf(h2)
      const accept = replicas.accept.bind(replicas)
      const answers: string[] = []
      replicas.accept = async request => {
        const answer = await accept(request)
        answers.push(answer.kind)
        return answer
      }
      await assert.rejects(rig.activate(h3), { code: 'ACTIVATED_ON_ANOTHER_HOST' })
      assert.equal(answers.includes('accepted'), false)
      rig.network.heal()
      rig.reachesCoordinator(h1, true)
      await writeBlock(device, 0, 2, true)
      await rig.until('all is well', () => rig.allInSync)
      assert.equal(rig.isPrimary(h1), true)
      rig.assertIdentical(h1, h2)
    }))

  it("it is refused when the primary's own replica is the only one that is in-sync", async () =>
    play(13, REGIONS, async rig => {
      const [h1, h2] = rig.hosts
      await rig.create(h1, h2)
      const device = await rig.activate(h1)
      h2.crash()
      await writeBlock(device, 0, 1)
      await rig.until('h2 is taken out', () => !rig.isInSync(h2))
      await rig.world.pause(6_000)
      await assertRefused(rig, device)
    }))
})
