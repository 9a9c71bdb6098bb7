import assert from 'node:assert/strict'
import { obstacleToTake } from '../../../../core/mirror/open-procedure.ts'
import { changeMembership, reserveEpoch } from '../../../../core/mirror/volume-change.ts'
import { type HostId, epoch } from '../../../../core/units.ts'
import { type Answer, closed, gone, promised, silent, World } from './open-world.ts'
import { HOST_A, HOST_B, HOST_C, accepted, lettersOf, processOf, recordOf, replicaOn } from './samples.ts'

describe('opening a volume', () => {
  it('reserves, asks every in-sync replica, and takes: two round trips of each kind', () => {
    const world = closed()
    const outcome = world.open()
    assert(outcome.kind === 'opened')
    assert.deepEqual(world.order, ['read-record', 'swap-record', 'accept', 'accept', 'swap-record'])
    assert.deepEqual([world.state.primary, world.state.epoch, world.state.reserved.epoch], [HOST_B, 6, 6])
    assert.deepEqual([...outcome.accepted.keys()], [replicaOn('a'), replicaOn('b')])
    assert.deepEqual([outcome.keeper.state, outcome.keeper.revision], [world.state, 3])
  })

  it('goes on for a guest from before only if nobody else had the volume since', () => {
    for (const [primary, reserver, expected] of [
      [HOST_B, HOST_B, 'opened'],
      [HOST_B, HOST_A, 'opened'],
      [null, HOST_B, 'opened'],
      [null, HOST_A, 'active-elsewhere'],
      [HOST_A, HOST_A, 'active-elsewhere'],
    ] as const) {
      const record = recordOf({ primary })
      const world = new World({ ...record, reserved: { ...record.reserved, host: reserver } })
      world.resumes = true
      assert.equal(world.open().kind, expected, `primary ${String(primary)}, last reserved by ${reserver}`)
    }
  })

  it('asks no stale replica', () => {
    const world = new World(recordOf({ primary: null, replicas: 'aB' }))
    assert.equal(world.open().kind, 'opened')
    assert.deepEqual(
      world.accepts.map(({ host }) => host),
      [HOST_B]
    )
  })

  it('goes on without a replica that is silent, which is in-sync no longer', () => {
    const world = closed()
    world.answers.set(HOST_A, [silent])
    const outcome = world.open()
    assert(outcome.kind === 'opened')
    assert.equal(lettersOf(world.state), 'aB')
    assert.deepEqual([...outcome.accepted.keys()], [replicaOn('b')])
  })

  it('says that every promise is void after a clean close, and after an own earlier process', () => {
    for (const primary of [null, HOST_B]) {
      const world = new World(recordOf({ primary, epoch: 5, reserved: 8 }))
      world.open()
      assert(world.accepts.every(({ epoch: at, voidUpTo }) => at === 9 && voidUpTo === 8))
    }
  })

  it('voids no promise while the record names another host: it may be of an epoch before the last raise', () => {
    const world = new World(recordOf({ primary: HOST_A, epoch: 5, reserved: 8 }))
    world.open()
    assert(world.accepts.every(({ voidUpTo }) => voidUpTo === 0))
  })

  it('ends at once when the volume is missing, or being created or deleted', () => {
    const missing = closed()
    missing.read = () => ({ kind: 'missing' })
    assert.deepEqual(missing.open(), { kind: 'missing' })

    const doomed = closed()
    doomed.state = { ...doomed.state, operation: { kind: 'deleting', host: HOST_A, id: 'x' } }
    assert.equal(doomed.open().kind, 'refused')
    assert.deepEqual(doomed.order, ['read-record'])
  })

  it('ends when the volume begins to be deleted, or is gone, while it reserves', () => {
    const doomed = closed()
    doomed.swap = () => {
      doomed.state = { ...doomed.state, operation: { kind: 'deleting', host: HOST_A, id: 'x' } }
      return doomed.conflict()
    }
    assert.equal(doomed.open().kind, 'refused')

    const missing = closed()
    missing.swap = () => ({ kind: 'missing' })
    assert.deepEqual(missing.open(), { kind: 'missing' })
  })

  it('for maintenance leaves a volume alone that another host has open', () => {
    const world = new World(recordOf({ primary: HOST_A }))
    world.purpose = 'maintenance'
    assert.deepEqual(world.open(), { kind: 'active-elsewhere', host: HOST_A })
    assert.deepEqual(world.order, ['read-record'])
  })

  it('for maintenance takes a closed volume, and one that its own host had open', () => {
    for (const primary of [null, HOST_B]) {
      const world = new World(recordOf({ primary }))
      world.purpose = 'maintenance'
      assert.equal(world.open().kind, 'opened')
    }
  })

  it('knows its reservation again when the answer was lost', () => {
    const world = closed()
    world.swap = (next, count) => {
      const answer = world.commit(next)
      return count === 0 ? { kind: 'unknown', reason: '' } : answer
    }
    assert.equal(world.open().kind, 'opened')
    assert.equal(world.state.epoch, 6, 'one epoch was enough')
  })

  it('has the volume when the answer to the last step was lost', () => {
    const world = closed()
    world.swap = (next, count) => {
      const answer = world.commit(next)
      return count === 1 ? { kind: 'unknown', reason: '' } : answer
    }
    const outcome = world.open()
    assert(outcome.kind === 'opened')
    assert.deepEqual([outcome.keeper.state.primary, outcome.keeper.unsettled], [HOST_B, false])
  })
})

