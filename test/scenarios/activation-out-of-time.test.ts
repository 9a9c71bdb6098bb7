/**
 * A host is told to activate a volume, and is not done in time. Its caller then takes the volume for not active there,
 * and so it must be, whatever the opening had reached by then: nobody may find the record naming this host for long, no
 * request of the guest may be stuck in what was opened, no restart of the process may go on with it, and a further
 * activation, here or elsewhere, works.
 */
import assert from 'node:assert/strict'
import { millis } from '../../core/units.ts'
import { type SimulatedHost } from '../simulator/simulated-host.ts'
import { nodeOf, play, readBlock, type ScenarioRig, writeBlock } from '../support/scenario-rig.ts'

const REGIONS = 8
/** Of the activation that is not done in time. Far more than one that nothing keeps waiting takes, in milliseconds. */
const DEADLINE_MS = 1_000

/** A volume on two hosts that was written and closed. */
async function createWritten(rig: ScenarioRig): Promise<void> {
  const [h1, h2, h3] = rig.hosts
  await rig.create(h2, h3)
  await writeBlock(await rig.activate(h1), 0, 1, true)
  await rig.deactivate(h1)
}

/** No session to a host's replica is opened until the returned way to let them in is called. */
function keepSessionsOut(host: SimulatedHost): () => void {
  const { replicas } = nodeOf(host)
  const openSession = replicas.openSession.bind(replicas)
  let letIn: () => void = () => undefined
  const gate = new Promise<void>(resolve => (letIn = resolve))
  replicas.openSession = async name => {
    await gate
    return openSession(name)
  }
  return () => letIn()
}

async function assertOutOfTime(rig: ScenarioRig, host: SimulatedHost): Promise<void> {
  await assert.rejects(rig.activate(host, DEADLINE_MS), { code: 'DEADLINE_EXCEEDED' })
}

/** The process is started again; what it finds in its files must not make it serve the volume. */
async function assertForgotten(rig: ScenarioRig, host: SimulatedHost): Promise<void> {
  host.crash()
  host.start()
  const { reserved } = rig.state
  await rig.world.pause(10_000)
  assert.equal(rig.state.primary, null)
  assert.deepEqual(rig.state.reserved, reserved, 'it was not opened again')
}

/** The process is started again, with the coordinator back: it gives the volume up, and another host can have it. */
async function assertGivenBack(rig: ScenarioRig, host: SimulatedHost, other: SimulatedHost): Promise<void> {
  host.crash()
  host.start()
  rig.reachesCoordinator(host, true)
  await rig.until('nobody has the volume', () => rig.state.primary === null)
  await rig.world.pause(10_000)
  assert.equal(rig.state.primary, null)
  assert.equal(await readBlock(await rig.activate(other), 0), 1)
}

