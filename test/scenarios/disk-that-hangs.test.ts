/**
 * The disk of a host hangs: calls do not come back, not even with an error, and the process above it lives and answers
 * heartbeats. Nobody may wait for it for ever whom another replica can serve, whichever host's disk it is; and what comes
 * back minutes later may change nothing that somebody relies on.
 */
import assert from 'node:assert/strict'
import { DEFAULT_TIMING } from '../../core/mirror/timing.ts'
import { BLOCK_BYTES, millis } from '../../core/units.ts'
import { type BlockDevice } from '../../datapath/block-device.ts'
import { blockAt, nodeOf, play, readBlock, type ScenarioRig, writeBlock } from '../support/scenario-rig.ts'

const REGIONS = 8
const { requestTimeMs, callTimeoutMs } = DEFAULT_TIMING
/** From the moment that a disk hangs: the time of a request, and what it takes to take the replica out, in milliseconds. */
const GOES_ON_WITHIN_MS = requestTimeMs + 3000

/** Whether a promise settles within a time. */
async function settles(rig: ScenarioRig, promise: Promise<unknown>, ms: number): Promise<boolean> {
  const settled = promise.then(
    () => true,
    () => true
  )
  return Promise.race([settled, rig.world.pause(ms).then(() => false)])
}

async function readsWithin(
  rig: ScenarioRig,
  device: BlockDevice,
  region: number,
  ms: number
): Promise<number> {
  const { now } = rig.world
  const value = await readBlock(device, region)
  assert.ok(rig.world.now - now <= ms, `the read took ${rig.world.now - now} ms`)
  return value
}

