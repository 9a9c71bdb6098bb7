import assert from 'node:assert/strict'
import fc from 'fast-check'
import {
  type Confirmation,
  type PeerPulse,
  PromiseGiver,
  promiseUntil,
} from '../../../../core/mirror/promise.ts'
import { ReplicaRights } from '../../../../core/mirror/replica-rights.ts'
import { epoch } from '../../../../core/units.ts'
import { HOST_A, HOST_B, HOST_C, acceptRequest, ms, processOf } from '../../../unit/core/mirror/samples.ts'

const PROMISE_MS = 4000
const PRIMARY = processOf(HOST_A)
const REPLICA = processOf(HOST_C)

/** A message takes this long, in milliseconds, or is lost. */
const journey = fc.option(fc.oneof(fc.nat(50), fc.nat(9000)), { freq: 4 })
/** Up to 5 % fast or slow. */
const rate = fc.double({ min: 0.95, max: 1.05, noNaN: true })

const history = fc.record({
  primaryRate: rate,
  replicaRate: rate,
  confirmation: fc.tuple(fc.nat(3000), fc.nat(3000)),
  beats: fc.array(fc.record({ gap: fc.oneof(fc.nat(600), fc.nat(6000)), there: journey, back: journey }), {
    maxLength: 40,
  }),
  /** Moments at which host b asks for the volume, and at which the primary looks at its promise. */
  asks: fc.array(fc.nat(60_000), { maxLength: 20 }),
  looks: fc.array(fc.nat(60_000), { maxLength: 40 }),
})

/** A primary and a replica whose clocks run at their own rates, and messages that come late, or not, or out of order. */
class Pair {
  readonly #events: { at: number; action: (at: number) => void }[] = []
  readonly #giver = new PromiseGiver(ms(PROMISE_MS))
  // What an earlier process of the replica's host promised is long over.
  readonly #rights = new ReplicaRights(epoch(5), ms(-2 * PROMISE_MS), ms(PROMISE_MS))
  readonly #primaryRate: number
  readonly #replicaRate: number
  #confirmation: Confirmation | null = null
  #pulse: PeerPulse = { incarnation: null, renewedSentAt: ms(-1), takenAway: 0 }
  #echo = 0
  lost = false
  accepted = 0

  constructor(primaryRate: number, replicaRate: number) {
    this.#primaryRate = primaryRate
    this.#replicaRate = replicaRate
  }

  readonly #here = (at: number) => ms(at * this.#primaryRate + 1_000_000)
  readonly #there = (at: number) => ms(at * this.#replicaRate)

  at(at: number, action: (at: number) => void): void {
    this.#events.push({ at, action })
  }

  run(): void {
    for (;;) {
      const next = this.#events.sort((a, b) => a.at - b.at).shift()
      if (next === undefined) return
      next.action(next.at)
    }
  }

  confirm(there: number, back: number): void {
    const sentAt = this.#here(0)
    this.#rights.accept(acceptRequest({ epoch: 6, asker: PRIMARY }))
    this.at(there, at => {
      if (!this.#rights.confirm(epoch(6), PRIMARY, 'guest', this.#there(at))) return
      const takenAway = this.#giver.takenAwayFrom(PRIMARY.incarnation)
      this.at(at + back, () => (this.#confirmation = { incarnation: REPLICA.incarnation, sentAt, takenAway }))
    })
  }

  beat(sent: number, there: number | null, back: number | null): void {
    const { incarnation } = REPLICA
    this.at(sent, () => {
      const echo = this.#echo
      if (there === null) return
      this.at(sent + there, at => {
        const answer = this.#giver.heartbeat(PRIMARY.incarnation, echo, this.#there(at))
        if (back === null) return
        this.at(at + back, () => {
          this.#echo = Math.max(this.#echo, answer.answer)
          const takenAway = Math.max(this.#pulse.takenAway, answer.takenAway)
          const counts = answer.renewed && answer.takenAway === takenAway
          const renewedSentAt = counts
            ? ms(Math.max(this.#here(sent), this.#pulse.renewedSentAt))
            : this.#pulse.renewedSentAt
          this.#pulse = { incarnation, renewedSentAt, takenAway }
        })
      })
    })
  }

  /** Host b asks the replica for the volume. */
  ask(at: number): void {
    this.at(at, () => {
      if (this.lost) return
      const request = acceptRequest({ epoch: 7, asker: processOf(HOST_B) })
      const verdict = this.#rights.judge(request, this.#there(at), process =>
        this.#giver.renewedAt(process.incarnation)
      )
      if (verdict.kind !== 'accept') return
      this.lost = true
      this.accepted++
      const loser = this.#rights.accept(request)
      if (loser !== null) this.#giver.takeAwayFrom(loser.incarnation)
      this.look(at)
    })
  }

  look(at: number): void {
    this.at(at, () => {
      if (!this.lost) return
      if (this.#confirmation === null) return
      const until = promiseUntil(this.#confirmation, this.#pulse, ms(PROMISE_MS))
      assert(
        this.#here(at) >= until,
        `${at} ms: the primary relies on a promise that the replica does not keep`
      )
    })
  }
}

describe('promises, by law', () => {
  it('a primary never relies on a replica that has accepted another epoch, whatever the clocks and the network do', () => {
    let accepted = 0
    fc.assert(
      fc.property(history, ({ primaryRate, replicaRate, confirmation, beats, asks, looks }) => {
        const pair = new Pair(primaryRate, replicaRate)
        pair.confirm(...confirmation)
        let sent = 0
        for (const { gap, there, back } of beats) pair.beat((sent += gap), there, back)
        for (const at of asks) pair.ask(at)
        for (const at of looks) pair.look(at)
        pair.run()
        accepted += pair.accepted
      }),
      { numRuns: 1000 }
    )
    assert(accepted > 100, 'the law was tried often enough')
  })
})