describe('opening a volume while another host may be its primary', () => {
  const open = (): World => new World(recordOf({ primary: HOST_A }))

  /** A replica whose promise ends at a moment of the contender's clock. */
  const owesUntil = (world: World, host: HostId, endsAt: number): void => {
    world.asked.set(host, () => (world.now < endsAt ? promised(endsAt - world.now) : accepted(host)))
  }

  it('ends soon when the promise is renewed meanwhile: its primary lives', () => {
    const world = open()
    world.answers.set(HOST_B, [promised(3900), promised(3800)])
    assert.deepEqual(world.open(), { kind: 'active-elsewhere', host: HOST_A })
    assert.equal(world.now, 1900, 'after three heartbeats')
    assert.equal(world.state.primary, HOST_A)
  })

  it('waits a promise out that is not renewed, however fresh it was, and takes the volume of a dead primary', () => {
    const world = open()
    world.answers.set(HOST_A, [silent])
    owesUntil(world, HOST_B, 4900)
    assert.equal(world.open().kind, 'opened')
    assert.equal(world.now, 4900)
    assert.equal(lettersOf(world.state), 'aB')
  })

  it('is not put off by the last moment of a promise on a clock that goes slower than its own', () => {
    const world = open()
    world.answers.set(HOST_A, [silent])
    world.answers.set(HOST_B, [promised(1200), promised(309), promised(9), promised(1), accepted(HOST_B)])
    assert.equal(world.open().kind, 'opened')
  })

  it('waits for the longest of several promises', () => {
    const world = new World(recordOf({ primary: HOST_A, replicas: 'ABC' }))
    owesUntil(world, HOST_A, 1500)
    owesUntil(world, HOST_B, 3000)
    owesUntil(world, HOST_C, 2000)
    assert.equal(world.open().kind, 'opened')
    assert.equal(world.now, 3000)
  })

  it('ends without waiting when the promise lasts longer than the deadline allows', () => {
    const world = open()
    world.deadline = 2000
    world.answers.set(HOST_B, [promised(2000)])
    assert.deepEqual(world.open(), { kind: 'active-elsewhere', host: HOST_A })
    assert.equal(world.now, 1000)
  })

  it('for maintenance does not wait for any promise', () => {
    const world = new World(recordOf({ primary: null }))
    world.purpose = 'maintenance'
    world.answers.set(HOST_B, [promised(300, HOST_C)])
    assert.deepEqual(world.open(), { kind: 'active-elsewhere', host: HOST_C })
    assert.equal(world.now, 1000)
  })

  it('names the primary of the record when the replica does not know to whom it owes the promise', () => {
    const world = open()
    world.answers.set(HOST_B, [promised(3900, null), promised(3900, null)])
    assert.deepEqual(world.open(), { kind: 'active-elsewhere', host: HOST_A })
  })

  it('never takes the volume over one promise, even if all other replicas accepted', () => {
    const world = new World(recordOf({ primary: HOST_A, replicas: 'ABC' }))
    world.answers.set(HOST_C, [promised(3900)])
    assert.equal(world.open().kind, 'active-elsewhere')
    assert.equal(world.state.primary, HOST_A)
  })

  it('waits until a replica that was started anew is certain to owe nothing', () => {
    const world = open()
    world.answers.set(HOST_A, [silent])
    world.answers.set(HOST_B, [promised(1000, null), promised(100, null), accepted(HOST_B)])
    assert.equal(world.open().kind, 'opened')
    assert.equal(world.state.epoch, 6)
  })

  it('reserves again when another contender overtook it, and ends at the deadline', () => {
    const world = open()
    world.swap = next => {
      const answer = world.commit(next)
      // After each reservation somebody else makes a higher one.
      world.state = reserveEpoch(world.state, HOST_C, 'theirs')
      world.revision++
      return answer
    }
    const outcome = world.open()
    assert.deepEqual(outcome, { kind: 'deadline', reason: 'another host reserved a higher epoch' })
    assert.equal(world.state.primary, HOST_A)
    assert(world.now >= world.deadline)
  })

  it('weighs its answers against the membership at the moment of taking', () => {
    const world = new World(recordOf({ primary: HOST_A, replicas: 'AB' }))
    world.answers.set(HOST_B, [accepted(HOST_B), silent])
    world.answers.set(HOST_A, [silent])
    // The primary takes replica b out, which raises the epoch above the reservation.
    world.swap = (next, count) => {
      const answer = world.commit(next)
      if (count !== 0) return answer
      world.state = changeMembership(world.state, HOST_A, epoch(5), 'out', ({ host }) => host === HOST_A)!
      world.revision++
      return answer
    }
    assert.equal(world.open().kind, 'deadline')
    assert.deepEqual([world.state.primary, lettersOf(world.state)], [HOST_A, 'Ab'])
  })
})

