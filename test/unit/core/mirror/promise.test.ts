import assert from 'node:assert/strict'
import { type PeerPulse, PromiseGiver, promiseUntil } from '../../../../core/mirror/promise.ts'
import { type Incarnation } from '../../../../core/units.ts'
import { ms } from './samples.ts'

const PROMISE_MS = 4000
const PRIMARY = 'the primary' as Incarnation
const REPLICA = 'the replica' as Incarnation

describe('a replica that gives promises', () => {
  let giver: PromiseGiver
  beforeEach(() => (giver = new PromiseGiver(ms(PROMISE_MS))))

  it('does not renew on the first heartbeat of a process, which can echo nothing', () => {
    const { renewed } = giver.heartbeat(PRIMARY, 0, ms(100))
    assert.equal(renewed, false)
    assert.equal(giver.renewedAt(PRIMARY), null)
  })

  it('renews when a heartbeat echoes its last answer', () => {
    const { answer } = giver.heartbeat(PRIMARY, 0, ms(100))
    assert.equal(giver.heartbeat(PRIMARY, answer, ms(400)).renewed, true)
    assert.equal(giver.renewedAt(PRIMARY), 400)
  })

  it('renews from moment zero of its clock', () => {
    const { answer } = giver.heartbeat(PRIMARY, 0, ms(0))
    giver.heartbeat(PRIMARY, answer, ms(0))
    assert.equal(giver.renewedAt(PRIMARY), 0)
  })

  it('stops renewing when the link is cut in the direction of its answers', () => {
    const { answer } = giver.heartbeat(PRIMARY, 0, ms(0))
    let last = 0
    // The primary goes on sending, and goes on echoing the last answer that reached it.
    for (let now = 300; now < 20_000; now += 300)
      if (giver.heartbeat(PRIMARY, answer, ms(now)).renewed) last = now
    assert(last <= PROMISE_MS, `still renewed ${last} ms after the last answer that arrived`)
    assert.equal(giver.renewedAt(PRIMARY), last)
  })

  it('does not renew for an answer that is older than the promise time, even if it was the last one', () => {
    const { answer } = giver.heartbeat(PRIMARY, 0, ms(0))
    assert.equal(giver.heartbeat(PRIMARY, answer, ms(PROMISE_MS + 1)).renewed, false)
  })

  it('renews for an echo of some answers ago, because answers may be under way', () => {
    const { answer } = giver.heartbeat(PRIMARY, 0, ms(0))
    for (let i = 1; i <= 5; i++) giver.heartbeat(PRIMARY, 0, ms(i))
    assert.equal(giver.heartbeat(PRIMARY, answer, ms(10)).renewed, true)
  })

  it('does not renew for an answer that it gave to another process', () => {
    const { answer } = giver.heartbeat('somebody else' as Incarnation, 0, ms(0))
    assert.equal(giver.heartbeat(PRIMARY, answer, ms(1)).renewed, false)
    assert.equal(giver.renewedAt(PRIMARY), null)
  })

  it('does not renew for a number that it has not given yet', () => {
    const { answer } = giver.heartbeat(PRIMARY, 0, ms(0))
    assert.equal(giver.heartbeat(PRIMARY, answer + 1, ms(1)).renewed, false)
  })

  it('never gives one number to two answers', () => {
    const others = ['x', 'y', 'x', 'z', 'x'].map(
      name => giver.heartbeat(name as Incarnation, 0, ms(0)).answer
    )
    assert.deepEqual(others, [...new Set(others)])
    assert(!others.includes(0), '0 stands for no answer at all')
  })

  it('tells a process with its next answer that something was taken away from it, and tells nobody else', () => {
    const other = 'somebody else' as Incarnation
    const before = giver.heartbeat(PRIMARY, 0, ms(0)).takenAway
    const others = giver.heartbeat(other, 0, ms(0)).takenAway
    giver.takeAwayFrom(PRIMARY)
    assert.equal(giver.heartbeat(PRIMARY, 0, ms(2)).takenAway, before + 1)
    assert.equal(giver.takenAwayFrom(PRIMARY), before + 1)
    assert.equal(giver.takenAwayFrom(other), others)
    assert.equal(giver.heartbeat(other, 0, ms(2)).takenAway, others)
  })

  it('remembers what it took from a process that has not sent a heartbeat yet', () => {
    giver.takeAwayFrom(PRIMARY)
    assert.equal(giver.heartbeat(PRIMARY, 0, ms(1)).takenAway, 1)
    assert.equal(giver.renewedAt(PRIMARY), null)
  })

  it('forgets processes that have long been silent when there are very many, and none that it owes something', () => {
    const { answer } = giver.heartbeat(PRIMARY, 0, ms(0))
    const first = giver.heartbeat(REPLICA, 0, ms(0)).takenAway
    giver.takeAwayFrom(REPLICA)
    giver.heartbeat(PRIMARY, answer, ms(PROMISE_MS))
    const owing = PROMISE_MS + PROMISE_MS / 2
    for (let i = 0; i < 1100; i++) giver.heartbeat(`run ${i}` as Incarnation, 0, ms(owing))
    assert.equal(giver.renewedAt(PRIMARY), PROMISE_MS)
    for (let i = 0; i < 3; i++) giver.heartbeat(`late run ${i}` as Incarnation, 0, ms(20 * PROMISE_MS))
    assert.equal(giver.renewedAt(PRIMARY), null)
    assert.notEqual(
      giver.takenAwayFrom(REPLICA),
      first,
      'what was taken is not forgotten with who it was taken from'
    )
  })
})

