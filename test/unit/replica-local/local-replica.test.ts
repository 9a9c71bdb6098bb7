import assert from 'node:assert/strict'
import {
  REGION_BYTES,
  byteLength,
  byteOffset,
  type BootId,
  type Epoch,
  type RegionIndex,
  type ReplicaId,
} from '../../../core/units.ts'
import { LocalReplica } from '../../../datapath/replica-local/local-replica.ts'
import { fullSet, setOf } from '../../support/region-sets.ts'
import { ReplicaHost } from '../../support/replica-on-simulated-disk.ts'
import { MIB, TIB, BLOCK, startedHost, bytes, write, trim, read, countCalls } from './replica-calls.ts'

describe('a local replica', () => {
  describe('while it serves', () => {
    it('overwrites a present block in a region with an intent by one write and nothing else', async () => {
      const host = await startedHost()
      await write(host, 0, bytes(BLOCK, 1), true)
      const calls = countCalls(host)
      await write(host, 0, bytes(BLOCK, 2))
      assert.deepEqual([...calls], [['write raw', 1]])
    })

    it('makes the intent of a region durable before its first write, and shares that sync', async () => {
      const host = await startedHost()
      const order: string[] = []
      host.disk.fault = (call, name) => order.push(`${call} ${name.slice(-3)}`)
      await write(host, 0, bytes(BLOCK, 1))
      // The first change also loads the page of the block map.
      assert.deepEqual(order.slice(0, 2), ['read map', 'read ive'])
      assert.deepEqual(order.slice(2), ['write map', 'sync map', 'write ive', 'write raw'])
      const calls = countCalls(host)
      const offsets = Array.from({ length: 32 }, (_, at) => (at + 1) * REGION_BYTES)
      await Promise.all(offsets.map(offset => write(host, offset, bytes(BLOCK, 1))))
      assert.ok(calls.get('sync map')! <= 2, `${calls.get('sync map')!} syncs for 32 regions`)
    })

    it('lets durable writes at one time share syncs', async () => {
      const host = await startedHost()
      await write(host, 0, bytes(32 * BLOCK, 1), true)
      const calls = countCalls(host)
      await Promise.all(Array.from({ length: 32 }, (_, at) => write(host, at * BLOCK, bytes(BLOCK, 2), true)))
      assert.ok(calls.get('sync raw')! <= 3, `${calls.get('sync raw')!} syncs for 32 durable writes`)
      assert.equal(calls.get('sync map'), undefined)
    })

    it('makes durable what an earlier process has written, by its first flush', async () => {
      // A power cut keeps much of what was not synced; among so many at least one would have lost it.
      for (let seed = 1; seed <= 16; seed += 1) {
        const host = new ReplicaHost(seed, MIB)
        await host.start()
        // Once as the first write of a block, once over a block that the durable map has.
        if (seed % 2 === 0) await write(host, 0, bytes(BLOCK, 1), true)
        await write(host, 0, bytes(BLOCK, 2))
        host.restartProcess()
        await host.open()
        await host.replica.flush()
        host.powerCut()
        await host.open()
        assert.deepEqual(await read(host, 0, BLOCK), bytes(BLOCK, 2))
      }
    })

    it('does not sync when nothing has changed since the last flush', async () => {
      const host = await startedHost()
      await write(host, 0, bytes(BLOCK, 1))
      await host.replica.flush()
      const calls = countCalls(host)
      await host.replica.flush()
      assert.deepEqual([...calls], [])
    })

    it('frees trimmed blocks, and gives no intent to regions where there was nothing to free', async () => {
      const host = await startedHost()
      await write(host, 5 * REGION_BYTES, bytes(REGION_BYTES, 1), true)
      const before = await host.replica.physicalBytes()
      await trim(host, 100, 4 * MIB - 200)
      assert.equal(before - (await host.replica.physicalBytes()), REGION_BYTES)
      assert.deepEqual([...host.replica.intents], [5])
      assert.deepEqual(await host.replica.allocation(byteOffset(0), byteLength(4 * MIB)), [
        { length: 4 * MIB, hole: true, zero: true },
      ])
    })

    it('takes space for zeros that shall stay allocated', async () => {
      const host = await startedHost()
      const range = { offset: byteOffset(0), length: byteLength(REGION_BYTES), durable: false }
      await host.replica.zero({ ...range, keepAllocated: true })
      assert.deepEqual(await host.replica.allocation(byteOffset(0), byteLength(2 * REGION_BYTES)), [
        { length: REGION_BYTES, hole: false, zero: false },
        { length: REGION_BYTES, hole: true, zero: true },
      ])
    })

    it('refuses ranges beyond its end and changes nothing', async () => {
      const host = await startedHost()
      const beyond = { code: 'OUT_OF_RANGE' }
      await assert.rejects(write(host, 4 * MIB - 1, bytes(2, 1)), beyond)
      await assert.rejects(read(host, 4 * MIB, 1), beyond)
      await assert.rejects(trim(host, 0, 4 * MIB + 1), beyond)
      await assert.rejects(host.replica.allocation(byteOffset(4 * MIB), byteLength(1)), beyond)
      assert.ok(host.replica.intents.isEmpty)
    })

    it('serves ranges that cross pages of the map', async () => {
      // 30,720 blocks are one page.
      const border = 30_720 * BLOCK
      const host = await startedHost(2 * border)
      await write(host, border - 10_000, bytes(20_000, 7), true)
      await trim(host, border - 5000, 10_000)
      const check = async (): Promise<void> => {
        const content = await read(host, border - 10_000, 20_000)
        content.forEach((byte, at) => assert.equal(byte, at >= 5000 && at < 15_000 ? 0 : 7, `byte ${at}`))
        const extents = await host.replica.allocation(byteOffset(border - 3 * BLOCK), byteLength(6 * BLOCK))
        assert.deepEqual(
          extents.map(({ length, hole }) => [length / BLOCK, hole]),
          [
            [2, false],
            [2, true],
            [2, false],
          ]
        )
      }
      await check()
      await host.replica.markClean()
      host.powerCut()
      await host.open()
      await check()
    })

    it('serves more of a volume than it keeps the map of in memory', async () => {
      const page = 30_720 * BLOCK
      const pages = 560
      const host = await startedHost(pages * page)
      const calls = countCalls(host)
      for (let at = 0; at < pages; at += 1) await write(host, at * page, bytes(BLOCK, 1), at % 50 === 49)
      await host.replica.flush()
      const before = calls.get('read map')!
      for (let at = 0; at < pages; at += 1) {
        const [extent] = await host.replica.allocation(byteOffset(at * page), byteLength(2 * BLOCK))
        assert.deepEqual(extent, { length: BLOCK, hole: false, zero: false })
      }
      assert.ok(calls.get('read map')! > before, 'some pages were dropped and read again')
    })

    it('serves a volume of 64 TiB at its far end', async () => {
      const host = new ReplicaHost(1, 64 * TIB)
      await host.start()
      const end = 64 * TIB
      await write(host, end - 5000, bytes(5000, 9), true)
      assert.deepEqual(await read(host, end - 5000, 5000), bytes(5000, 9))
      assert.equal(host.replica.intents.firstAtOrAfter(0 as RegionIndex), end / REGION_BYTES - 1)
    }).timeout(120_000)
  })

  describe('and its intents', () => {
    it('stay cleared across a close, and are set again durably by a later write', async () => {
      const host = await startedHost()
      await write(host, 0, bytes(BLOCK, 1), true)
      await write(host, REGION_BYTES, bytes(BLOCK, 1), true)
      host.replica.clearIntents(setOf(host.replica.intents.size, [0]))
      assert.deepEqual([...host.replica.intents], [1])
      await host.replica.markClean()
      await host.replica.close()
      await host.open()
      assert.deepEqual([...host.replica.intents], [1])
      await write(host, 0, bytes(BLOCK, 2))
      host.powerCut()
      await host.open()
      assert.deepEqual([...host.replica.intents], [0, 1])
    })

    it('are set for all regions of a replica that is to be rebuilt, durably', async () => {
      const host = await startedHost(8192 * MIB)
      const marked = host.replica.markAllIntents()
      // A write meanwhile waits for them although its bit is set.
      const order: string[] = []
      host.disk.fault = (call, name) => order.push(`${call} ${name.slice(-3)}`)
      await Promise.all([marked, write(host, 0, bytes(BLOCK, 1))])
      assert.ok(order.indexOf('write raw') > order.indexOf('sync map'), order.join())
      host.powerCut()
      await host.open()
      assert.equal(host.replica.intents.count, (8192 * MIB) / REGION_BYTES)
    })

    it('are kept, whatever the mirror says, where a change is not flushed', async () => {
      const host = await startedHost()
      await write(host, 0, bytes(BLOCK, 1))
      host.replica.clearIntents(fullSet(host.replica.intents.size))
      assert.deepEqual([...host.replica.intents], [0])
      await host.replica.flush()
      host.replica.clearIntents(fullSet(host.replica.intents.size))
      assert.ok(host.replica.intents.isEmpty)
    })
  })

  describe('and its intents after a crash', () => {
    it('are kept until the first flush, which alone covers what came before', async () => {
      for (const crash of ['restartProcess', 'powerCut'] as const) {
        const host = await startedHost()
        await write(host, 0, bytes(BLOCK, 1))
        host[crash]()
        await host.open()
        const all = fullSet(host.replica.intents.size)
        host.replica.clearIntents(all)
        assert.deepEqual([...host.replica.intents], [0])
        await host.replica.flush()
        host.replica.clearIntents(all)
        assert.ok(host.replica.intents.isEmpty)
      }
    })
  })

  describe('and epochs', () => {
    it('accepts only higher ones, or the same again', async () => {
      const host = await startedHost()
      const { replica } = host
      await replica.acceptEpoch(7 as Epoch, { rebuilding: true })
      await replica.acceptEpoch(7 as Epoch, { rebuilding: true })
      assert.equal(replica.state, 'rebuilding')
      const stale = { code: 'EPOCH_STALE' }
      await assert.rejects(replica.acceptEpoch(7 as Epoch, { rebuilding: false }), stale)
      await assert.rejects(replica.acceptEpoch(6 as Epoch, { rebuilding: true }), stale)
      host.powerCut()
      assert.equal((await host.open()).acceptedEpoch, 7)
      assert.equal(host.replica.state, 'rebuilding')
    })
  })

  describe('when it grows', () => {
    it('keeps what it has, reads zeros in the new part, and refuses to shrink', async () => {
      const host = await startedHost()
      await write(host, 4 * MIB - 10, bytes(10, 5), true)
      await host.replica.resize(byteLength(4096 * MIB))
      assert.deepEqual(await read(host, 4 * MIB - 10, 10), bytes(10, 5))
      assert.deepEqual(await read(host, 4 * MIB, 10), bytes(10, 0))
      await write(host, 4096 * MIB - 10, bytes(10, 6), true)
      await host.replica.close()
      await host.open()
      assert.equal(host.replica.size, 4096 * MIB)
      assert.deepEqual(await read(host, 4096 * MIB - 10, 10), bytes(10, 6))
      assert.equal(host.replica.intents.size, (4096 * MIB) / REGION_BYTES)
      await assert.rejects(host.replica.resize(byteLength(4 * MIB)), { code: 'INVALID_ARGUMENT' })
      await assert.rejects(host.replica.resize(byteLength(4096 * MIB + 1)), { code: 'INVALID_ARGUMENT' })
    })
  })

  describe('comes and goes', () => {
    it('is open in one place at a time', async () => {
      const host = await startedHost()
      const { volume } = host.spec
      await assert.rejects(LocalReplica.open(host.disk.mount(), volume, host.boot), {
        code: 'REPLICA_LOCKED',
      })
      await assert.rejects(LocalReplica.remove(host.mount, volume, host.spec.replica), {
        code: 'REPLICA_LOCKED',
      })
      await host.replica.close()
      await (await LocalReplica.open(host.disk.mount(), volume, host.boot)).close()
    })

    it('is created once, and creating it again changes nothing, open or closed', async () => {
      const host = await startedHost()
      await write(host, 0, bytes(BLOCK, 1), true)
      await LocalReplica.create(host.mount, host.spec)
      await host.replica.close()
      await LocalReplica.create(host.mount, host.spec)
      await host.open()
      assert.deepEqual(await read(host, 0, BLOCK), bytes(BLOCK, 1))
    })

    it('is never overwritten nor removed in the name of another replica', async () => {
      const host = await startedHost()
      await host.replica.close()
      const other = host.random.uuid() as ReplicaId
      const present = { code: 'REPLICA_PRESENT' }
      await assert.rejects(LocalReplica.create(host.mount, { ...host.spec, replica: other }), present)
      await assert.rejects(LocalReplica.remove(host.mount, host.spec.volume, other), present)
      assert.equal((await host.open()).replica, host.spec.replica)
    })

    it('is gone after it was removed, and removing it again does nothing', async () => {
      const host = await startedHost()
      await host.replica.close()
      const { volume, replica } = host.spec
      await LocalReplica.remove(host.mount, volume, replica)
      await LocalReplica.remove(host.mount, volume, replica)
      assert.deepEqual(await host.mount.list('volumes'), [])
      await assert.rejects(host.open(), { code: 'REPLICA_GONE' })
      await LocalReplica.create(host.mount, { ...host.spec, replica: host.random.uuid() as ReplicaId })
    })

    it('waits for what is under way when it is closed, and refuses what comes later', async () => {
      const host = await startedHost()
      const written = write(host, 0, bytes(BLOCK, 1), true)
      const closed = host.replica.close()
      await Promise.all([written, closed])
      await assert.rejects(read(host, 0, 1), { code: 'DISK_FAILED' })
      await host.open()
      assert.deepEqual(await read(host, 0, BLOCK), bytes(BLOCK, 1))
    })

    it('refuses ids, sizes and stacks that it cannot have', async () => {
      const host = new ReplicaHost(1, MIB)
      const invalid = { code: 'INVALID_ARGUMENT' }
      const create = (changes: object): Promise<void> =>
        LocalReplica.create(host.mount, { ...host.spec, ...changes })
      await assert.rejects(create({ volume: '../../etc' }), invalid)
      await assert.rejects(create({ replica: '' }), invalid)
      await assert.rejects(create({ size: 0 }), invalid)
      await assert.rejects(create({ size: 1000 }), invalid)
      const two = [host.random.uuid(), host.random.uuid()]
      await assert.rejects(create({ layers: two }), { code: 'UNSUPPORTED' })
      await create({})
      await assert.rejects(LocalReplica.open(host.mount, host.spec.volume, 'boot' as BootId), invalid)
    })
  })
})
