/**
 * After a takeover two replicas differ where writes were under way, and are made alike from one of them, the source.
 * A copy waits for its region, in which a write of the guest is under way; meanwhile the source's process dies, and the
 * other replica becomes the source. Whoever lacks the region is now the old source: a copy that still went by
 * what it had been told before the wait would change nobody, count the region as done, and let a read see
 * the one replica today and the other tomorrow.
 */
import assert from 'node:assert/strict'
import { BLOCK_BYTES, millis } from '../../core/units.ts'
import { blockAt, nodeOf, play, readBlock, writeBlock } from '../support/scenario-rig.ts'

/** More than are copied at once, so that the guest's write has the last one before its copy begins. */
const REGIONS = 32
const LAST = REGIONS - 1

describe('scenario: the source of a reconcile dies while a copy waits', () => {
  for (const seed of [5, 6, 7]) {
    it(`the replicas become equal and reads never go back (seed ${seed})`, async () =>
      play(seed, REGIONS, async rig => {
        const [h1, h2, h3, h4] = rig.hosts
        await rig.create(h2, h3)
        const before = await rig.activate(h4)
        for (let region = 0; region < REGIONS; region++) await writeBlock(before, region, 1, true)
        rig.network.cut(h4, h3)
        for (let region = 0; region < REGIONS; region++) void writeBlock(before, region, 2, true)
        await rig.world.pause(200)
        h4.crash()
        await rig.world.pause(5_000)
        assert.deepEqual([rig.firstBytes(h2)[LAST], rig.firstBytes(h3)[LAST]], [2, 1])

        const node = nodeOf(h1)
        const device = await node.attach(rig.sr, rig.volume)
        const slow = blockAt(LAST, 2)
        const replica = await nodeOf(h2).replicas.reader(rig.sr, rig.volume)
        const write = replica.write.bind(replica)
        replica.write = async request =>
          request.offset === slow ? new Promise(() => undefined) : write(request)
        let acknowledged = false
        const written = device
          .write({ offset: slow, data: Buffer.alloc(BLOCK_BYTES, 9), durable: false })
          .then(() => (acknowledged = true))
        await node.activate(rig.sr, rig.volume, millis(9_000))
        await rig.until('all other regions are equal', () => rig.firstBytes(h3)[LAST - 1] === 2)
        await rig.world.pause(300)
        assert.equal(acknowledged, false)
        assert.equal(rig.firstBytes(h3)[LAST], 1, 'the copy of the last region waits')

        h2.crash()
        await rig.world.pause(60)
        h2.start()
        await written
        const seen = await readBlock(device, LAST)
        await rig.until('all is reconciled', () => rig.mirror(h1)?.allInSync === true)
        await rig.world.pause(10_000)
        rig.assertIdentical(h2, h3)
        assert.equal(await readBlock(device, LAST), seen)
        h2.crash()
        await rig.until('h2 is taken out', () => !rig.isInSync(h2))
        assert.equal(await readBlock(device, LAST), seen)
      }))
  }
})