describe('scenario: an activation runs out of its time', () => {
  it('while no replica accepts: nothing is left of it', async () =>
    play(1, REGIONS, async rig => {
      const [h1, h2, h3] = rig.hosts
      await createWritten(rig)
      for (const host of [h2, h3]) rig.network.cut(host, h1)
      await assertOutOfTime(rig, h1)
      await rig.until('the attempt has ended', () => rig.mirror(h1) === null)
      assert.equal(rig.state.primary, null)
      rig.network.heal()
      assert.equal(await readBlock(await rig.activate(h1), 0), 1)
      await rig.deactivate(h1)
      await assertForgotten(rig, h1)
    }))

  it('after it took the volume: the right is given back, and a second activation works', async () =>
    play(2, REGIONS, async rig => {
      const [h1, h2, h3] = rig.hosts
      await createWritten(rig)
      const letIn = [h2, h3].map(keepSessionsOut)
      await assertOutOfTime(rig, h1)
      await rig.until('nobody has the volume', () => rig.state.primary === null)
      await rig.until('it is closed', () => rig.mirror(h1) === null)
      for (const open of letIn) open()
      const device = await rig.activate(h1)
      assert.equal(await readBlock(device, 0), 1)
      await writeBlock(device, 0, 2, true)
      assert.equal(rig.allInSync, true)
    }))

  it('after it took the volume: another host gets it at once', async () =>
    play(3, REGIONS, async rig => {
      const [h1, h2, h3, h4] = rig.hosts
      await createWritten(rig)
      const letIn = [h2, h3].map(keepSessionsOut)
      await assertOutOfTime(rig, h1)
      await rig.until('nobody has the volume', () => rig.state.primary === null)
      for (const open of letIn) open()
      const askedAt = rig.world.now
      assert.equal(await readBlock(await rig.activate(h4), 0), 1)
      assert.ok(rig.world.now - askedAt < DEADLINE_MS)
    }))

  it('after it took the volume: a request that waited meanwhile is answered by the second activation', async () =>
    play(4, REGIONS, async rig => {
      const [h1, h2, h3] = rig.hosts
      await createWritten(rig)
      const node = nodeOf(h1)
      await node.detach(rig.volume)
      const device = await node.attach(rig.sr, rig.volume)
      let seen: number | null = null
      void readBlock(device, 0).then(value => (seen = value))
      const letIn = [h2, h3].map(keepSessionsOut)
      const activation = node.activate(rig.sr, rig.volume, millis(DEADLINE_MS))
      await assert.rejects(activation, { code: 'DEADLINE_EXCEEDED' })
      await rig.until('it is closed', () => rig.mirror(h1) === null)
      for (const open of letIn) open()
      await node.activate(rig.sr, rig.volume, millis(9_000))
      await rig.until('the request is answered', () => seen !== null)
      assert.equal(seen, 1)
    }))

  it('after it took the volume: a process that is started again does not go on with it', async () =>
    play(5, REGIONS, async rig => {
      const [h1, h2, h3] = rig.hosts
      await createWritten(rig)
      const letIn = [h2, h3].map(keepSessionsOut)
      await assertOutOfTime(rig, h1)
      await rig.until('it is closed', () => rig.mirror(h1) === null)
      for (const open of letIn) open()
      await assertForgotten(rig, h1)
    }))

  it('after it took the volume and lost the coordinator: the right is given back when it is there again', async () =>
    play(6, REGIONS, async rig => {
      const [h1, h2, h3, h4] = rig.hosts
      await createWritten(rig)
      const letIn = [h2, h3].map(keepSessionsOut)
      const activation = assertOutOfTime(rig, h1)
      await rig.until('it took the volume', () => rig.isPrimary(h1))
      rig.reachesCoordinator(h1, false)
      await activation
      for (const open of letIn) open()
      await rig.world.pause(20_000)
      assert.equal(rig.isPrimary(h1), true)
      await assert.rejects(rig.activate(h4), { code: 'ACTIVATED_ON_ANOTHER_HOST' })
      rig.reachesCoordinator(h1, true)
      await rig.until('nobody has the volume', () => rig.state.primary === null)
      await rig.until('it is closed', () => rig.mirror(h1) === null)
      assert.equal(await readBlock(await rig.activate(h1), 0), 1)
    }))

  for (const laterMs of [100, 20_000]) {
    it(`after it took the volume and lost the coordinator: a process that starts ${laterMs} ms later gives it back`, async () =>
      play(7, REGIONS, async rig => {
        const [h1, h2, h3, h4] = rig.hosts
        await createWritten(rig)
        const letIn = [h2, h3].map(keepSessionsOut)
        const activation = assertOutOfTime(rig, h1)
        await rig.until('it took the volume', () => rig.isPrimary(h1))
        rig.reachesCoordinator(h1, false)
        await activation
        for (const open of letIn) open()
        await rig.world.pause(laterMs)
        await assertGivenBack(rig, h1, h4)
      }))
  }

  it('while it waits for an earlier deactivation: it does not begin later', async () =>
    play(8, REGIONS, async rig => {
      const [h1] = rig.hosts
      await createWritten(rig)
      await rig.activate(h1)
      rig.reachesCoordinator(h1, false)
      const deactivation = rig.deactivate(h1, 20_000)
      const node = nodeOf(h1)
      const activation = node.activate(rig.sr, rig.volume, millis(DEADLINE_MS))
      await assert.rejects(activation, { code: 'DEADLINE_EXCEEDED' })
      const { reserved } = rig.state
      rig.reachesCoordinator(h1, true)
      await deactivation
      await rig.world.pause(10_000)
      assert.equal(rig.state.primary, null)
      assert.deepEqual(rig.state.reserved, reserved, 'it was not opened again')
    }))
})

