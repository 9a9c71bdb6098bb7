/**
 * A disk answers with errors. Who has another replica does not notice. What only one replica has is asked for again and
 * again, alone: the rest of the volume goes on. A read ends with an error when nothing could ever answer it.
 */
import assert from 'node:assert/strict'
import { DEFAULT_TIMING } from '../../core/mirror/timing.ts'
import { REGION_BYTES } from '../../core/units.ts'
import { systemError } from '../simulator/disk-call.ts'
import { type SimulatedHost } from '../simulator/simulated-host.ts'
import { nodeOf, play, readBlock, type ScenarioRig, writeBlock } from '../support/scenario-rig.ts'

const REGIONS = 16

/** One region of the data cannot be read until it is written. @returns whether it still cannot */
function spoil(host: SimulatedHost, region: number): () => boolean {
  let isBad = true
  host.disk.fault = (call, name, range) => {
    if (!isBad || !name.endsWith('.raw') || range === undefined) return
    if (range.from >= (region + 1) * REGION_BYTES || range.to <= region * REGION_BYTES) return
    if (call === 'write') isBad = false
    else if (call === 'read') throw systemError('EIO', call, name)
  }
  return () => isBad
}

const breakDisk = (host: SimulatedHost): void => {
  host.disk.fault = (call, name) => {
    if (call !== 'close') throw systemError('EIO', call, name)
  }
}

const firstRegions = async (rig: ScenarioRig, copies: number) => {
  await rig.create(...rig.hosts.slice(0, copies))
  const device = await rig.activate(rig.hosts[0])
  for (let region = 0; region < REGIONS; region++) await writeBlock(device, region, region + 1)
  await device.flush()
  return device
}

