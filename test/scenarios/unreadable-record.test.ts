/**
 * Something that is no record takes the place of a volume's record, by a stray tool or a newer version, and is put right a
 * while later. Nothing may be decided from it. But who was at work must go on when it is put right, without being asked:
 * a primary that closes the volume, one that opens it again because every replica has lost power, and a process that is
 * started meanwhile, for the guest of the one before it, or to close what that one has left.
 */
import assert from 'node:assert/strict'
import { hasCode } from '../../core/errors.ts'
import { nodeOf, play, readBlock, writeBlock } from '../support/scenario-rig.ts'

const REGIONS = 8

describe("scenario: a volume's record cannot be understood for a while", () => {
  for (const seed of [23, 24, 25]) {
    it(`a volume that was to be closed meanwhile is closed afterwards (seed ${seed})`, async () =>
      play(seed, REGIONS, async rig => {
        const [h1, h2, h3] = rig.hosts
        await rig.create(h1, h2)
        const device = await rig.activate(h1)
        await writeBlock(device, 0, 1, true)
        const mend = rig.spoilRecord()

        await assert.rejects(rig.deactivate(h1, 3_000), error => hasCode(error, 'DEADLINE_EXCEEDED'))
        mend()

        await rig.deactivate(h1, 3_000)
        assert.equal(rig.state.primary, null)
        assert.equal(await readBlock(await rig.activate(h3), 0), 1)
      }))

    it(`a volume that is opened again is served afterwards, to the guest that waits (seed ${seed})`, async () =>
      play(seed, REGIONS, async rig => {
        const [h1, h2, h3] = rig.hosts
        await rig.create(h2, h3)
        const device = await rig.activate(h1)
        await writeBlock(device, 0, 1, true)
        await device.flush()
        const mend = rig.spoilRecord()
        h2.cutPower()
        h3.cutPower()
        await rig.world.pause(500)
        h2.start()
        h3.start()

        let written = false
        void writeBlock(device, 1, 2, true).then(() => (written = true))
        await rig.until('it opens the volume again', () => rig.mirror(h1)?.phase === 'opening')
        await rig.world.pause(3_000)
        assert.equal(written, false)
        mend()

        await rig.until('the write is done', () => written)
        assert.equal(rig.isPrimary(h1), true)
        assert.equal(await readBlock(device, 0), 1)
        await rig.until('both replicas are in-sync', () => rig.allInSync)
        rig.assertIdentical(h2, h3)
      }))

    it(`a process that starts meanwhile takes its guest up afterwards (seed ${seed})`, async () =>
      play(seed, REGIONS, async rig => {
        const [h1, h2, h3] = rig.hosts
        await rig.create(h2, h3)
        await writeBlock(await rig.activate(h1), 0, 1, true)
        const mend = rig.spoilRecord()
        h1.crash()
        h1.start()
        await rig.world.pause(3_000)
        mend()

        await rig.until('it is served again', () => rig.mirror(h1)?.phase === 'serving')
        await rig.until('it is attached', () => nodeOf(h1).volume(rig.volume)?.device != null)
        assert.equal(await readBlock(nodeOf(h1).volume(rig.volume)!.device!, 0), 1)
      }))

    it(`a process that starts meanwhile closes afterwards what nobody has (seed ${seed})`, async () =>
      play(seed, REGIONS, async rig => {
        const [h1, h2, h3] = rig.hosts
        await rig.create(h2, h3)
        await rig.activate(h1)
        rig.reachesCoordinator(h1, false)
        await assert.rejects(rig.deactivate(h1, 3_000), error => hasCode(error, 'DEADLINE_EXCEEDED'))
        h1.crash()
        const mend = rig.spoilRecord()
        rig.reachesCoordinator(h1, true)
        h1.start()
        await rig.world.pause(3_000)
        mend()

        await rig.until('it is closed', () => rig.state.primary === null)
      }))
  }
})