describe('scenario: a deactivation has to wait', () => {
  it('for the coordinator: a process that starts meanwhile gives the volume back', async () =>
    play(9, REGIONS, async rig => {
      const [h1, , , h4] = rig.hosts
      await createWritten(rig)
      await rig.activate(h1)
      rig.reachesCoordinator(h1, false)
      await assert.rejects(rig.deactivate(h1, DEADLINE_MS), { code: 'DEADLINE_EXCEEDED' })
      await assertGivenBack(rig, h1, h4)
    }))

  it('for an activation whose turn has not come: it has the last word', async () =>
    play(10, REGIONS, async rig => {
      const [h1] = rig.hosts
      await createWritten(rig)
      await rig.activate(h1)
      rig.reachesCoordinator(h1, false)
      const first = rig.deactivate(h1, 20_000)
      const activation = nodeOf(h1).activate(rig.sr, rig.volume, millis(20_000))
      const second = rig.deactivate(h1, 20_000)
      await rig.world.pause(DEADLINE_MS)
      rig.reachesCoordinator(h1, true)
      await Promise.all([first, activation, second])
      assert.equal(rig.state.primary, null)
      await assertForgotten(rig, h1)
    }))
})

describe('scenario: what is asked for next does not wait for an activation to be taken back', () => {
  it('a second activation at once has the last word', async () =>
    play(11, REGIONS, async rig => {
      const [h1, h2, h3] = rig.hosts
      await createWritten(rig)
      for (const host of [h2, h3]) rig.network.cut(host, h1)
      await assertOutOfTime(rig, h1)
      const { device } = nodeOf(h1).volume(rig.volume)!
      const second = nodeOf(h1).activate(rig.sr, rig.volume, millis(9_000))
      rig.network.heal()
      await second
      await rig.world.pause(20_000)
      assert.equal(rig.isPrimary(h1), true)
      assert.equal(await readBlock(device!, 0), 1)
      h1.crash()
      h1.start()
      await rig.until('the process that follows serves it', () => rig.mirror(h1)?.phase === 'serving')
    }))

  it('a device that is detached and attached meanwhile is the one that is served', async () =>
    play(12, REGIONS, async rig => {
      const [h1, h2, h3] = rig.hosts
      await createWritten(rig)
      for (const host of [h2, h3]) rig.network.cut(host, h1)
      await assertOutOfTime(rig, h1)
      const node = nodeOf(h1)
      const detached = node.detach(rig.volume)
      const attached = node.attach(rig.sr, rig.volume)
      rig.network.heal()
      await detached
      const device = await attached
      await node.activate(rig.sr, rig.volume, millis(9_000))
      assert.equal(node.volume(rig.volume)?.device, device)
      assert.equal(await readBlock(device, 0), 1)
    }))
})

describe('scenario: a host cannot note what it has', () => {
  it('an activation fails, and nothing is left of it', async () =>
    play(13, REGIONS, async rig => {
      const [h1, , , h4] = rig.hosts
      await createWritten(rig)
      const node = nodeOf(h1)
      await node.attach(rig.sr, rig.volume)
      h1.cannotNote = true
      await assert.rejects(node.activate(rig.sr, rig.volume, millis(9_000)), { code: 'ENOSPC' })
      await rig.until('it is closed', () => rig.mirror(h1) === null)
      assert.equal(await readBlock(await rig.activate(h4), 0), 1)
    }))

  it('a volume that is active already stays so', async () =>
    play(14, REGIONS, async rig => {
      const [h1] = rig.hosts
      await createWritten(rig)
      const device = await rig.activate(h1)
      h1.cannotNote = true
      await nodeOf(h1).activate(rig.sr, rig.volume, millis(9_000))
      assert.equal(await readBlock(device, 0), 1)
    }))

  it('an attachment fails, and is noted when it is asked for again', async () =>
    play(15, REGIONS, async rig => {
      const [h1] = rig.hosts
      await createWritten(rig)
      await nodeOf(h1).detach(rig.volume)
      h1.cannotNote = true
      await assert.rejects(nodeOf(h1).attach(rig.sr, rig.volume), { code: 'ENOSPC' })
      h1.cannotNote = false
      await nodeOf(h1).attach(rig.sr, rig.volume)
      h1.crash()
      h1.start()
      await rig.until('it is attached again', () => nodeOf(h1).volume(rig.volume)?.device != null)
    }))
})
