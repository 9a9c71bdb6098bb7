/**
 * After a takeover two replicas are made alike in a region that only one of the two remembers as uncertain; the other
 * is the source. A third one comes back meanwhile, and is told what the source knows that it lacks: that region is
 * not among it. Then the source dies, and the region takes the other one's bytes. They must reach the third one as well,
 * for it is like the old source there, and nobody would remember that it differs.
 */
import assert from 'node:assert/strict'
import { blockAt, nodeOf, play, readBlock, writeBlock } from '../support/scenario-rig.ts'

const REGIONS = 16
const LAST = REGIONS - 1

describe('scenario: the source of a reconcile dies while a third replica comes back', () => {
  for (const seed of [5, 6, 7]) {
    it(`all three become equal (seed ${seed})`, async () =>
      play(seed, REGIONS, async rig => {
        const [h1, h2, h3, h4] = rig.hosts
        await rig.create(h2, h3, h4)
        const first = await rig.activate(h1)
        for (let region = 0; region < REGIONS; region++) await writeBlock(first, region, 1, true)
        await rig.deactivate(h1)
        const before = await rig.activate(h1)
        h4.crash()
        await rig.until('h4 is taken out', () => !rig.isInSync(h4))
        // Under way when the primary dies: h3 has it, and no other.
        rig.network.cut(h1, h2)
        void writeBlock(before, LAST, 2, true)
        await rig.until('h3 has the write', () => rig.firstBytes(h3)[LAST] === 2)
        h1.crash()
        await rig.world.pause(5_000)
        rig.network.heal()
        h4.start()

        // The copy of the region from h2, the source, never gets further.
        const source = await nodeOf(h2).replicas.reader(rig.sr, rig.volume)
        const read = source.read.bind(source)
        let copies = 0
        source.read = async (offset, into) => {
          if (offset < blockAt(LAST)) return read(offset, into)
          copies++
          return new Promise(() => undefined)
        }
        h1.start()
        await rig.until('the copy has begun', () => copies > 0)
        await rig.world.pause(2_000)
        h2.crash()
        await rig.world.pause(60)
        h2.start()
        await rig.until('all is well', () => rig.allInSync && rig.mirror(h1)?.allInSync === true)
        await rig.world.pause(10_000)
        rig.assertIdentical(h2, h3, h4)
        const { device } = nodeOf(h1).volume(rig.volume)!
        assert.equal(await readBlock(device!, LAST), rig.firstBytes(h4)[LAST])
      }))
  }
})
