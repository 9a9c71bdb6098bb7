import assert from 'node:assert/strict'
import { REGION_BYTES, byteLength, byteOffset, type Epoch, type RegionIndex } from '../../../core/units.ts'
import { LocalReplica } from '../../../datapath/replica-local/local-replica.ts'
import { fullSet } from '../../support/region-sets.ts'
import { MIB, BLOCK, startedHost, bytes, write, trim, read, failCalls } from './replica-calls.ts'

describe('a local replica', () => {
  describe('and what it may have lost', () => {
    it('says so after a power cut until that is cleared, across closes', async () => {
      const host = await startedHost()
      assert.equal(host.replica.mayHaveLost, false)
      host.powerCut()
      await host.open()
      assert.equal(host.replica.mayHaveLost, true)
      await host.replica.acceptEpoch(2 as Epoch, { rebuilding: false })
      await host.replica.markClean()
      await host.replica.close()
      assert.equal((await host.open()).mayHaveLost, true)
      await host.replica.clearLost()
      await host.replica.close()
      assert.equal((await host.open()).mayHaveLost, false)
    })

    it('has lost nothing when it was closed clean, and nothing when only its process died', async () => {
      const host = await startedHost()
      await write(host, 0, bytes(BLOCK, 1))
      host.restartProcess()
      assert.equal((await host.open()).mayHaveLost, false)
      await host.replica.acceptEpoch(2 as Epoch, { rebuilding: false })
      await write(host, 0, bytes(BLOCK, 2))
      await host.replica.markClean()
      host.powerCut()
      assert.equal((await host.open()).mayHaveLost, false)
      assert.deepEqual(await read(host, 0, BLOCK), bytes(BLOCK, 2))
    })

    it('makes durable with a flush whatever it reads, but for what a failed sync of this boot has left', async () => {
      const host = await startedHost()
      assert.equal(host.replica.flushCoversReads, true)
      host.powerCut()
      await host.open()
      assert.equal(host.replica.mayHaveLost, true)
      assert.equal(host.replica.flushCoversReads, true, 'after a boot it reads what is on the disk')
      await host.replica.acceptEpoch(2 as Epoch, { rebuilding: true })
      await write(host, 0, bytes(BLOCK, 1))
      failCalls(host, 'sync', '.raw', 'EIO', 1)
      await assert.rejects(host.replica.flush(), { code: 'DISK_FAILED' })
      await host.replica.close()
      await host.open()
      assert.equal(host.replica.flushCoversReads, false)
      await host.replica.clearLost()
      assert.equal(host.replica.flushCoversReads, true, 'all of it has been written again')
      await host.replica.close()
      host.powerCut()
      // The disk refused to note it, so that the files speak of the boot before: the process remembers.
      const known = await LocalReplica.open(host.mount, host.spec.volume, host.boot, 2 as Epoch)
      assert.equal(known.flushCoversReads, false)
      await known.close()
    })

    it('frees a block again that it had freed before a sync failed', async () => {
      for (let seed = 1; seed <= 8; seed++) {
        const host = await startedHost(4 * MIB, seed)
        await write(host, 0, bytes(BLOCK, 1), true)
        await host.replica.trim({ offset: byteOffset(0), length: byteLength(BLOCK), durable: false })
        failCalls(host, 'sync', '.raw', 'EIO', 1)
        await assert.rejects(host.replica.flush(), { code: 'DISK_FAILED' })
        await host.replica.close()
        await host.open()
        // A copy from another replica, to the end: nobody has an intent for it any more.
        await host.replica.acceptEpoch(2 as Epoch, { rebuilding: true })
        await host.replica.trim({ offset: byteOffset(0), length: byteLength(BLOCK), durable: true })
        await host.replica.clearLost()
        host.replica.clearIntents(host.replica.intents.copy())
        await host.replica.markClean()
        host.powerCut()
        await host.open()
        assert.deepEqual(
          await read(host, 0, BLOCK),
          bytes(BLOCK, 0),
          `the disk of seed ${seed} dropped the first one`
        )
        await host.replica.close()
      }
    })

    it('has lost at the later of two epochs: the one that its files tell and the one that the disk refused to note', async () => {
      const host = await startedHost()
      await host.replica.acceptEpoch(2 as Epoch, { rebuilding: false })
      await write(host, 0, bytes(BLOCK, 1))
      failCalls(host, 'sync', '.raw', 'EIO', 1)
      await assert.rejects(host.replica.flush(), { code: 'DISK_FAILED' })
      await host.replica.close()
      await host.open()
      assert.equal(host.replica.lostAt, 2)
      await host.replica.close()
      for (const [known, lostAt] of [
        [5, 5],
        [1, 2],
      ] as const) {
        const again = await LocalReplica.open(host.mount, host.spec.volume, host.boot, known as Epoch)
        assert.equal(again.lostAt, lostAt)
        await again.close()
      }
    })

    it('may have lost a write that came after the clean mark', async () => {
      const host = await startedHost()
      await host.replica.markClean()
      await write(host, 0, bytes(BLOCK, 1))
      host.powerCut()
      assert.equal((await host.open()).mayHaveLost, true)
    })
  })

  describe('on a failing disk', () => {
    it('reports a read or write that fails and goes on', async () => {
      const host = await startedHost()
      failCalls(host, 'read', '.raw', 'EIO')
      await assert.rejects(read(host, 0, BLOCK), { code: 'DISK_FAILED' })
      failCalls(host, 'write', '.raw', 'EIO')
      await assert.rejects(write(host, 0, bytes(BLOCK, 1)), { code: 'DISK_FAILED' })
      host.disk.fault = undefined
      await write(host, 0, bytes(BLOCK, 2), true)
      assert.deepEqual(await read(host, 0, BLOCK), bytes(BLOCK, 2))
    })

    it('reports a full disk and stays whole: intents, epochs and maps have their space', async () => {
      const host = await startedHost()
      await write(host, 0, bytes(BLOCK, 1), true)
      host.disk.capacity = host.disk.used
      const full = { code: 'NO_SPACE' }
      await assert.rejects(write(host, 10 * REGION_BYTES, bytes(BLOCK, 2)), full)
      await write(host, 0, bytes(BLOCK, 3), true)
      await host.replica.acceptEpoch(9 as Epoch, { rebuilding: false })
      await trim(host, 0, BLOCK)
      await write(host, 20 * REGION_BYTES, bytes(BLOCK, 4), true)
      host.powerCut()
      await host.open()
      assert.equal(host.replica.acceptedEpoch, 9)
      assert.deepEqual(await read(host, 20 * REGION_BYTES, BLOCK), bytes(BLOCK, 4))
      assert.deepEqual(await read(host, 10 * REGION_BYTES, BLOCK), bytes(BLOCK, 0))
      assert.deepEqual([...host.replica.intents], [0, 10, 20])
    })

    for (const suffix of ['.raw', '.map']) {
      it(`serves nothing more after a failed sync of ${suffix}, not even when a later one would succeed`, async () => {
        const host = await startedHost()
        await write(host, 0, bytes(BLOCK, 1))
        const failed = { code: 'DISK_FAILED' }
        failCalls(host, 'sync', suffix, 'EIO', 1)
        const flushes = [
          host.replica.flush(),
          host.replica.flush(),
          write(host, BLOCK, bytes(BLOCK, 2), true),
        ]
        const results = await Promise.allSettled(flushes)
        assert.deepEqual(
          results.map(({ status }) => status),
          ['rejected', 'rejected', 'rejected']
        )
        host.disk.fault = undefined
        await assert.rejects(host.replica.flush(), failed)
        await assert.rejects(write(host, 0, bytes(BLOCK, 3)), failed)
        await assert.rejects(read(host, 0, BLOCK), failed)
        await assert.rejects(host.replica.acceptEpoch(5 as Epoch, { rebuilding: false }), failed)
        assert.throws(() => host.replica.clearIntents(fullSet(host.replica.intents.size)), failed)
        await host.replica.close()
        assert.equal((await host.open()).mayHaveLost, true)
        assert.ok(host.replica.intents.has(0 as RegionIndex))
      })
    }

    it('tells a damaged map from an empty one', async () => {
      const host = await startedHost()
      await write(host, 0, bytes(BLOCK, 1), true)
      await host.replica.markClean()
      await host.replica.close()
      // The durable block map begins after the header and one page of intents.
      host.disk.damage(host.path('.map'), 2 * 4096)
      await host.open()
      const damaged = { code: 'REPLICA_CORRUPT' }
      await assert.rejects(write(host, 0, bytes(BLOCK, 2)), damaged)
      await assert.rejects(host.replica.allocation(byteOffset(0), byteLength(BLOCK)), damaged)
    })
  })
})
