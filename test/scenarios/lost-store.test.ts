/**
 * A host's store is not there, or is another one, or has lost files. What is only not mounted comes back as it was; what is
 * lost gets a new id and a copy in full, and is never repaired by bits.
 */
import assert from 'node:assert/strict'
import { replicasOf } from '../../core/mirror/volume-change.ts'
import { type SimulatedHost } from '../simulator/simulated-host.ts'
import { play, readBlock, type ScenarioRig, writeBlock } from '../support/scenario-rig.ts'

const REGIONS = 16

const recordOf = (rig: ScenarioRig, host: SimulatedHost) =>
  replicasOf(rig.state).find(replica => replica.host === host.id)!

const begin = async (rig: ScenarioRig) => {
  const [h1, h2] = rig.hosts
  await rig.create(h1, h2)
  const device = await rig.activate(h1)
  for (let region = 0; region < REGIONS; region++) await writeBlock(device, region, region + 1)
  await device.flush()
  return device
}

/** What was lost is back, as another replica, with everything in it. */
async function assertCopiedInFull(rig: ScenarioRig, host: SimulatedHost, before: string): Promise<void> {
  await rig.until('it is another replica', () => recordOf(rig, host).replica !== before)
  await rig.until('all are in-sync', () => rig.allInSync)
  assert.equal(recordOf(rig, host).store, host.store)
  const copied = rig.log.filter(line => line.includes('rebuilding')).at(-1)!
  assert.match(copied, new RegExp(`regions=${REGIONS}$`))
  rig.assertIdentical(rig.hosts[0], rig.hosts[1])
}

