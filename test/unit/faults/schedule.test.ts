import assert from 'node:assert/strict'
import { FAULT_KINDS, type FaultKind, kindOf } from '../../faults/soak/fault-kinds.ts'
import { drawSchedule, parseSchedule } from '../../faults/soak/schedule.ts'

const SEEDS = Array.from({ length: 50 }, (_, seed) => seed)

describe('the schedule of a soak', () => {
  it('is the same for the same seed, another one for another, and the same when it is read again', () => {
    for (const seed of SEEDS) {
      const schedule = drawSchedule(seed, 3)
      assert.deepEqual(drawSchedule(seed, 3), schedule)
      assert.notDeepEqual(drawSchedule(seed + 1, 3), schedule)
      assert.deepEqual(parseSchedule(JSON.stringify(schedule)), schedule)
    }
  })

  it('has every kind of fault, lab and guest among a few seeds', () => {
    const schedules = SEEDS.map(seed => drawSchedule(seed, 10))
    const values = <T>(of: (schedule: (typeof schedules)[number]) => readonly T[]): T[] =>
      [...new Set(schedules.flatMap(of))].sort()
    assert.deepEqual(
      values(({ episodes }) => episodes.flatMap(({ faults }) => faults.map(({ kind }) => kind))),
      Object.keys(FAULT_KINDS).sort()
    )
    assert.deepEqual(
      values(({ hosts }) => [hosts]),
      [3, 4, 5]
    )
    assert.deepEqual(
      values(({ copies }) => [copies]),
      [2, 3]
    )
    for (const { volumes, powerCuts, hosts, episodes } of schedules) {
      assert.deepEqual([...new Set(volumes.map(({ guest }) => guest))].sort(), ['foreign', 'load'])
      assert.ok(volumes.some(({ flushEvery }) => flushEvery === 0))
      assert.ok(powerCuts.every(name => Number(name.slice(1)) <= hosts))
      assert.ok(episodes.every(({ faults }) => faults.every(({ lastsMs }) => lastsMs <= 30_000)))
      assert.ok(episodes.some(({ faults }) => faults.length === 1))
    }
    assert.ok(schedules.some(({ powerCuts, hosts }) => powerCuts.length === hosts))
    assert.ok(schedules.some(({ powerCuts, hosts }) => powerCuts.length < hosts))
  })

  it('hits everything at once only alone, or first', () => {
    for (const { faults } of SEEDS.flatMap(seed => drawSchedule(seed, 10).episodes)) {
      assert.ok(faults.slice(1).every(({ kind }) => !kindOf(kind).ofAll))
    }
  })

  it('draws only from the kinds that are asked for', () => {
    const only: FaultKind[] = ['all killed']
    const kinds = drawSchedule(1, 10, only).episodes.flatMap(({ faults }) => faults.map(({ kind }) => kind))
    assert.deepEqual([...new Set(kinds)], only)
  })

  it('refuses a file that somebody has changed into nonsense', () => {
    const schedule = drawSchedule(1, 1)
    assert.throws(() => parseSchedule(JSON.stringify({ ...schedule, hosts: 99 })), /hosts/)
  })
})