describe('a replica that very many processes ask for promises', () => {
  let giver: PromiseGiver
  beforeEach(() => (giver = new PromiseGiver(ms(PROMISE_MS))))

  const nameOf = (index: number): Incarnation => `run ${index}` as Incarnation
  /** How many of the processes have their promises renewed by a second heartbeat at a moment. */
  const renewedAmong = (from: number, to: number, at: number): number => {
    let renewed = 0
    for (let index = from; index < to; index++) {
      const { answer } = giver.heartbeat(nameOf(index), 0, ms(at))
      if (giver.heartbeat(nameOf(index), answer, ms(at)).renewed) renewed++
    }
    return renewed
  }

  it('has room for a thousand that live, and renews nothing for the others', () => {
    assert.equal(renewedAmong(0, 1024, 100), 1024)
    assert.equal(renewedAmong(1024, 5000, 100), 0)
    assert.equal(giver.renewedAt(nameOf(4000)), null)
  })

  it('never forgets one that it owes something for a new one', () => {
    assert.equal(renewedAmong(0, 1024, 100), 1024)
    renewedAmong(1024, 5000, 100 + PROMISE_MS)
    for (let index = 0; index < 1024; index++) assert.equal(giver.renewedAt(nameOf(index)), 100)
  })

  it('has room again as soon as nothing is owed any more', () => {
    assert.equal(renewedAmong(0, 1024, 100), 1024)
    assert.equal(renewedAmong(1024, 2048, 100 + PROMISE_MS + 1), 1024)
  })

  it('tells one that it has no room for when something was taken from it', () => {
    renewedAmong(0, 1024, 100)
    const before = giver.heartbeat(PRIMARY, 0, ms(101)).takenAway
    assert.equal(giver.takenAwayFrom(PRIMARY), before)
    giver.takeAwayFrom(PRIMARY)
    assert.notEqual(giver.heartbeat(PRIMARY, 0, ms(102)).takenAway, before)
    assert.notEqual(giver.takenAwayFrom(PRIMARY), before)
  })
})

describe('a primary that relies on a promise', () => {
  const confirmation = { incarnation: REPLICA, sentAt: ms(1000), takenAway: 2 }
  const pulse: PeerPulse = { incarnation: REPLICA, renewedSentAt: ms(9000), takenAway: 2 }
  const until = (changed: Partial<PeerPulse>): number =>
    promiseUntil(confirmation, { ...pulse, ...changed }, ms(PROMISE_MS))

  it('counts from when it sent the heartbeat, for less than the promise time', () => {
    assert.equal(until({}), 9000 + 0.8 * PROMISE_MS)
  })

  it('counts from when it sent the confirmation while no later heartbeat was answered', () => {
    assert.equal(until({ renewedSentAt: ms(-1) }), 1000 + 0.8 * PROMISE_MS)
  })

  it('does not count heartbeats that another process of that host answered', () => {
    assert.equal(until({ incarnation: 'its successor' as Incarnation }), 1000 + 0.8 * PROMISE_MS)
    assert.equal(until({ incarnation: null }), 1000 + 0.8 * PROMISE_MS)
  })

  it('does not count heartbeats once the replica has taken something away, until it has confirmed anew', () => {
    assert.equal(until({ takenAway: 3 }), 1000 + 0.8 * PROMISE_MS)
    const anew = { ...confirmation, sentAt: ms(9500), takenAway: 3 }
    assert.equal(promiseUntil(anew, { ...pulse, takenAway: 3 }, ms(PROMISE_MS)), 9500 + 0.8 * PROMISE_MS)
  })

  it('does not count an answer from before the confirmation that says less was taken away', () => {
    assert.equal(until({ takenAway: 1 }), 1000 + 0.8 * PROMISE_MS)
  })
})