describe('scenario: a store is lost', () => {
  it('one that is not mounted is waited for, and brought up to date by what it missed', async () =>
    play(101, REGIONS, async rig => {
      const [h1, h2] = rig.hosts
      const device = await begin(rig)
      const { replica } = recordOf(rig, h2)
      h2.crash()
      h2.storeIsMissing = true
      h2.start()
      await writeBlock(device, 3, 33, true)
      await rig.until('it is out', () => !rig.isInSync(h2))
      await rig.world.pause(30_000)
      assert.match(rig.mirror(h1)!.replicas()[1]!.trouble ?? '', /not mounted/)
      h2.storeIsMissing = false
      await rig.until('all are in-sync', () => rig.allInSync)
      assert.equal(recordOf(rig, h2).replica, replica, 'it is the same replica')
      await device.flush()
      rig.assertIdentical(h1, h2)
    }))

  it('a host whose own store is not mounted serves its guest from another one', async () =>
    play(102, REGIONS, async rig => {
      const [h1] = rig.hosts
      await begin(rig)
      await rig.deactivate(h1)
      h1.crash()
      h1.storeIsMissing = true
      h1.start()
      const device = await rig.activate(h1)
      assert.equal(await readBlock(device, 4), 5)
      h1.storeIsMissing = false
      await rig.until('all are in-sync', () => rig.allInSync)
    }))

  for (const which of [0, 1]) {
    it(`a new disk on ${which === 0 ? "the primary's" : 'the other'} host gets a new replica`, async () =>
      play(103, REGIONS, async rig => {
        const device = await begin(rig)
        const host = rig.hosts[which]!
        const before = recordOf(rig, host)
        host.crash()
        host.replaceDisk()
        host.start()
        if (which === 1) await writeBlock(device, 3, 33, true)
        else assert.equal(await readBlock(await rig.activate(rig.hosts[1]), 3), 4)
        await assertCopiedInFull(rig, host, before.replica)
        assert.notEqual(recordOf(rig, host).store, before.store)
      }))
  }

  for (const suffix of ['.raw', '.map', '.live', 'replica']) {
    it(`a replica without its ${suffix} is lost, and what is left of it goes`, async () =>
      play(104, REGIONS, async rig => {
        const [, h2] = rig.hosts
        await begin(rig)
        const { replica } = recordOf(rig, h2)
        h2.crash()
        const name = [...h2.disk.names.keys()].find(other => other.endsWith(suffix))!
        h2.disk.changeNames('', names => names.delete(name))
        h2.disk.syncNames('')
        h2.start()
        await assertCopiedInFull(rig, h2, replica)
      }))
  }

  for (const [what, suffix, places] of [
    ['write intents', '.map', [4096 + 100]],
    ['block map', '.map', [2 * 4096 + 10]],
    ['header of a map', '.map', [40]],
    ['both copies of its metadata', 'replica', [60, 65_536 + 60]],
  ] as const) {
    it(`damage to its ${what} is noticed, and another replica takes its place`, async () =>
      play(105, REGIONS, async rig => {
        const [, h2] = rig.hosts
        await begin(rig)
        const { replica } = recordOf(rig, h2)
        h2.crash()
        const name = [...h2.disk.names.keys()].find(other => other.endsWith(suffix))!
        for (const at of places) h2.disk.damage(name, at)
        h2.start()
        await assertCopiedInFull(rig, h2, replica)
      }))
  }

  for (const [what, place] of [
    ['write intents', 4096 + 100],
    ['header of a map', 40],
  ] as const) {
    it(`the last replica has damage to its ${what}: the volume waits for it, and older data are not served`, async () =>
      play(110, REGIONS, async rig => {
        const [h1, h2] = rig.hosts
        const device = await begin(rig)
        h2.crash()
        await writeBlock(device, 2, 22, true)
        assert.deepEqual([rig.isInSync(h1), rig.isInSync(h2)], [true, false])
        h1.crash()
        const map = [...h1.disk.names.keys()].find(name => name.endsWith('.map'))!
        h1.disk.damage(map, place)
        h1.start()
        h2.start()
        for (const host of [h1, h2]) await assert.rejects(rig.activate(host), { code: 'DEADLINE_EXCEEDED' })
        await rig.world.pause(60_000)
        assert.deepEqual([rig.isInSync(h1), rig.isInSync(h2)], [true, false], 'nobody gives it up')
        // Somebody has its file from a backup: all is there.
        h1.disk.damage(map, place)
        assert.equal(await readBlock(await rig.activate(h2), 2), 22)
        await rig.until('all are in-sync', () => rig.allInSync)
        rig.assertIdentical(h1, h2)
      }))
  }

  it('damage to one copy of its metadata is mended from the other', async () =>
    play(106, REGIONS, async rig => {
      const [, h2] = rig.hosts
      const device = await begin(rig)
      const { replica } = recordOf(rig, h2)
      const metadata = `volumes/${rig.volume}/replica`
      for (const at of [60, 65_536 + 60]) {
        h2.crash()
        h2.disk.damage(metadata, at)
        h2.start()
        await writeBlock(device, 3, at % 100, true)
        await rig.until('all are in-sync', () => rig.allInSync)
      }
      assert.equal(recordOf(rig, h2).replica, replica)
    }))

  it('a replica that was made in its place, and damaged before any record named it, is made again', async () =>
    play(108, REGIONS, async rig => {
      const [h1, h2] = rig.hosts
      await begin(rig)
      const { replica } = recordOf(rig, h2)
      h2.crash()
      h2.replaceDisk()
      await rig.until('it is out', () => !rig.isInSync(h2))
      rig.reachesCoordinator(h1, false)
      h2.start()
      const metadata = `volumes/${rig.volume}/replica`
      await rig.until('it is made', () => h2.disk.names.has(metadata))
      h2.crash()
      await rig.world.pause(1_000)
      const map = [...h2.disk.names.keys()].find(name => name.endsWith('.map'))!
      h2.disk.damage(map, 40)
      assert.equal(recordOf(rig, h2).replica, replica, 'no record names it')
      rig.reachesCoordinator(h1, true)
      h2.start()
      await assertCopiedInFull(rig, h2, replica)
    }))

  it('who hears that it is lost when the volume has been opened anew leaves it to the new opening', async () =>
    play(109, REGIONS, async rig => {
      const [h1, h2] = rig.hosts
      const device = await begin(rig)
      const { replica } = recordOf(rig, h2)
      h2.crash()
      rig.loseReplica(h2)
      await rig.until('it is out', () => !rig.isInSync(h2))
      h2.start()
      h2.pause()
      await rig.world.pause(600)
      // The only replica that is left fails: its primary begins anew, and has asked the other host before that.
      rig.failNextSync(h1)
      await writeBlock(device, 3, 33)
      await device.flush().catch(() => undefined)
      const begins = (line: string): boolean => line.includes('opening again')
      await rig.until('it is opened anew', () => rig.log.some(begins))
      await rig.until('it serves', () => rig.mirror(h1)!.phase === 'serving')
      // What was asked before is told that it is gone; what the new opening asks fails, and is asked again later.
      let opened = 0
      h2.disk.fault = (call, name) => {
        if (call !== 'open' || !name.endsWith('/replica') || ++opened !== 2) return
        throw Object.assign(new Error('EIO'), { code: 'EIO' })
      }
      h2.resume()
      await assertCopiedInFull(rig, h2, replica)
      const told = rig.log.length
      await rig.world.pause(10_000)
      const disturbed = rig.log.slice(told).filter(line => line.includes('disconnected'))
      assert.deepEqual(disturbed, [], 'nobody makes it once more')
    }))

  it('a replica whose making was broken off is made again', async () =>
    play(107, REGIONS, async rig => {
      const [, h2] = rig.hosts
      await begin(rig)
      const { replica } = recordOf(rig, h2)
      h2.crash()
      h2.replaceDisk()
      h2.start()
      await rig.until('it is being made', () => [...h2.disk.names.keys()].some(name => name.endsWith('.map')))
      h2.crash()
      await rig.world.pause(1_000)
      h2.start()
      await assertCopiedInFull(rig, h2, replica)
    }))
})
