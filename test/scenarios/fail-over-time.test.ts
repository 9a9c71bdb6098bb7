/**
 * The host of a primary dies, and somebody activates the volume elsewhere at that very moment. How long until the guest
 * there has its first answer? A promise of 4 s has to run out, counted by the replica from the last heartbeat; nothing
 * else may take long.
 */
import assert from 'node:assert/strict'
import { DEFAULT_TIMING } from '../../core/mirror/timing.ts'
import { type SimulatedHost } from '../simulator/simulated-host.ts'
import { play, readBlock, type ScenarioRig, writeBlock } from '../support/scenario-rig.ts'

const REGIONS = 8
/** Beside the promise: some messages and changes of the record, and clocks that differ by some percent. */
const OVERHEAD_MS = 700
const WITHIN_MS = DEFAULT_TIMING.promiseTimeMs + OVERHEAD_MS

const power = (host: SimulatedHost): void => host.cutPower()

/** @returns how long it took from the death of the first host to the first answer on another, in milliseconds */
async function failOver(
  rig: ScenarioRig,
  to: SimulatedHost,
  afterMs = 0,
  dies: (host: SimulatedHost) => void = power
): Promise<number> {
  const [h1] = rig.hosts
  const { now } = rig.world
  dies(h1)
  await rig.world.pause(afterMs)
  const guest = await rig.activate(to)
  assert.equal(await readBlock(guest, 0), 7)
  return rig.world.now - now
}

describe('scenario: another host serves soon after the primary’s has died', () => {
  for (const seed of [51, 52, 53]) {
    for (const { name, holders, to } of [
      { name: 'the host of the other replica', holders: [0, 1], to: 1 },
      { name: 'a host without a replica', holders: [0, 1], to: 2 },
      { name: 'one of three replicas’ hosts', holders: [0, 1, 2], to: 2 },
      { name: 'a host beside two replicas, of which the dead one had none', holders: [1, 2], to: 3 },
    ]) {
      it(`${name} (${seed})`, async () =>
        play(seed, REGIONS, async rig => {
          await rig.create(...holders.map(index => rig.hosts[index]!))
          const device = await rig.activate(rig.hosts[0])
          await writeBlock(device, 0, 7, true)
          await rig.world.pause(rig.world.random.between(0, 1000))
          const took = await failOver(rig, rig.hosts[to]!)
          assert.ok(took <= WITHIN_MS, `it took ${took.toFixed(0)} ms`)
        }))
    }
  }

  it('a moment after the promise is over it takes no more than a call that the dead host does not answer', async () =>
    play(54, REGIONS, async rig => {
      const [h1, h2, h3] = rig.hosts
      await rig.create(h1, h2)
      const device = await rig.activate(h1)
      await writeBlock(device, 0, 7, true)
      const took = await failOver(rig, h3, 6_000)
      assert.ok(took <= 6_000 + DEFAULT_TIMING.callTimeoutMs + OVERHEAD_MS, `it took ${took.toFixed(0)} ms`)
    }))

  it('a primary whose process is stopped is no more of a hindrance than a dead one, and is replaced', async () =>
    play(55, REGIONS, async rig => {
      const [h1, h2, h3] = rig.hosts
      await rig.create(h1, h2)
      const device = await rig.activate(h1)
      await writeBlock(device, 0, 7, true)
      const took = await failOver(rig, h3, 0, host => host.pause())
      assert.ok(took <= WITHIN_MS, `it took ${took.toFixed(0)} ms`)
      h1.resume()
      await rig.until('h1 knows', () => rig.mirror(h1)?.phase === 'replaced')
    }))

  it('one reservation is enough, however often replicas have to be asked', async () =>
    play(56, REGIONS, async rig => {
      const [h1, h2, h3] = rig.hosts
      await rig.create(h1, h2)
      const device = await rig.activate(h1)
      await writeBlock(device, 0, 7, true)
      const { epoch } = rig.state
      h1.cutPower()
      rig.network.cut(h3, h2)
      const activated = rig.activate(h3, 60_000)
      await rig.world.pause(20_000)
      rig.network.heal()
      assert.equal(await readBlock(await activated, 0), 7)
      assert.equal(rig.state.epoch, epoch + 1)
    }))

  it('a replica that is needed and silent for long is heard as soon as it answers', async () =>
    play(57, REGIONS, async rig => {
      const [h1, h2, h3] = rig.hosts
      await rig.create(h2, h3)
      const device = await rig.activate(h1)
      await writeBlock(device, 0, 7)
      h1.cutPower()
      h2.cutPower()
      h3.cutPower()
      h3.start()
      // What h3 has lost h2 may have.
      const activated = rig.activate(h3, 60_000)
      await rig.world.pause(20_000)
      h2.start()
      const { now } = rig.world
      await activated
      // A process that has just started owes a promise that it does not know of.
      assert.ok(rig.world.now - now <= WITHIN_MS, `it took ${(rig.world.now - now).toFixed(0)} ms`)
      assert.deepEqual([rig.isInSync(h2), rig.isInSync(h3)], [true, true])
    }))
})
