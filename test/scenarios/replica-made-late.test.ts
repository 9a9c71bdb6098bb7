/**
 * A volume is being made, and the request to make its replica on one host is held up on the way. Whoever makes the volume
 * gives up and takes it back: the record goes, a tombstone comes, and that host's own xosand carries it out, finds
 * nothing to delete, and removes it. Then the request arrives. Files made now would belong to nobody, for good.
 */
import assert from 'node:assert/strict'
import { tombstonesPrefix } from '../../cluster/keys.ts'
import { millis } from '../../core/units.ts'
import { ANSWER, playInPool } from '../support/pool-rig.ts'

describe('scenario: the request to make a replica arrives after its volume was given up', () => {
  it('leaves no files', async () => {
    // What waits at a cut link may arrive when it heals, or not: in some of these it does.
    for (let seed = 1; seed <= 6; seed++) {
      await playInPool(seed, async rig => {
        const [h1, h2, h3] = rig.hosts
        for (const other of [h2, h3]) rig.network.cut(h1, other)
        const refused = await rig.create(h1)
        for (const other of [h2, h3]) rig.network.join(h1, other)
        assert.equal(refused.kind, 'failed')
        await rig.world.pause(1_000)
        // Now only the requests for replicas are held up, from the moment at which the record is there.
        const creating = rig.create(h1)
        await rig.until('the volume is recorded', () => rig.records.length > 0)
        for (const other of [h2, h3]) rig.network.cut(h1, other)
        assert.equal((await creating).kind, 'failed')
        const tombstones = () => rig.coordinator.list(tombstonesPrefix(rig.sr)).entries.length
        await rig.until('the tombstones are carried out', () => tombstones() === 0)
        assert.deepEqual(rig.hosts.map(host => rig.filesOn(host)).flat(), [])
        rig.network.heal()
        await rig.world.pause(5_000)
        assert.deepEqual(rig.hosts.map(host => rig.filesOn(host)).flat(), [])
      })
    }
  })

  it('leaves no files when it arrives after the files were deleted, and before the tombstone is', async () => {
    for (let seed = 1; seed <= 6; seed++) {
      await playInPool(seed, async rig => {
        const [h1, h2, h3] = rig.hosts
        for (const other of [h2, h3]) rig.network.cut(h1, other)
        const refused = await rig.create(h1)
        for (const other of [h2, h3]) rig.network.join(h1, other)
        assert.equal(refused.kind, 'failed')
        await rig.world.pause(1_000)
        const creating = rig.create(h1)
        await rig.until('the volume is recorded', () => rig.records.length > 0)
        for (const other of [h2, h3]) rig.network.cut(h1, other)
        const tombstones = () => rig.coordinator.list(tombstonesPrefix(rig.sr)).entries.length
        await rig.until('there are tombstones', () => tombstones() > 0)
        // Files are deleted, and nobody learns for a while whether the tombstone is.
        rig.fateOf = (_, keys, verb) =>
          verb === 'transact' && keys.some(key => key.startsWith(tombstonesPrefix(rig.sr)))
            ? { kind: 'unknown', afterMs: millis(100), effectMs: null }
            : ANSWER
        assert.equal((await creating).kind, 'failed')
        await rig.world.pause(2_000)
        rig.network.heal()
        await rig.world.pause(500)
        rig.fateOf = () => ANSWER
        await rig.until('the tombstones are removed', () => tombstones() === 0)
        await rig.world.pause(5_000)
        assert.deepEqual(rig.hosts.map(host => rig.filesOn(host)).flat(), [])
      })
    }
  })
})
