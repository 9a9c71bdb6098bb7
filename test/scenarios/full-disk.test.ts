/**
 * A disk is full. A replica that cannot take a write is taken out if another in-sync one can; else the write waits, and
 * only that write: reads go on, and writes that need no space. When there is space again everything goes on by itself.
 */
import assert from 'node:assert/strict'
import { type BlockDevice } from '../../datapath/block-device.ts'
import { type SimulatedHost } from '../simulator/simulated-host.ts'
import { play, readBlock, type ScenarioRig, writeBlock } from '../support/scenario-rig.ts'

const REGIONS = 16
const PAGE_BYTES = 4096
/** More than the maps that were made with the volume have room for. */
const GROWN_REGIONS = 40_000

const fill = (host: SimulatedHost, pagesLeft = 0): void => {
  host.disk.capacity = host.disk.used + pagesLeft * PAGE_BYTES
}
const free = (host: SimulatedHost): void => {
  host.disk.capacity = Infinity
}

/** A volume on the first hosts, active on the first of them, with something in its first regions. */
async function begin(rig: ScenarioRig, copies: number): Promise<BlockDevice> {
  await rig.create(...rig.hosts.slice(0, copies))
  const device = await rig.activate(rig.hosts[0])
  for (let region = 0; region < 4; region++) await writeBlock(device, region, region + 1)
  await device.flush()
  return device
}

/** Starts something that is to wait. @returns whether it has ended */
function start(action: Promise<void>): () => boolean {
  let ended = false
  void action.then(() => (ended = true))
  return () => ended
}