describe('scenario: a disk fails', () => {
  it("the primary's own disk fails in everything: reads come from the other host, and it comes back", async () =>
    play(91, REGIONS, async rig => {
      const [h1, h2] = rig.hosts
      const device = await firstRegions(rig, 2)
      breakDisk(h1)
      const { now } = rig.world
      await writeBlock(device, 0, 77, true)
      assert.deepEqual([await readBlock(device, 0), await readBlock(device, 5)], [77, 6])
      assert.ok(rig.world.now - now < 2_000, `after ${rig.world.now - now} ms`)
      assert.deepEqual([rig.isInSync(h1), rig.isInSync(h2), rig.isPrimary(h1)], [false, true, true])
      await rig.world.pause(30_000)
      assert.match(rig.mirror(h1)!.replicas()[0]!.trouble ?? '', /EIO/)
      h1.disk.fault = undefined
      await rig.until('all are in-sync', () => rig.allInSync)
      await device.flush()
      rig.assertIdentical(h1, h2)
    }))

  it('sectors that cannot be read are written anew from the other replica', async () =>
    play(92, REGIONS, async rig => {
      const [h1, h2] = rig.hosts
      const device = await firstRegions(rig, 2)
      await rig.until('intents are cleared', () => nodeOf(h1).replicas.intentsOf(rig.volume)!.isEmpty)
      const isBad = spoil(h1, 5)
      assert.equal(await readBlock(device, 5), 6)
      await rig.until('all are in-sync', () => rig.allInSync)
      assert.equal(isBad(), false, 'the region that could not be read was not written')
      assert.equal(await readBlock(device, 5), 6)
      rig.assertIdentical(h1, h2)
    }))

  it('one bad sector of the only replica: its read ends with an error, everything else goes on', async () =>
    play(93, REGIONS, async rig => {
      const [h1] = rig.hosts
      const device = await firstRegions(rig, 1)
      const isBad = spoil(h1, 5)
      const { now } = rig.world
      const unreadable = assert.rejects(readBlock(device, 5), { code: 'UNREADABLE' })
      for (let round = 0; round < 40; round++) {
        const before = rig.world.now
        await writeBlock(device, 6, 100 + round, true)
        assert.equal(await readBlock(device, 6), 100 + round)
        assert.ok(rig.world.now - before < 100, `a request beside it took ${rig.world.now - before} ms`)
        await rig.world.pause(200)
      }
      const [wait] = rig.mirror(h1)!.waits()
      assert.ok(wait?.for === 'disk' && !wait.isFull, JSON.stringify(wait))
      await unreadable
      assert.ok(rig.world.now - now < DEFAULT_TIMING.requestTimeMs + 2_000)
      await writeBlock(device, 5, 55)
      assert.equal(isBad(), false)
      assert.equal(await readBlock(device, 5), 55)
    }))

  it('a read that fails for a while is answered when the disk is well', async () =>
    play(94, REGIONS, async rig => {
      const [h1] = rig.hosts
      const device = await firstRegions(rig, 1)
      spoil(h1, 5)
      const read = readBlock(device, 5)
      await rig.world.pause(6_000)
      h1.disk.fault = undefined
      assert.equal(await read, 6)
    }))

  for (const seed of [101, 102, 103]) {
    it(`a write that was refused is asked once while the disk hangs, and changes nothing later (seed ${seed})`, async () =>
      play(seed, REGIONS, async rig => {
        const [h1] = rig.hosts
        const device = await firstRegions(rig, 1)
        h1.disk.fault = (call, name) => {
          if (call === 'write' && name.endsWith('.raw')) throw systemError('EIO', call, name)
        }
        const written = writeBlock(device, 5, 77)
        await rig.world.pause(1_000)
        h1.disk.fault = undefined
        h1.hangDisk()
        await rig.world.pause(5_000)
        h1.freeDisk()
        await written
        await writeBlock(device, 5, 78)
        // Whatever hung has come to its end by then.
        await rig.world.pause(2_000)
        assert.equal(await readBlock(device, 5), 78)
      }))
  }

  it('a read that fails for a while is answered, although the process was stopped when the disk became well', async () =>
    play(98, REGIONS, async rig => {
      const [h1] = rig.hosts
      const device = await firstRegions(rig, 1)
      spoil(h1, 5)
      const read = readBlock(device, 5)
      await rig.world.pause(6_000)
      h1.pause()
      h1.disk.fault = undefined
      await rig.world.pause(60_000)
      h1.resume()
      assert.equal(await read, 6)
    }))

  it('a replica that was away holds what the last one cannot read: the read waits for it', async () =>
    play(95, REGIONS, async rig => {
      const [h1, h2] = rig.hosts
      await firstRegions(rig, 2)
      // With no intent left anywhere.
      await rig.deactivate(h1)
      const device = await rig.activate(h1)
      h2.crash()
      await writeBlock(device, 9, 99, true)
      await rig.until('it is out', () => !rig.isInSync(h2))
      spoil(h1, 5)
      const read = readBlock(device, 5)
      await rig.world.pause(60_000)
      h2.start()
      assert.equal(await read, 6)
      await rig.until('all are in-sync', () => rig.allInSync)
      rig.assertIdentical(h1, h2)
    }))

  it('a copy whose source has a bad sector says so, copies the rest, and ends when the guest writes there', async () =>
    play(96, REGIONS, async rig => {
      const [h1, h2] = rig.hosts
      const device = await firstRegions(rig, 2)
      h2.crash()
      rig.loseReplica(h2)
      spoil(h1, 5)
      h2.start()
      await rig.until(
        'the rest is copied',
        () => rig.mirror(h1)!.replicas().at(-1)!.doneRegions === REGIONS - 1
      )
      await rig.world.pause(10_000)
      assert.match(rig.mirror(h1)!.replicas().at(-1)!.trouble ?? '', /region 5 cannot be read/)
      await assert.rejects(readBlock(device, 5), { code: 'UNREADABLE' })
      // All of the region: what was not written of it cannot be read still.
      await device.write({
        offset: (5 * REGION_BYTES) as never,
        data: Buffer.alloc(REGION_BYTES, 5),
        durable: true,
      })
      await rig.until('all are in-sync', () => rig.allInSync)
      await device.flush()
      rig.assertIdentical(h1, h2)
    }))

  it('what a failed sync has dropped is written again before it counts as durable', async () =>
    play(97, REGIONS, async rig => {
      const [h1] = rig.hosts
      const device = await firstRegions(rig, 1)
      await writeBlock(device, 3, 33)
      rig.failNextSync(h1)
      await assert.rejects(device.flush(), { code: 'WRITES_LOST' })
      // It is seen all the same, so it may not go back.
      assert.equal(await readBlock(device, 3), 33)
      await device.flush()
      h1.cutPower()
      h1.start()
      assert.equal(await readBlock(await rig.activate(h1), 3), 33)
    }))

  it('what a failed sync of the map has dropped is written again', async () => {
    for (let seed = 200; seed < 220; seed++) {
      await play(seed, REGIONS, async rig => {
        const [h1] = rig.hosts
        await rig.create(h1)
        const device = await rig.activate(h1)
        await writeBlock(device, 0, 1, true)
        await writeBlock(device, 3, 33)
        let failed = false
        h1.disk.fault = (call, name) => {
          if (failed || call !== 'sync' || !name.endsWith('.map')) return
          failed = true
          throw systemError('EIO', call, name)
        }
        await assert.rejects(device.flush(), { code: 'WRITES_LOST' })
        await writeBlock(device, 3, 34)
        await device.flush()
        h1.cutPower()
        h1.start()
        assert.equal(await readBlock(await rig.activate(h1), 3), 34)
      })
    }
  })
})
