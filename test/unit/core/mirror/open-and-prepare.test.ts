import assert from 'node:assert/strict'
import { DEFAULT_TIMING } from '../../../../core/mirror/timing.ts'
import { type HostId, epoch } from '../../../../core/units.ts'
import { type Answer, closed, preparing, promised, silent, World } from './open-world.ts'
import { HOST_A, HOST_B, HOST_C, accepted, lettersOf, processOf, recordOf, replicaOn } from './samples.ts'

describe('opening a volume whose replicas need time to accept', () => {
  /** A replica that accepts from a moment on; until then it is at work, and its answer takes as long as one may. */
  const preparesUntil = (world: World, host: HostId, endsAt: number): void => {
    world.asked.set(host, () => {
      if (world.now < endsAt) world.now += DEFAULT_TIMING.callTimeoutMs / 2
      return world.now < endsAt ? preparing(host) : accepted(host)
    })
  }
  const askedOf = (world: World, host: HostId): number =>
    world.accepts.filter(accept => accept.host === host).length

  it('waits for the only one that is in-sync, with one reservation, for as long as it has time', () => {
    const world = new World(recordOf({ primary: null, replicas: 'aB' }))
    preparesUntil(world, HOST_B, 18_000)
    assert.equal(world.open().kind, 'opened')
    assert.equal(world.state.epoch, 6, 'one epoch was enough')
    assert(world.now >= 18_000 && world.now < 19_000, `it took until ${world.now}`)
  })

  it('says at its deadline what the replica is doing', () => {
    const world = new World(recordOf({ primary: null, replicas: 'aB' }))
    preparesUntil(world, HOST_B, 100_000)
    const outcome = world.open()
    assert(outcome.kind === 'deadline')
    assert.match(outcome.reason, /host b: preparing, what was written is made durable/)
    assert(world.now < world.deadline + 2000, `it took until ${world.now}`)
    assert.equal(world.state.primary, null)
  })

  it('waits a while for one that others could do without, so that it stays in-sync', () => {
    const world = closed()
    preparesUntil(world, HOST_A, 3000)
    const outcome = world.open()
    assert(outcome.kind === 'opened')
    assert.equal(lettersOf(world.state), 'AB')
    assert.deepEqual([...outcome.accepted.keys()].toSorted(), [replicaOn('a'), replicaOn('b')])
    assert.equal(askedOf(world, HOST_B), 1, 'who has accepted is not asked again')
  })

  it('leaves it behind when that takes longer than guests shall wait', () => {
    const world = closed()
    preparesUntil(world, HOST_A, 15_000)
    assert.equal(world.open().kind, 'opened')
    assert.equal(lettersOf(world.state), 'aB')
    const waited = world.now - 1000 - DEFAULT_TIMING.callTimeoutMs / 2
    assert(waited >= DEFAULT_TIMING.preparationMs, `it waited ${waited} ms`)
    assert(waited < DEFAULT_TIMING.preparationMs + DEFAULT_TIMING.callTimeoutMs, `it waited ${waited} ms`)
  })

  it('leaves it behind while there is still time to serve before the deadline', () => {
    const world = closed()
    world.deadline = 3500
    preparesUntil(world, HOST_A, 15_000)
    assert.equal(world.open().kind, 'opened')
    assert(world.now <= 3500 - DEFAULT_TIMING.callTimeoutMs / 2, `it took until ${world.now}`)
  })

  it('counts the while from when it could go on', () => {
    const world = new World(recordOf({ primary: null, replicas: 'ABC' }))
    preparesUntil(world, HOST_A, 9000)
    preparesUntil(world, HOST_B, 10_500)
    preparesUntil(world, HOST_C, 100_000)
    assert.equal(world.open().kind, 'opened')
    assert.equal(lettersOf(world.state), 'ABc')
  })

  it('does not wait a second time for a silent one that it can do without', () => {
    const world = new World(recordOf({ primary: null, replicas: 'ABC' }))
    world.answers.set(HOST_A, [silent])
    preparesUntil(world, HOST_C, 3000)
    assert.equal(world.open().kind, 'opened')
    assert.equal(lettersOf(world.state), 'aBC')
    assert(world.now < 3000 + DEFAULT_TIMING.callTimeoutMs, `it took until ${world.now}`)
  })

  it('does not wait for the silence of a dead host in between', () => {
    const world = new World(recordOf({ primary: HOST_A }))
    world.answers.set(HOST_A, [silent])
    preparesUntil(world, HOST_B, 6000)
    assert.equal(world.open().kind, 'opened')
    assert.equal(lettersOf(world.state), 'aB')
    assert(world.now < 6000 + DEFAULT_TIMING.callTimeoutMs, `it took until ${world.now}`)
  })

  it('asks a silent one again that may be needed', () => {
    const world = closed()
    world.answers.set(HOST_A, [silent, silent, accepted(HOST_A)])
    preparesUntil(world, HOST_B, 100_000)
    assert.equal(world.open().kind, 'opened')
    assert.equal(lettersOf(world.state), 'Ab')
    assert.equal(world.state.epoch, 6, 'in one attempt')
  })

  it('leaves one behind at once that falls silent while it prepares', () => {
    const world = closed()
    world.answers.set(HOST_A, [preparing(HOST_A), silent])
    assert.equal(world.open().kind, 'opened')
    assert.equal(lettersOf(world.state), 'aB')
    const once = DEFAULT_TIMING.callTimeoutMs + DEFAULT_TIMING.retryDelayMs
    assert(world.now <= 1000 + once, `it took until ${world.now}`)
  })

  it('waits for one that lost nothing beside one that lost power', () => {
    const world = closed()
    world.answers.set(HOST_B, [accepted(HOST_B, 4)])
    preparesUntil(world, HOST_A, 12_000)
    const outcome = world.open()
    assert(outcome.kind === 'opened')
    assert.equal(lettersOf(world.state), 'AB')
    assert.equal(outcome.accepted.get(replicaOn('a'))?.lostAt, null)
  })

  it('begins anew when it learns that it was overtaken', () => {
    const world = new World(recordOf({ primary: null, replicas: 'aB' }))
    const higher: Answer = { kind: 'higher-epoch', identity: processOf(HOST_B), epoch: epoch(9) }
    world.answers.set(HOST_B, [preparing(HOST_B), higher, accepted(HOST_B)])
    assert.equal(world.open().kind, 'opened')
    assert.equal(world.state.epoch, 7)
  })

  it('waits out a promise that it hears of only then', () => {
    const world = new World(recordOf({ primary: HOST_A }))
    world.answers.set(HOST_A, [silent])
    world.answers.set(HOST_B, [
      preparing(HOST_B),
      promised(1000, null),
      promised(100, null),
      accepted(HOST_B),
    ])
    assert.equal(world.open().kind, 'opened')
    assert.equal(lettersOf(world.state), 'aB')
  })

  it('does not wait for one while another one tells it that it was overtaken', () => {
    const world = closed()
    const higher: Answer = { kind: 'higher-epoch', identity: processOf(HOST_A), epoch: epoch(6) }
    world.answers.set(HOST_A, [higher, accepted(HOST_A)])
    preparesUntil(world, HOST_B, 100_000)
    assert.equal(world.open().kind, 'opened')
    assert.deepEqual([world.state.epoch, lettersOf(world.state)], [7, 'Ab'])
    assert(world.now < 6000, `it took until ${world.now}`)
  })

  it('does not wait for one while another one renews its promise to a live primary', () => {
    const world = new World(recordOf({ primary: HOST_A, replicas: 'ABC' }))
    world.answers.set(HOST_A, [silent])
    world.answers.set(HOST_B, [preparing(HOST_B), promised(3900), promised(3900)])
    preparesUntil(world, HOST_C, 100_000)
    assert.deepEqual(world.open(), { kind: 'active-elsewhere', host: HOST_A })
    assert(world.now < 6500, `it took until ${world.now}`)
  })

  it('takes nothing when it was called off while it waited', () => {
    const world = closed()
    world.asked.set(HOST_A, () => {
      world.cancelled = true
      return preparing(HOST_A)
    })
    assert.equal(world.open().kind, 'deadline')
    assert.equal(askedOf(world, HOST_A), 1)
    assert.equal(world.state.primary, null)
  })
})
