import assert from 'node:assert/strict'
import fc from 'fast-check'
import { type AcceptAnswer } from '../../../../core/mirror/messages.ts'
import { changeMembershipOf } from '../../../../core/mirror/membership-procedure.ts'
import { openVolume } from '../../../../core/mirror/open-procedure.ts'
import { RecordKeeper } from '../../../../core/mirror/record-keeper.ts'
import { type Silent, type Step } from '../../../../core/mirror/steps.ts'
import { DEFAULT_TIMING } from '../../../../core/mirror/timing.ts'
import {
  changeMembership,
  inSyncReplicas,
  replicasOf,
  reserveEpoch,
  takeVolume,
} from '../../../../core/mirror/volume-change.ts'
import { type VolumeState } from '../../../../core/mirror/volume-record.ts'
import { type HostId, type ReplicaId, epoch } from '../../../../core/units.ts'
import {
  HOST_A,
  HOST_B,
  HOST_C,
  accepted,
  ms,
  processOf,
  recordOf,
  run,
} from '../../../unit/core/mirror/samples.ts'
import { FATES, FlakyCoordinator } from './flaky-coordinator.ts'

const letters = fc.constantFrom('A', 'AB', 'Ab', 'ABC', 'AbC', 'abC')
/** Draws decide everything that the world does, in turn; when they are used up everything works. */
const draws = fc.array(fc.nat(999), { maxLength: 60 })

class Dice {
  readonly #draws: readonly number[]
  #at = 0

  constructor(drawn: readonly number[]) {
    this.#draws = drawn
  }

  get usedUp(): boolean {
    return this.#at >= this.#draws.length
  }

  pick<T>(choices: readonly T[], healthy: T): T {
    const drawn = this.#draws[this.#at++]
    return drawn === undefined ? healthy : choices[drawn % choices.length]!
  }
}

/** Host c, as a contender at any moment: reserves, and takes what it has reserved. */
function contend(coordinator: FlakyCoordinator, deed: string): void {
  const { state } = coordinator
  if (deed === 'reserve') coordinator.change(reserveEpoch(state, HOST_C, 'theirs'))
  if (deed === 'take') {
    const everybody = new Set(replicasOf(state).map(({ replica }) => replica))
    coordinator.change(takeVolume(state, HOST_C, state.reserved.epoch, everybody))
  }
  if (deed === 'late') coordinator.deliverLate()
}

const isIn = (mask: number, host: HostId): boolean =>
  ((mask >> [HOST_A, HOST_B, HOST_C].indexOf(host)) & 1) === 1

const idsOf = (state: VolumeState): ReplicaId[] => inSyncReplicas(state).map(({ replica }) => replica)

