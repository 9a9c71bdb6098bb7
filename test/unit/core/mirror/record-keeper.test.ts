import assert from 'node:assert/strict'
import { RecordKeeper, changeRecord } from '../../../../core/mirror/record-keeper.ts'
import { type Step, type SwapAnswer } from '../../../../core/mirror/steps.ts'
import { changeMembership, reserveEpoch } from '../../../../core/mirror/volume-change.ts'
import { type VolumeState } from '../../../../core/mirror/volume-record.ts'
import { epoch } from '../../../../core/units.ts'
import { HOST_A, HOST_B, ms, recordOf, replicaOn, run } from './samples.ts'

const A = replicaOn('a')
const B = replicaOn('b')

describe('what a primary knows of its record', () => {
  it('counts a replica by the record while nothing is open', () => {
    const keeper = new RecordKeeper(recordOf({ replicas: 'Ab' }), 1)
    assert.deepEqual([keeper.mustAcknowledge(A), keeper.mayBeRead(A)], [true, true])
    assert.deepEqual([keeper.mustAcknowledge(B), keeper.mayBeRead(B)], [false, false])
    assert.equal(keeper.mustAcknowledge(replicaOn('x')), false)
  })

  for (const [before, after] of [
    ['AB', 'Ab'],
    ['Ab', 'AB'],
  ] as const) {
    it(`waits for a replica and does not read it while ${before} may have become ${after}`, () => {
      const keeper = new RecordKeeper(recordOf({ replicas: before }), 1)
      keeper.begin(recordOf({ replicas: after }))
      assert.equal(keeper.unsettled, true)
      assert.equal(keeper.mustAcknowledge(B), true)
      assert.equal(keeper.mayBeRead(B), false)
      assert.deepEqual([keeper.mustAcknowledge(A), keeper.mayBeRead(A)], [true, true])
    })
  }

  it('counts all as in-sync only when that is certain', () => {
    const keeper = new RecordKeeper(recordOf({ replicas: 'AB' }), 1)
    assert.equal(keeper.allInSync, true)
    keeper.begin(recordOf({ replicas: 'AB', epoch: 6 }))
    assert.equal(keeper.allInSync, false)
    keeper.settle(recordOf({ replicas: 'Ab' }), 2)
    assert.equal(keeper.allInSync, false)
    assert.equal(keeper.unsettled, false)
  })

  it('forgets a version that certainly did not become the record', () => {
    const keeper = new RecordKeeper(recordOf({ replicas: 'Ab' }), 1)
    keeper.begin(recordOf({ replicas: 'AB' }))
    keeper.abandon()
    assert.equal(keeper.unsettled, false)
    assert.equal(keeper.mustAcknowledge(B), false)
    assert.equal(keeper.revision, 1)
  })
})

