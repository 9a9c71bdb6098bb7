import assert from 'node:assert/strict'
import { type AcceptAnswer } from '../../../../core/mirror/messages.ts'
import { type Silent } from '../../../../core/mirror/steps.ts'
import { replicasOf } from '../../../../core/mirror/volume-change.ts'
import { waitsOfOpening, waitsOfPrimary } from '../../../../core/mirror/waits.ts'
import { epoch } from '../../../../core/units.ts'
import { HOST_A, HOST_B, HOST_C, ms, processOf, recordOf, replicaOn } from './samples.ts'

const [recordA, recordB] = replicasOf(recordOf()) as [ReplicaRecord, ReplicaRecord]
type ReplicaRecord = ReturnType<typeof replicasOf>[number]

const SETTLED = { unsettled: false, trouble: null }

describe('what an open volume waits for', () => {
  const a = { record: recordA, trouble: null, hasLost: false, promiseHolds: true, refusal: null }
  const b = { record: recordB, trouble: null, hasLost: false, promiseHolds: true, refusal: null }

  it('is nothing while every replica that counts is connected and promises', () => {
    assert.deepEqual(waitsOfPrimary([a, b], SETTLED, 0), [])
  })

  it('is the replica that is away, with why, and the promise of one that does not renew it', () => {
    assert.deepEqual(waitsOfPrimary([a, { ...b, trouble: 'no answer in time' }], SETTLED, 0), [
      {
        for: 'replica',
        host: HOST_B,
        replica: replicaOn('b'),
        reason: 'no answer in time',
        othersLost: false,
      },
    ])
    assert.deepEqual(waitsOfPrimary([a, { ...b, promiseHolds: false }], SETTLED, 0), [
      { for: 'promise', host: HOST_B, replica: replicaOn('b') },
    ])
  })

  it('is the replica that may hold what the others have lost', () => {
    const lost = { ...a, trouble: 'its host was started anew', hasLost: true }
    assert.deepEqual(waitsOfPrimary([lost, { ...b, trouble: 'no answer' }], SETTLED, 0), [
      { for: 'replica', host: HOST_B, replica: replicaOn('b'), reason: 'no answer', othersLost: true },
    ])
  })

  it('is the coordinator, while it does not change the record or its answer is awaited', () => {
    assert.deepEqual(waitsOfPrimary([a, b], { unsettled: false, trouble: 'it is away' }, 0), [
      { for: 'coordinator', reason: 'it is away' },
    ])
    assert.deepEqual(waitsOfPrimary([a, b], { unsettled: true, trouble: null }, 0), [
      { for: 'coordinator', reason: 'it has not answered yet' },
    ])
  })

  it('is the regions that are not reconciled', () => {
    assert.deepEqual(waitsOfPrimary([a, b], SETTLED, 7), [{ for: 'reconcile', regions: 7 }])
  })
})

describe('what an opening waits for', () => {
  const accepted = (host: typeof HOST_A, lostAt: number | null): AcceptAnswer => ({
    kind: 'accepted',
    identity: processOf(host),
    lostAt: lostAt === null ? null : epoch(lostAt),
  })
  const silent: Silent = { kind: 'silent', reason: 'it cannot be reached' }

  it('is nothing once a replica has accepted that has everything', () => {
    assert.deepEqual(
      waitsOfOpening(
        [
          [recordA, accepted(HOST_A, null)],
          [recordB, silent],
        ],
        SETTLED
      ),
      []
    )
  })

  it('is each replica that does not accept, and whether it may hold what the others lost', () => {
    const waitForB = {
      for: 'replica',
      host: HOST_B,
      replica: replicaOn('b'),
      reason: 'silent: it cannot be reached',
    }
    assert.deepEqual(
      waitsOfOpening(
        [
          [recordA, accepted(HOST_A, 3)],
          [recordB, silent],
        ],
        SETTLED
      ),
      [{ ...waitForB, othersLost: true }]
    )
    const gone: AcceptAnswer = { kind: 'gone', identity: processOf(HOST_A), reason: 'no files' }
    assert.deepEqual(
      waitsOfOpening(
        [
          [recordA, gone],
          [recordB, silent],
        ],
        SETTLED
      ),
      [
        {
          for: 'replica',
          host: HOST_A,
          replica: replicaOn('a'),
          reason: 'gone: no files',
          othersLost: false,
        },
        { ...waitForB, othersLost: false },
      ]
    )
  })

  it('is the end of a promise to another host, with the time that is left', () => {
    const promised: AcceptAnswer = {
      kind: 'promised',
      identity: processOf(HOST_B),
      holder: HOST_C,
      epoch: epoch(4),
      remainingMs: ms(1200),
    }
    assert.deepEqual(waitsOfOpening([[recordB, promised]], SETTLED), [
      { for: 'end-of-promise', host: HOST_B, replica: replicaOn('b'), holder: HOST_C, remainingMs: 1200 },
    ])
  })

  it('is the coordinator alone when that does not answer', () => {
    assert.deepEqual(waitsOfOpening([[recordB, silent]], { unsettled: false, trouble: 'it is away' }), [
      { for: 'coordinator', reason: 'it is away' },
    ])
  })
})
