import assert from 'node:assert/strict'
import { changeMembershipOf } from '../../../../core/mirror/membership-procedure.ts'
import { RecordKeeper } from '../../../../core/mirror/record-keeper.ts'
import { type Step, type SwapAnswer } from '../../../../core/mirror/steps.ts'
import { changeMembership, reserveEpoch } from '../../../../core/mirror/volume-change.ts'
import { type VolumeState } from '../../../../core/mirror/volume-record.ts'
import { type Epoch, type ReplicaId, epoch } from '../../../../core/units.ts'
import { HOST_A, HOST_B, lettersOf, ms, recordOf, replicaOn, run } from './samples.ts'

/** Takes replica c out of a volume on three hosts, with the coordinator and the replicas answering as given. */
function takeOutC(options: {
  readonly swaps?: readonly SwapAnswer[]
  readonly raise?: (replica: ReplicaId) => string
  readonly state?: VolumeState
  readonly mayGiveUp?: boolean
}) {
  const { swaps = [{ kind: 'committed', revision: 2 }], raise = () => 'ok', mayGiveUp = false } = options
  const keeper = new RecordKeeper(options.state ?? recordOf({ replicas: 'ABC' }), 1)
  const raised: { replica: ReplicaId; from: Epoch; to: Epoch }[] = []
  const order: string[] = []
  let count = 0
  const outcome = run(
    changeMembershipOf(
      keeper,
      HOST_A,
      (state, from) =>
        changeMembership(
          state,
          HOST_A,
          from,
          'x',
          ({ replica, inSync }) => inSync && replica !== replicaOn('c')
        ),
      () => mayGiveUp,
      ms(50)
    ),
    (step: Step) => {
      order.push(step.do)
      if (step.do === 'swap-record') return swaps[count++]
      if (step.do === 'raise') {
        raised.push({ replica: step.replica.replica, from: step.from, to: step.state.epoch })
        return { kind: raise(step.replica.replica) }
      }
      assert.equal(step.do, 'wait')
      return undefined
    }
  )
  return { outcome, keeper, raised, order }
}

describe('taking a replica out', () => {
  it('changes the record first, then lets every survivor store the new epoch', () => {
    const { outcome, keeper, raised, order } = takeOutC({})
    assert.deepEqual(outcome, { kind: 'changed', behind: [] })
    assert.equal(lettersOf(keeper.state), 'ABc')
    assert.deepEqual(order, ['swap-record', 'raise', 'raise'])
    assert.deepEqual(raised, [
      { replica: replicaOn('a'), from: 5, to: 6 },
      { replica: replicaOn('b'), from: 5, to: 6 },
    ])
  })

  for (const kind of ['silent', 'refused', 'gone', 'failed']) {
    it(`names a survivor that was ${kind} when asked to store the epoch`, () => {
      const { outcome } = takeOutC({ raise: replica => (replica === replicaOn('b') ? kind : 'ok') })
      assert.deepEqual(outcome, { kind: 'changed', behind: [replicaOn('b')] })
    })
  }

  it('raises no epoch before the record has certainly changed', () => {
    const { outcome, order } = takeOutC({
      swaps: [
        { kind: 'unknown', reason: '' },
        { kind: 'committed', revision: 3 },
      ],
    })
    assert.equal(outcome.kind, 'changed')
    assert.deepEqual(order, ['swap-record', 'wait', 'swap-record', 'raise', 'raise'])
  })

  it('has succeeded when its own change is in the record under a reservation of somebody else', () => {
    const state = recordOf({ replicas: 'ABC' })
    const changed = changeMembership(
      state,
      HOST_A,
      epoch(5),
      'x',
      ({ replica }) => replica !== replicaOn('c')
    )!
    const contended = reserveEpoch(changed, HOST_B, 'theirs')
    const { outcome, raised } = takeOutC({
      swaps: [
        { kind: 'unknown', reason: '' },
        { kind: 'conflict', state: contended, revision: 9 },
      ],
    })
    assert.deepEqual(outcome, { kind: 'changed', behind: [] })
    assert.deepEqual(
      raised.map(({ to }) => to),
      [6, 6]
    )
  })

  it('overrides a reservation that was made meanwhile', () => {
    const contended = reserveEpoch(recordOf({ replicas: 'ABC' }), HOST_B, 'theirs')
    const { outcome, keeper } = takeOutC({
      swaps: [
        { kind: 'conflict', state: contended, revision: 9 },
        { kind: 'committed', revision: 10 },
      ],
    })
    assert.equal(outcome.kind, 'changed')
    assert.equal(keeper.state.epoch, 7)
  })

  it('ends as replaced when another host has taken the volume, and asks no replica', () => {
    const taken = recordOf({ primary: HOST_B, epoch: 6, reservedBy: HOST_B, replicas: 'ABC' })
    const { outcome, raised } = takeOutC({ swaps: [{ kind: 'conflict', state: taken, revision: 9 }] })
    assert.deepEqual(outcome, { kind: 'replaced' })
    assert.deepEqual(raised, [])
  })

  it('ends as replaced when the volume was deleted', () => {
    assert.deepEqual(takeOutC({ swaps: [{ kind: 'missing' }] }).outcome, { kind: 'replaced' })
  })

  it('fails, with nothing begun, when nobody would be left', () => {
    assert.throws(() => takeOutC({ state: recordOf({ replicas: 'abC' }) }), /no replica would be left/)
  })

  it('may be given up while the coordinator is away', () => {
    const { outcome, keeper } = takeOutC({
      swaps: [{ kind: 'unavailable', reason: 'no leader' }],
      mayGiveUp: true,
    })
    assert.deepEqual(outcome, { kind: 'given-up', reason: 'no leader' })
    assert.equal(lettersOf(keeper.state), 'ABC')
  })
})
