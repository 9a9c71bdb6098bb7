/**
 * The host of a primary dies while the page caches of the other replicas are full of what the guest has written. To
 * accept the next epoch each has to flush, and its disk is slow. What it holds must not be left behind for that alone.
 */
import assert from 'node:assert/strict'
import { LocalReplica } from '../../datapath/replica-local/local-replica.ts'
import { type SimulatedHost } from '../simulator/simulated-host.ts'
import { nodeOf, play, readBlock, type ScenarioRig, writeBlock } from '../support/scenario-rig.ts'

const REGIONS = 8
/** From the death of a primary to the first answer that another one gives its guest, in milliseconds. */
const SERVES_WITHIN_MS = 10_000

/** A host's replica needs so long to flush what it has now; after that there is nothing left to flush. */
async function slowFlush(rig: ScenarioRig, host: SimulatedHost, ms: number): Promise<void> {
  const replica = await nodeOf(host).replicas.reader(rig.sr, rig.volume)
  assert(replica instanceof LocalReplica)
  const flush = replica.flush.bind(replica)
  let written: Promise<void> | null = null
  replica.flush = async () => {
    written ??= rig.world.pause(ms)
    await written
    await flush()
  }
}

describe('scenario: a takeover while disks are slow to flush', () => {
  it('the only replica that is left gets the time it needs', async () =>
    play(20, REGIONS, async rig => {
      const [h1, h2, h3] = rig.hosts
      await rig.create(h1, h2)
      const device = await rig.activate(h1)
      for (let region = 0; region < REGIONS; region++) await writeBlock(device, region, region + 1)
      await slowFlush(rig, h2, 12_000)
      h1.cutPower()
      const guest = await rig.activate(h3, 30_000)
      for (let region = 0; region < REGIONS; region++)
        assert.equal(await readBlock(guest, region), region + 1)
      assert.equal(rig.isInSync(h2), true)
      assert.equal(rig.state.epoch, 2, 'one attempt was enough')
    }))

  it('one of two that is slower than the other stays in-sync, if that costs guests little', async () =>
    play(31, REGIONS, async rig => {
      const [h1, h2, h3, h4] = rig.hosts
      await rig.create(h1, h2, h3)
      const device = await rig.activate(h1)
      await writeBlock(device, 0, 7)
      await slowFlush(rig, h2, 2_000)
      const { now } = rig.world
      h1.cutPower()
      assert.equal(await readBlock(await rig.activate(h4), 0), 7)
      assert.deepEqual([rig.isInSync(h2), rig.isInSync(h3)], [true, true])
      assert.equal(rig.state.epoch, 2, 'it was never out')
      assert.ok(rig.world.now - now < SERVES_WITHIN_MS, `after ${rig.world.now - now} ms`)
    }))

  it('one that would cost them much is left behind, and brought back by what it missed', async () =>
    play(22, REGIONS, async rig => {
      const [h1, h2, h3, h4] = rig.hosts
      await rig.create(h1, h2, h3)
      const device = await rig.activate(h1)
      await writeBlock(device, 0, 7)
      await slowFlush(rig, h2, 14_000)
      const { now } = rig.world
      h1.cutPower()
      const guest = await rig.activate(h4)
      assert.equal(await readBlock(guest, 0), 7)
      assert.deepEqual([rig.isInSync(h2), rig.isInSync(h3)], [false, true])
      assert.ok(rig.world.now - now < SERVES_WITHIN_MS, `after ${rig.world.now - now} ms`)
      await writeBlock(guest, 1, 8)
      await rig.until('h2 is in-sync', () => rig.isInSync(h2))
      rig.assertIdentical(h2, h3)
    }))

  it('a contender that dies meanwhile leaves the next one a replica that has flushed', async () =>
    play(23, REGIONS, async rig => {
      const [h1, h2, h3, h4] = rig.hosts
      await rig.create(h1, h2)
      const device = await rig.activate(h1)
      await writeBlock(device, 0, 7)
      await slowFlush(rig, h2, 9_000)
      h1.cutPower()
      const first = rig.activate(h3, 30_000).catch(() => undefined)
      await rig.world.pause(8_000)
      h3.crash()
      assert.equal(await readBlock(await rig.activate(h4, 30_000), 0), 7)
      assert.equal(rig.isPrimary(h4), true)
      assert.equal(rig.isInSync(h2), true)
      void first
    }))

  it('a replica whose host dies while it flushes is left behind as soon as any other', async () =>
    play(24, REGIONS, async rig => {
      const [h1, h2, h3, h4] = rig.hosts
      await rig.create(h1, h2, h3)
      const device = await rig.activate(h1)
      await writeBlock(device, 0, 7, true)
      await slowFlush(rig, h2, 14_000)
      const { now } = rig.world
      h1.cutPower()
      const activated = rig.activate(h4)
      await rig.world.pause(6_500)
      h2.cutPower()
      assert.equal(await readBlock(await activated, 0), 7)
      assert.deepEqual([rig.isInSync(h2), rig.isInSync(h3)], [false, true])
      assert.ok(rig.world.now - now < SERVES_WITHIN_MS, `after ${rig.world.now - now} ms`)
    }))

  for (const raiseIsAnswered of [true, false]) {
    const answer = raiseIsAnswered ? '' : ', though it does not hear at which epoch it is back'
    it(`one that had lost writes is left behind, and once it is back it is enough${answer}`, async () =>
      play(25, REGIONS, async rig => {
        const [h1, h2, h3, h4] = rig.hosts
        await rig.create(h2, h3)
        const device = await rig.activate(h1)
        await writeBlock(device, 0, 7, true)
        await writeBlock(device, 1, 8)
        h2.cutPower()
        h1.cutPower()
        h2.start()
        await slowFlush(rig, h2, 14_000)
        const guest = await rig.activate(h4)
        assert.equal(rig.isInSync(h2), false)
        await writeBlock(guest, 1, 9, true)
        if (!raiseIsAnswered) nodeOf(h2).replicas.raise = async () => Promise.reject(new Error('lost'))
        await rig.until('h2 is in-sync', () => rig.isInSync(h2))
        await rig.until('h2 is connected', () => rig.mirror(h4)?.phase === 'serving')
        h3.cutPower()
        h4.cutPower()
        h1.start()
        const next = await rig.activate(h1)
        assert.deepEqual([await readBlock(next, 0), await readBlock(next, 1)], [7, 9])
      }))
  }
})