describe('opening a volume in bad times', () => {
  it('goes on trying while the coordinator is away, and says so at the deadline', () => {
    const world = closed()
    world.read = () => ({ kind: 'unavailable', reason: 'no leader' })
    assert.deepEqual(world.open(), { kind: 'deadline', reason: 'no leader' })
    const again = closed()
    again.swap = () => ({ kind: 'unavailable', reason: 'no quorum' })
    assert.deepEqual(again.open(), { kind: 'deadline', reason: 'no quorum' })
  })

  it('waits longer and longer between tries, sixteen times the first pause at most', () => {
    const world = closed()
    const tries: number[] = []
    world.read = () => {
      tries.push(world.now)
      return { kind: 'unavailable', reason: '' }
    }
    world.open()
    const gaps = tries.slice(1).map((at, index) => at - tries[index]!)
    assert.deepEqual(gaps.slice(0, 6), [100, 200, 400, 800, 800, 800])
  })

  it('ends when the attempt is called off', () => {
    const world = closed()
    world.cancelled = true
    assert.equal(world.open().kind, 'deadline')
    assert.deepEqual(world.order, [])
  })

  it('does not begin again after it was called off while the coordinator is away', () => {
    const world = closed()
    world.swap = (next, count) => {
      if (count === 0) return world.commit(next)
      world.cancelled = true
      return { kind: 'unavailable', reason: '' }
    }
    assert.equal(world.open().kind, 'deadline')
    assert.equal(world.state.primary, null)
  })

  it('names what each replica said when none accepts', () => {
    const world = closed()
    world.answers.set(HOST_A, [silent])
    world.answers.set(HOST_B, [gone(HOST_B)])
    const outcome = world.open()
    assert(outcome.kind === 'deadline')
    assert.match(outcome.reason, /host a: silent, no answer; host b: gone, no files/)
    assert.equal(world.state.primary, null)
  })
})

describe('whether the answers are enough to take a volume', () => {
  const obstacle = (replicas: string, answers: Record<string, Answer>): string | null =>
    obstacleToTake(
      recordOf({ replicas }),
      new Map(Object.entries(answers).map(([letter, answer]) => [replicaOn(letter), answer]))
    )
  const lost = accepted(HOST_A, 4)

  it('one whole in-sync replica is enough', () => {
    assert.equal(obstacle('ABC', { a: accepted(HOST_A), b: silent, c: silent }), null)
  })

  it('a stale one that accepted is not', () => {
    assert.match(obstacle('Ab', { a: silent, b: accepted(HOST_B) })!, /no in-sync replica accepted/)
  })

  it('one that was not asked counts as one that did not accept', () => {
    assert.match(obstacle('AB', {})!, /host a: not asked, .*; host b: not asked, /)
  })

  it('a higher epoch anywhere means that somebody else is ahead', () => {
    const higher: Answer = { kind: 'higher-epoch', identity: processOf(HOST_B), epoch: epoch(9) }
    assert.match(obstacle('AB', { a: accepted(HOST_A), b: higher })!, /higher epoch/)
  })

  it('those that lost power wait for a silent one, which may hold what they lost', () => {
    assert.match(obstacle('AB', { a: lost, b: silent })!, /may hold writes that they lost/)
    assert.match(obstacle('ABC', { a: lost, b: lost, c: silent })!, /may hold writes/)
    const failed: Answer = { kind: 'failed', identity: processOf(HOST_B), reason: 'disk' }
    assert.match(obstacle('AB', { a: lost, b: failed })!, /may hold writes/)
  })

  it('those that lost power need not wait for one that is gone, nor for a stale one', () => {
    assert.equal(obstacle('AB', { a: lost, b: gone(HOST_B) }), null)
    assert.equal(obstacle('Ab', { a: lost }), null)
  })

  it('all of them together are enough, even if all lost power', () => {
    assert.equal(obstacle('AB', { a: lost, b: lost }), null)
  })

  it('one that lost nothing is enough beside others that did', () => {
    assert.equal(obstacle('ABC', { a: lost, b: accepted(HOST_B), c: silent }), null)
  })
})
