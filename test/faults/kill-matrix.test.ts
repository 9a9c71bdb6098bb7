import assert from 'node:assert/strict'
import { runActivationRace } from './activation-race.ts'
import { failed, runKillMatrix } from './kill-matrix.ts'
import { KILL_KINDS } from './matrix/kill-kinds.ts'
import { WRITES_IN_FLIGHT_MIN } from './matrix/round.ts'

/** The short forms; `npm run kill-matrix` and `npm run activation-race` are the long ones. */
describe('a pool under verified load', function () {
  this.timeout(400_000)

  it('loses nothing when each kind of process and host is killed once', async () => {
    const results = await runKillMatrix({
      rounds: 1,
      kinds: KILL_KINDS,
      keep: false,
      progress: () => undefined,
    })
    assert.deepEqual(
      results.filter(failed).map(({ kind, rounds, faults, plantedFound }) => ({
        kind: kind.name,
        faults: [...rounds.flatMap(round => round.faults), ...faults],
        plantedFound,
      })),
      []
    )
    for (const { rounds } of results) {
      for (const { writesInFlight } of rounds) assert.ok(writesInFlight >= WRITES_IN_FLIGHT_MIN)
    }
  })

  it('never has two winners when hosts activate one volume at the same instant', async () => {
    const rounds = await runActivationRace({ rounds: 12, paused: 1, progress: () => undefined })
    assert.deepEqual(
      rounds.filter(({ fault }) => fault !== null).map(({ fault }) => fault),
      []
    )
  })
})