describe('changes of the record, by law', () => {
  it('a primary waits for every replica that the record may trust, and reads none that it may not, at every moment', () => {
    fc.assert(
      fc.property(
        letters,
        draws,
        fc.array(fc.nat(7), { minLength: 1, maxLength: 4 }),
        (replicas, drawn, masks) => {
          const dice = new Dice(drawn)
          const coordinator = new FlakyCoordinator(recordOf({ replicas }))
          const keeper = new RecordKeeper(coordinator.state, 1)
          const look = (): void => {
            // Once another host is primary, nothing that this one knows counts; its promises do not hold then.
            if (coordinator.state.primary !== HOST_A) return
            const trusted = idsOf(coordinator.state)
            for (const { replica } of replicasOf(coordinator.state)) {
              if (trusted.includes(replica)) assert(keeper.mustAcknowledge(replica), `${replica} is trusted`)
              else assert(!keeper.mayBeRead(replica), `${replica} is not trusted`)
            }
            if (keeper.allInSync) assert.equal(trusted.length, replicasOf(coordinator.state).length)
          }
          const perform = (step: Step): unknown => {
            look()
            contend(
              coordinator,
              dice.pick(['nothing', 'nothing', 'reserve', 'take', 'late', 'late'], 'nothing')
            )
            look()
            if (step.do === 'raise') return { kind: 'ok' }
            if (step.do !== 'swap-record') return undefined
            const answer = coordinator.swap(step.revision, step.state, dice.pick(FATES, 'answered'))
            look()
            return answer
          }
          for (const mask of masks) {
            // Nobody asks for a change after which no replica would be in-sync.
            if (replicasOf(coordinator.state).every(({ host }) => !isIn(mask, host))) continue
            const change = (state: VolumeState, from: typeof state.epoch) =>
              changeMembership(state, HOST_A, from, `to ${mask}`, ({ host }) => isIn(mask, host))
            const outcome = run(
              changeMembershipOf(keeper, HOST_A, change, () => true, ms(50)),
              perform
            )
            assert.equal(keeper.unsettled, false, 'nothing is left open')
            coordinator.deliverLate()
            look()
            if (outcome.kind === 'replaced') assert.notEqual(coordinator.state.primary, HOST_A)
          }
        }
      ),
      { numRuns: 1500 }
    )
  })

  it('an open ends as opened only if the record said so, and every replica that it trusts has accepted', () => {
    let opened = 0
    const { identity } = { identity: processOf(HOST_A) }
    fc.assert(
      fc.property(letters, fc.constantFrom(HOST_A, HOST_B, null), draws, (replicas, primary, drawn) => {
        const dice = new Dice(drawn)
        const coordinator = new FlakyCoordinator(recordOf({ replicas, primary }))
        const last = new Map<ReplicaId, { answer: AcceptAnswer | Silent; epoch: number }>()
        let now = 0
        const perform = (step: Step): unknown => {
          contend(
            coordinator,
            dice.pick(['nothing', 'nothing', 'nothing', 'reserve', 'take', 'late'], 'nothing')
          )
          switch (step.do) {
            case 'read-record':
              return coordinator.read(dice.pick([true, true, false], true))
            case 'swap-record':
              return coordinator.swap(step.revision, step.state, dice.pick(FATES, 'answered'))
            case 'accept': {
              const yes = accepted(step.replica.host)
              const answers: (AcceptAnswer | Silent)[] = [
                yes,
                yes,
                accepted(step.replica.host, 3),
                { kind: 'silent', reason: 'no answer' },
                { kind: 'gone', identity, reason: 'no files' },
                { kind: 'higher-epoch', identity, epoch: epoch(99) },
                { kind: 'promised', identity, holder: HOST_A, epoch: epoch(5), remainingMs: ms(500) },
                { kind: 'promised', identity, holder: null, epoch: epoch(5), remainingMs: ms(3900) },
              ]
              const answer = dice.pick(answers, yes)
              last.set(step.replica.replica, { answer, epoch: step.epoch })
              return answer
            }
            case 'wait':
              return void (now += step.ms)
            case 'now':
              return now
            case 'fraction':
              return 0.5
            case 'uuid':
              return `operation ${now}`
            case 'all':
            case 'raise':
              return assert.fail(`not a step of an open: ${step.do}`)
          }
        }
        const options = { host: HOST_B, purpose: 'guest', timing: DEFAULT_TIMING, resumes: false } as const
        const outcome = run(openVolume({ ...options, deadline: ms(20_000), cancelled: () => false }), perform)
        if (outcome.kind !== 'opened') return
        opened++
        const { keeper } = outcome
        assert.deepEqual(coordinator.versions[keeper.revision - 1], keeper.state, 'the record said so')
        assert.equal(keeper.unsettled, false)
        assert.equal(keeper.state.primary, HOST_B)
        assert(keeper.state.reserved.epoch >= keeper.state.epoch)
        const trusted = idsOf(keeper.state)
        assert(trusted.length > 0)
        assert.deepEqual([...outcome.accepted.keys()].sort(), trusted.sort())
        for (const replica of trusted) {
          assert.equal(last.get(replica)?.answer.kind, 'accepted')
          assert.equal(last.get(replica)?.epoch, keeper.state.epoch)
        }
        for (const { answer } of last.values()) assert.notEqual(answer.kind, 'promised')
        const taken = coordinator.versions.findIndex(
          ({ primary: host, epoch: at }) => host === HOST_B && at === keeper.state.epoch
        )
        const before = idsOf(coordinator.versions[taken - 1]!)
        assert(
          trusted.every(replica => before.includes(replica)),
          'an open makes nobody in-sync'
        )
        const others = coordinator.versions.slice(0, taken)
        assert(
          others.every(({ epoch: at }) => at < keeper.state.epoch),
          'no two primaries have one epoch'
        )
      }),
      { numRuns: 1500 }
    )
    assert(opened > 100, 'the law was tried often enough')
  })
})