describe('scenario: a disk hangs', () => {
  it("the guest goes on without its own host's replica, which comes back by what it missed", async () =>
    play(41, REGIONS, async rig => {
      const [h1, h2] = rig.hosts
      await rig.create(h1, h2)
      const device = await rig.activate(h1)
      for (let region = 0; region < REGIONS; region++) await writeBlock(device, region, region + 1)
      const { now } = rig.world
      h1.hangDisk()
      const asked = [writeBlock(device, 0, 21, true), readBlock(device, 1), device.flush()]
      await Promise.all([...asked, writeBlock(device, 2, 23)])
      assert.ok(rig.world.now - now <= GOES_ON_WITHIN_MS, `after ${rig.world.now - now} ms`)
      assert.deepEqual([rig.isInSync(h1), rig.isInSync(h2), rig.isPrimary(h1)], [false, true, true])
      // It is out: nothing waits for it any more.
      await writeBlock(device, 3, 24, true)
      assert.deepEqual(
        await Promise.all([0, 1, 2, 3].map(async at => readsWithin(rig, device, at, 100))),
        [21, 2, 23, 24]
      )
      await rig.world.pause(120_000)
      h1.freeDisk()
      await rig.until('all are in-sync', () => rig.allInSync)
      await device.flush()
      rig.assertIdentical(h1, h2)
    }))

  it('what a read of the disk that hung brings in the end reaches nobody', async () =>
    play(42, REGIONS, async rig => {
      const [h1, h2] = rig.hosts
      await rig.create(h1, h2)
      const device = await rig.activate(h1)
      await writeBlock(device, 0, 1, true)
      h1.hangDisk()
      const into = Buffer.alloc(BLOCK_BYTES)
      const bytes = await device.read(blockAt(0), into)
      assert.deepEqual(bytes, Buffer.alloc(BLOCK_BYTES, 1))
      await writeBlock(device, 0, 2, true)
      const again = await device.read(blockAt(0), Buffer.alloc(BLOCK_BYTES))
      bytes.fill(7)
      h1.freeDisk()
      await rig.until('all are in-sync', () => rig.allInSync)
      assert.deepEqual(
        Buffer.from(bytes),
        Buffer.alloc(BLOCK_BYTES, 7),
        'what was returned is the reader’s own'
      )
      assert.deepEqual(Buffer.from(again), Buffer.alloc(BLOCK_BYTES, 2))
    }))

  it('no session is opened before all calls of the earlier ones have come back', async () =>
    play(43, REGIONS, async rig => {
      const [h1, h2] = rig.hosts
      await rig.create(h1, h2)
      const device = await rig.activate(h1)
      await writeBlock(device, 0, 1, true)
      h1.hangDisk()
      const value = (round: number): number => 10 + round
      for (let round = 0; round < 5; round++) {
        await writeBlock(device, round, value(round), true)
        await rig.world.pause(7_000)
        assert.equal(nodeOf(h1).replicas.holderOf(rig.volume)?.inSession, false)
        // Whoever looks at the volume is told why.
        const [own, other] = rig.mirror(h1)!.replicas()
        assert.notEqual(own!.trouble, null)
        assert.equal(other!.trouble, null)
      }
      h1.freeDisk()
      await rig.until('all are in-sync', () => rig.allInSync)
      assert.deepEqual(
        rig
          .mirror(h1)!
          .replicas()
          .map(({ trouble }) => trouble),
        [null, null]
      )
      await device.flush()
      rig.assertIdentical(h1, h2)
    }))

  it('a guest that has been moved away is not kept by the disk of the host that it left', async () =>
    play(44, REGIONS, async rig => {
      const [h1, h2] = rig.hosts
      await rig.create(h1, h2)
      const device = await rig.activate(h1)
      await writeBlock(device, 0, 1, true)
      h1.hangDisk()
      const { now } = rig.world
      await rig.deactivate(h1, 30_000)
      assert.ok(rig.world.now - now <= GOES_ON_WITHIN_MS, `after ${rig.world.now - now} ms`)
      await nodeOf(h1).detach(rig.volume)
      const there = await rig.activate(h2)
      assert.equal(await readBlock(there, 0), 1)
      await writeBlock(there, 0, 2)
      h1.freeDisk()
      await rig.until('all are in-sync', () => rig.allInSync)
      rig.assertIdentical(h1, h2)
    }))

  it('the first activation on its host goes on with the other replica', async () =>
    play(45, REGIONS, async rig => {
      const [h1, h2] = rig.hosts
      await rig.create(h1, h2)
      h1.hangDisk()
      const { now } = rig.world
      const device = await rig.activate(h1)
      await writeBlock(device, 0, 1, true)
      assert.ok(rig.world.now - now < 5_000, `after ${rig.world.now - now} ms`)
      h1.freeDisk()
      await rig.until('all are in-sync', () => rig.allInSync)
      rig.assertIdentical(h1, h2)
    }))

  it('another host takes over when the replica of a dead primary’s host is gone and one of two others hangs', async () =>
    play(46, REGIONS, async rig => {
      const [h1, h2, h3, h4] = rig.hosts
      await rig.create(h1, h2, h3)
      const device = await rig.activate(h1)
      await writeBlock(device, 0, 1, true)
      h2.hangDisk()
      h1.cutPower()
      const { now } = rig.world
      assert.equal(await readBlock(await rig.activate(h4), 0), 1)
      assert.ok(rig.world.now - now < 10_000, `after ${rig.world.now - now} ms`)
      assert.deepEqual([rig.isInSync(h2), rig.isInSync(h3)], [false, true])
    }))

  it('with no other replica the guest waits and is told what for, and goes on when the disk does', async () =>
    play(47, REGIONS, async rig => {
      const [h1] = rig.hosts
      await rig.create(h1)
      const device = await rig.activate(h1)
      await writeBlock(device, 0, 1)
      h1.hangDisk()
      const waiting = writeBlock(device, 0, 2, true)
      assert.equal(await settles(rig, waiting, 60_000), false)
      const [wait] = rig.mirror(h1)?.waits() ?? []
      assert.ok(
        wait?.for === 'replica' && /cannot be used yet.* s now/.test(wait.reason),
        JSON.stringify(wait)
      )
      h1.freeDisk()
      await waiting
      assert.equal(await readBlock(device, 0), 2)
    }))

  it('whoever asks for the replica on it is answered in the time of a call, however often', async () =>
    play(48, REGIONS, async rig => {
      const [h1, h2] = rig.hosts
      await rig.create(h1, h2)
      h1.hangDisk()
      const { replicas } = nodeOf(h1)
      for (let round = 0; round < 20; round++) {
        const { now } = rig.world
        await assert.rejects(replicas.physicalBytes(rig.sr, rig.volume), { code: 'REPLICA_BUSY' })
        await assert.rejects(replicas.reader(rig.sr, rig.volume), { code: 'REPLICA_BUSY' })
        assert.ok(rig.world.now - now <= 2.2 * callTimeoutMs)
      }
      h1.freeDisk()
      assert.ok((await replicas.physicalBytes(rig.sr, rig.volume)) > 0)
    }))

  it('other volumes of the process, and its end, do not wait for it', async () =>
    play(49, REGIONS, async rig => {
      const [h1, h2] = rig.hosts
      await rig.create(h1, h2)
      const device = await rig.activate(h1)
      await writeBlock(device, 0, 1, true)
      h1.hangDisk()
      void writeBlock(device, 0, 2)
      await rig.world.pause(100)
      const { now } = rig.world
      await assert.rejects(nodeOf(h1).stop(millis(8_000)), { code: 'DEADLINE_EXCEEDED' })
      assert.ok(rig.world.now - now <= 2 * 8_500, `after ${rig.world.now - now} ms`)
    }))
})
