/**
 * A guest's requests wait, and the primary says what for: which host's replica, whose promise, the coordinator. An
 * administrator who reads it knows which host to start.
 */
import assert from 'node:assert/strict'
import { type Wait } from '../../core/mirror/waits.ts'
import { type SimulatedHost } from '../simulator/simulated-host.ts'
import { play, type ScenarioRig, writeBlock } from '../support/scenario-rig.ts'

const REGIONS = 8

function waits(rig: ScenarioRig, host: SimulatedHost): readonly Wait[] {
  return rig.mirror(host)?.waits() ?? []
}

/** The hosts whose replicas are waited for. */
const awaited = (rig: ScenarioRig, host: SimulatedHost): string[] =>
  waits(rig, host)
    .flatMap(wait => (wait.for === 'replica' ? [nameOf(rig, wait.host)] : []))
    .sort()

const nameOf = (rig: ScenarioRig, id: string): string => rig.hosts.find(host => host.id === id)?.name ?? id

describe('scenario: a volume says what it waits for', () => {
  it('the silent replica and the coordinator that cannot take it out, while a write waits, and nothing after', async () =>
    play(31, REGIONS, async rig => {
      const [h1, h2] = rig.hosts
      await rig.create(h1, h2)
      const device = await rig.activate(h1)
      await writeBlock(device, 0, 1)
      assert.deepEqual([rig.mirror(h1)?.phase, waits(rig, h1)], ['serving', []])

      rig.reachesCoordinator(h1, false)
      rig.network.cut(h1, h2)
      rig.network.cut(h2, h1)
      let done = false
      void writeBlock(device, 0, 2).then(() => (done = true))
      await rig.until('it waits for h2 and for the coordinator', () => {
        const [replica, record] = waits(rig, h1)
        return (
          replica?.for === 'replica' &&
          nameOf(rig, replica.host) === 'h2' &&
          /no answer/.test(replica.reason) &&
          record?.for === 'coordinator' &&
          /cannot be reached/.test(record.reason)
        )
      })
      assert.equal(rig.mirror(h1)?.phase, 'holding')

      rig.network.heal()
      await rig.until('the write is done', () => done)
      await rig.until('it waits for nothing', () => waits(rig, h1).length === 0)
      assert.equal(rig.mirror(h1)?.phase, 'serving')
    }))

  it('both replicas while their hosts are away, then the one that may hold what the other lost', async () =>
    play(32, REGIONS, async rig => {
      const [h1, h2, h3] = rig.hosts
      await rig.create(h2, h3)
      const device = await rig.activate(h1)
      await writeBlock(device, 0, 1)
      h2.cutPower()
      h3.cutPower()
      void writeBlock(device, 1, 2).catch(() => undefined)
      await rig.until('it waits for both', () => awaited(rig, h1).join() === 'h2,h3')
      h2.start()
      await rig.until('it waits for h3 alone', () => {
        const [only, ...others] = waits(rig, h1)
        return (
          others.length === 0 && only?.for === 'replica' && nameOf(rig, only.host) === 'h3' && only.othersLost
        )
      })
      h3.start()
      await rig.until('it waits for nothing', () => rig.mirror(h1)?.phase === 'serving')
      assert.deepEqual(waits(rig, h1), [])
    }))

  it('the end of the promise to a primary that has died, while another host opens the volume', async () =>
    play(33, REGIONS, async rig => {
      const [h1, h2] = rig.hosts
      await rig.create(h1, h2)
      await rig.activate(h1)
      h1.cutPower()
      const opening = rig.activate(h2)
      await rig.until('it waits for the promise to h1', () =>
        waits(rig, h2).some(
          wait => wait.for === 'end-of-promise' && wait.host === h2.id && wait.holder === h1.id
        )
      )
      await opening
      assert.deepEqual(waits(rig, h2), [])
    }))

  it('to be deactivated, on a primary that was replaced', async () =>
    play(34, REGIONS, async rig => {
      const [h1, h2, h3] = rig.hosts
      await rig.create(h1, h2)
      const device = await rig.activate(h1)
      for (const other of [h2, h3]) {
        rig.network.cut(h1, other)
        rig.network.cut(other, h1)
      }
      rig.reachesCoordinator(h1, false)
      await rig.activate(h2)
      void writeBlock(device, 0, 1)
      rig.network.heal()
      rig.reachesCoordinator(h1, true)
      await rig.until('it knows who took the volume', () => {
        const [wait] = waits(rig, h1)
        return wait?.for === 'deactivation' && wait.primary === h2.id
      })
    }))
})