describe('scenario: a disk is full', () => {
  for (const [which, name] of [
    [1, "the other host's"],
    [0, "the primary's own"],
  ] as const) {
    it(`${name} replica is taken out, and comes back when there is space`, async () =>
      play(81, REGIONS, async rig => {
        const device = await begin(rig, 2)
        const full = rig.hosts[which]
        fill(full)
        // What needs no space keeps both.
        await writeBlock(device, 1, 11, true)
        assert.equal(rig.allInSync, true)
        const { now } = rig.world
        await writeBlock(device, 8, 9, true)
        assert.ok(rig.world.now - now < 1_000, `the guest waited ${rig.world.now - now} ms`)
        assert.deepEqual([rig.isInSync(full), rig.isInSync(rig.hosts[1 - which]!)], [false, true])
        await rig.world.pause(30_000)
        const status = rig.mirror(rig.hosts[0])!.replicas()[which]!
        assert.match(status.trouble ?? '', /not enough space/)
        const attempts = rig.log.filter(line => line.includes('rebuilding')).length
        assert.ok(attempts < 12, `it was tried ${attempts} times in 30 s to fill a full disk`)
        free(full)
        await rig.until('all are in-sync', () => rig.allInSync)
        await device.flush()
        rig.assertIdentical(rig.hosts[0], rig.hosts[1])
        assert.deepEqual([await readBlock(device, 1), await readBlock(device, 8)], [11, 9])
      }))
  }

  for (const first of [0, 1]) {
    it(`with both full a write waits, everything else goes on, and it is done when host ${first + 1} has space`, async () =>
      play(82, REGIONS, async rig => {
        const device = await begin(rig, 2)
        const [h1, h2] = rig.hosts
        fill(h1)
        fill(h2)
        const isDone = start(writeBlock(device, 8, 9, true))
        await rig.world.pause(20_000)
        assert.equal(isDone(), false)
        assert.equal(rig.allInSync, true, 'neither has more than the other')
        const waits = rig.mirror(h1)!.waits()
        assert.deepEqual(
          waits.map(wait => wait.for === 'disk' && wait.isFull && wait.host),
          [h1.id, h2.id]
        )
        const { now } = rig.world
        for (let round = 0; round < 20; round++) {
          await writeBlock(device, 2, 30 + round, true)
          assert.equal(await readBlock(device, 2), 30 + round)
          await rig.world.pause(77)
        }
        await device.flush()
        assert.ok(rig.world.now - now < 20 * 77 + 500, `it took ${rig.world.now - now} ms`)
        free(rig.hosts[first]!)
        await rig.until('the write is done', isDone, 3_000)
        assert.equal(await readBlock(device, 8), 9)
        assert.equal(rig.isInSync(rig.hosts[first]!), true)
        free(rig.hosts[1 - first]!)
        await rig.until('all are in-sync', () => rig.allInSync)
        rig.assertIdentical(h1, h2)
      }))
  }

  it('a close waits with a write that has no space, and ends with it when one disk has some', async () =>
    play(88, REGIONS, async rig => {
      const device = await begin(rig, 2)
      const [h1, h2] = rig.hosts
      fill(h1)
      fill(h2)
      const isDone = start(writeBlock(device, 8, 9))
      await rig.world.pause(3_000)
      await assert.rejects(rig.deactivate(h1, 5_000), { code: 'DEADLINE_EXCEEDED' })
      await rig.world.pause(10_000)
      assert.deepEqual([isDone(), rig.mirror(h1)!.phase, rig.isPrimary(h1)], [false, 'closing', true])
      assert.deepEqual(
        rig
          .mirror(h1)!
          .waits()
          .map(wait => wait.for === 'disk' && wait.isFull && wait.host),
        [h1.id, h2.id]
      )
      free(h2)
      await rig.until('it is closed', () => rig.state.primary === null)
      assert.deepEqual([isDone(), rig.isInSync(h1), rig.isInSync(h2)], [true, false, true])
      // The other one lacks the write, and waits for a copy of it.
      const there = await rig.activate(h1)
      assert.equal(await readBlock(there, 8), 9)
      free(h1)
      await rig.until('all are in-sync', () => rig.allInSync)
      await there.flush()
      rig.assertIdentical(h1, h2)
    }))

  it('a write that fits in part waits with the rest, and another host takes over with nothing lost', async () =>
    play(83, REGIONS, async rig => {
      const device = await begin(rig, 2)
      const [h1, h2] = rig.hosts
      fill(h1, 2)
      fill(h2, 3)
      const write = { offset: (8 * 65_536) as never, data: Buffer.alloc(65_536, 5), durable: true }
      const isDone = start(device.write(write))
      await rig.world.pause(5_000)
      assert.equal(isDone(), false)
      h1.cutPower()
      const there = await rig.activate(h2)
      assert.deepEqual(
        await Promise.all([0, 1, 2, 3].map(async region => readBlock(there, region))),
        [1, 2, 3, 4]
      )
      // Never acknowledged, it may be there or not, and the same for everybody.
      const seen = Buffer.from(await there.read(write.offset, Buffer.alloc(65_536)))
      h1.start()
      free(h1)
      await rig.until('all are in-sync', () => rig.allInSync)
      free(h2)
      assert.deepEqual(Buffer.from(await there.read(write.offset, Buffer.alloc(65_536))), seen)
      rig.assertIdentical(h1, h2)
    }))

  it('neither epochs nor intents nor maps need space: a volume is taken over and closed on full disks', async () =>
    play(84, REGIONS, async rig => {
      await begin(rig, 2)
      const [h1, h2] = rig.hosts
      fill(h1)
      fill(h2)
      h1.crash()
      const there = await rig.activate(h2)
      await writeBlock(there, 3, 33, true)
      h1.start()
      await rig.until('all are in-sync', () => rig.allInSync)
      await rig.deactivate(h2)
      const again = await rig.activate(h1)
      assert.equal(await readBlock(again, 3), 33)
      rig.assertIdentical(h1, h2)
    }))

  it('a volume grows where there is space for its maps; the other replica grows when it has space, too', async () =>
    play(86, REGIONS, async rig => {
      await begin(rig, 2)
      const [h1, h2] = rig.hosts
      await rig.deactivate(h1)
      fill(h2)
      rig.grow(GROWN_REGIONS)
      const device = await rig.activate(h1)
      await writeBlock(device, GROWN_REGIONS - 1, 77, true)
      await rig.world.pause(10_000)
      assert.deepEqual([rig.isInSync(h1), rig.isInSync(h2)], [true, false])
      assert.match(rig.mirror(h1)!.replicas()[1]!.trouble ?? '', /space/)
      free(h2)
      await rig.until('all are in-sync', () => rig.allInSync)
      await device.flush()
      await rig.deactivate(h1)
      assert.equal(await readBlock(await rig.activate(h2), GROWN_REGIONS - 1), 77)
    }))

  it('a volume that has grown on full disks is opened when one has space, and is not given away before', async () =>
    play(87, REGIONS, async rig => {
      await begin(rig, 2)
      const [h1, h2] = rig.hosts
      await rig.deactivate(h1)
      fill(h1)
      fill(h2)
      rig.grow(GROWN_REGIONS)
      await assert.rejects(rig.activate(h1, 3_000))
      // What a replica said that it could not store does not count, whoever asks it.
      await assert.rejects(rig.activate(h2, 3_000))
      free(h2)
      await rig.world.pause(5_000)
      const device = await rig.activate(h1)
      assert.equal(await readBlock(device, 3), 4)
      await writeBlock(device, GROWN_REGIONS - 1, 77, true)
      free(h1)
      await rig.until('all are in-sync', () => rig.allInSync)
      assert.equal(await readBlock(device, GROWN_REGIONS - 1), 77)
    }))

  it('a replica that is made anew waits for space and leaves what there is to others', async () =>
    play(85, REGIONS, async rig => {
      const device = await begin(rig, 2)
      const [, h2] = rig.hosts
      h2.crash()
      rig.loseReplica(h2)
      fill(h2, 10)
      h2.start()
      await writeBlock(device, 5, 6, true)
      const trouble = (): string => rig.mirror(rig.hosts[0])!.replicas()[1]!.trouble ?? ''
      await rig.until('it was tried', () => /space/.test(trouble()))
      await rig.world.pause(20_000)
      assert.ok(h2.disk.freePages >= 8, `${h2.disk.freePages} pages are left of 10`)
      free(h2)
      await rig.until('all are in-sync', () => rig.allInSync)
      await device.flush()
      rig.assertIdentical(rig.hosts[0], h2)
    }))
})
