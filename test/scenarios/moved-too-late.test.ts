/**
 * At its first activation on a host without a replica a volume gets one there. The files are made under a tombstone, which
 * goes in the transaction that makes them part of the volume. Here the host's xosand dies right after it has sent that
 * transaction, which takes its time; the next one finds the tombstone, and deletes the files. From then on the transaction
 * must not happen any more: the record would name a replica that does not exist.
 */
import assert from 'node:assert/strict'
import { tombstonesPrefix, volumesPrefix } from '../../cluster/keys.ts'
import { millis } from '../../core/units.ts'
import { checkFilesOfRecords } from '../simulator/metadata-checks.ts'
import { ANSWER, playInPool } from '../support/pool-rig.ts'

describe('scenario: an empty replica becomes part of its volume late', () => {
  it('not after its tombstone was carried out', async () =>
    playInPool(7, async rig => {
      const volume = await rig.created(rig.hosts[1])
      const holders = rig
        .stateOf(volume)
        .mirrors.flat()
        .map(({ host }) => host)
      const mover = rig.hosts.find(({ id }) => !holders.includes(id))
      // Of three hosts two have a replica, or all: then this seed tells nothing.
      assert.ok(mover !== undefined)
      let isSent = false
      rig.fateOf = (client, keys) => {
        const isMove = client === mover.name && keys.length > 2 && keys.some(key => key.endsWith('/state'))
        if (!isMove || isSent) return ANSWER
        isSent = true
        return { kind: 'unknown', afterMs: millis(4_000), effectMs: millis(4_000) }
      }
      await rig.datapathCall(mover, 'Datapath.attach', volume, 'u0_1')
      void rig.datapathCall(mover, 'Datapath.activate', volume, 'u0_1')
      await rig.until('the replica is about to become part of the volume', () => isSent)
      rig.daemon(mover).kill()
      rig.daemon(mover).start()
      const tombstones = () => rig.coordinator.list(tombstonesPrefix(rig.sr)).entries.length
      await rig.until('the tombstone is carried out', () => tombstones() === 0, 3_500)
      await rig.world.pause(5_000)
      const { entries } = rig.coordinator.list(volumesPrefix(rig.sr))
      assert.equal(checkFilesOfRecords(entries, rig.hosts), null)
    }))
})