describe('a change of the record', () => {
  const start = recordOf({ replicas: 'AB' })
  const change = (state: VolumeState): VolumeState | null =>
    changeMembership(state, HOST_A, epoch(5), 'mine', ({ replica }) => replica === A)
  const wanted = change(start)!

  /** Runs the change against a coordinator that gives these answers in turn, and notes what it was asked. */
  function attempt(answers: readonly SwapAnswer[], mayGiveUp = () => false) {
    const keeper = new RecordKeeper(start, 1)
    const swaps: { revision: number; state: VolumeState }[] = []
    const waits: number[] = []
    const unsettled: boolean[] = []
    const outcome = run(
      changeRecord(keeper, {
        decide: change,
        isDone: ({ reserved }) => reserved.operation === 'mine',
        mayGiveUp,
        retryDelayMs: ms(50),
      }),
      (step: Step) => {
        unsettled.push(keeper.unsettled)
        if (step.do === 'wait') return void waits.push(step.ms)
        assert(step.do === 'swap-record')
        const answer = answers[swaps.length]
        assert(answer !== undefined, 'asked more often than expected')
        swaps.push({ revision: step.revision, state: step.state })
        return answer
      }
    )
    return { outcome, keeper, swaps, waits, unsettled }
  }

  const unknown = { kind: 'unknown', reason: 'no answer' } as const
  const unavailable = { kind: 'unavailable', reason: 'no leader' } as const

  it('is made on the condition of the revision that is known', () => {
    const { outcome, keeper, swaps, unsettled } = attempt([{ kind: 'committed', revision: 2 }])
    assert.deepEqual(outcome, { kind: 'changed' })
    assert.deepEqual(swaps, [{ revision: 1, state: wanted }])
    assert.deepEqual([keeper.state, keeper.revision, keeper.unsettled], [wanted, 2, false])
    assert.deepEqual(unsettled, [true], 'both versions count from before the change is sent')
  })

  it('is decided anew on the record that a conflict shows', () => {
    const contended = reserveEpoch(start, HOST_B, 'theirs')
    const { outcome, swaps } = attempt([
      { kind: 'conflict', state: contended, revision: 7 },
      { kind: 'committed', revision: 8 },
    ])
    assert.deepEqual(outcome, { kind: 'changed' })
    assert.deepEqual(swaps[1], { revision: 7, state: change(contended) })
  })

  it('is refused when it does not apply to the record that a conflict shows', () => {
    const other = recordOf({ primary: HOST_B, epoch: 6 })
    const { outcome, keeper } = attempt([{ kind: 'conflict', state: other, revision: 7 }])
    assert.deepEqual(outcome, { kind: 'refused' })
    assert.deepEqual([keeper.state, keeper.revision, keeper.unsettled], [other, 7, false])
  })

  it('has succeeded when a retry finds its own version', () => {
    const { outcome, keeper } = attempt([unknown, { kind: 'conflict', state: wanted, revision: 2 }])
    assert.deepEqual(outcome, { kind: 'changed' })
    assert.deepEqual([keeper.state, keeper.revision, keeper.unsettled], [wanted, 2, false])
  })

  it('is sent again after a lost answer, and stays open until that is answered', () => {
    const { outcome, swaps, unsettled } = attempt([unknown, unknown, { kind: 'committed', revision: 2 }])
    assert.deepEqual(outcome, { kind: 'changed' })
    assert.equal(swaps.length, 3)
    assert(unsettled.every(open => open))
  })

  it('stays open when a retry certainly did nothing: the first try may still happen', () => {
    const { unsettled } = attempt([unknown, unavailable, unavailable, { kind: 'committed', revision: 2 }])
    assert(unsettled.every(open => open))
  })

  it('is open no longer while the coordinator is away and no try can have happened', () => {
    const { unsettled, waits } = attempt([unavailable, { kind: 'committed', revision: 2 }])
    assert.deepEqual(unsettled, [true, false, true])
    assert.deepEqual(waits, [50])
  })

  it('is not open any more after a conflict: what was lost before it cannot happen', () => {
    const contended = reserveEpoch(start, HOST_B, 'theirs')
    const { outcome, unsettled } = attempt(
      [unknown, { kind: 'conflict', state: contended, revision: 7 }, unavailable],
      () => true
    )
    assert.deepEqual(outcome, { kind: 'given-up', reason: 'no leader' })
    assert.deepEqual(unsettled, [true, true, true, true])
  })

  it('can be given up while no try can have happened', () => {
    const { outcome, keeper } = attempt([unavailable], () => true)
    assert.deepEqual(outcome, { kind: 'given-up', reason: 'no leader' })
    assert.deepEqual([keeper.state, keeper.unsettled], [start, false])
  })

  it('cannot be given up while its outcome is unknown', () => {
    const { outcome, swaps } = attempt(
      [unknown, unavailable, unknown, { kind: 'conflict', state: start, revision: 3 }, unavailable],
      () => true
    )
    assert.deepEqual(outcome, { kind: 'given-up', reason: 'no leader' })
    assert.equal(swaps.length, 5)
  })

  it('ends when the volume was deleted', () => {
    const { outcome, keeper } = attempt([unknown, { kind: 'missing' }])
    assert.deepEqual(outcome, { kind: 'missing' })
    assert.equal(keeper.unsettled, false)
  })

  it('asks nothing when the record contains it already', () => {
    const keeper = new RecordKeeper(wanted, 4)
    const steps = changeRecord(keeper, {
      decide: change,
      isDone: ({ reserved }) => reserved.operation === 'mine',
      mayGiveUp: () => false,
      retryDelayMs: ms(50),
    })
    assert.deepEqual(steps.next(), { done: true, value: { kind: 'changed' } })
  })

  it('is tried again after longer and longer pauses, up to sixteen times the first', () => {
    const { waits } = attempt([...Array<SwapAnswer>(7).fill(unavailable), { kind: 'committed', revision: 2 }])
    assert.deepEqual(waits, [50, 100, 200, 400, 800, 800, 800])
  })
})
