import assert from 'node:assert/strict'
import { type AcceptRequest, type ProcessIdentity } from '../../../../core/mirror/messages.ts'
import { type AcceptVerdict, ReplicaRights } from '../../../../core/mirror/replica-rights.ts'
import { type Millis, epoch, sessionNumber } from '../../../../core/units.ts'
import { HOST_A, HOST_B, HOST_C, acceptRequest, ms, processOf } from './samples.ts'

const PROMISE_MS = 4000
const STORED = epoch(5)
/** A moment at which what an earlier process of the replica's host promised is long over. */
const LATER = ms(100_000)

const never = (): null => null
const A = processOf(HOST_A)
const B = processOf(HOST_B)

/** A replica that has run for long, and was opened by the first process of host a if an epoch is given. */
function rightsOf(held?: {
  at: number
  confirmedAt: number | null
  purpose?: 'guest' | 'maintenance'
}): ReplicaRights {
  const rights = new ReplicaRights(STORED, ms(0), ms(PROMISE_MS))
  if (held !== undefined) {
    const { at, confirmedAt, purpose = 'guest' } = held
    rights.accept(acceptRequest({ epoch: at, asker: A, purpose }))
    if (confirmedAt !== null) assert(rights.confirm(epoch(at), A, purpose, ms(confirmedAt)))
  }
  return rights
}

const judge = (
  rights: ReplicaRights,
  request: AcceptRequest,
  now: Millis = LATER,
  renewedAt: (process: ProcessIdentity) => Millis | null = never
): AcceptVerdict => rights.judge(request, now, renewedAt)

describe('a replica that is asked to accept an epoch', () => {
  it('refuses one below that which it has accepted, and says which that is', () => {
    assert.deepEqual(judge(rightsOf(), acceptRequest({ epoch: 4 })), { kind: 'higher-epoch', epoch: 5 })
  })

  it('refuses a lower one also when it is asked as a stale replica, and when all promises are void', () => {
    const verdict = judge(rightsOf(), acceptRequest({ epoch: 4, inSync: false, voidUpTo: 9 }))
    assert.equal(verdict.kind, 'higher-epoch')
  })

  it('accepts the same one again from the process that holds it: its answer was lost', () => {
    const rights = rightsOf({ at: 6, confirmedAt: 99_999 })
    assert.deepEqual(judge(rights, acceptRequest({ epoch: 6, asker: A })), { kind: 'accept' })
  })

  it('accepts the same one from whoever asks first after it was started anew', () => {
    assert.deepEqual(judge(rightsOf(), acceptRequest({ epoch: 5 }), ms(1)), { kind: 'accept' })
  })

  it('refuses the same one to another process', () => {
    const rights = rightsOf({ at: 6, confirmedAt: null })
    assert.deepEqual(judge(rights, acceptRequest({ epoch: 6, asker: B })), { kind: 'higher-epoch', epoch: 6 })
    assert.equal(judge(rights, acceptRequest({ epoch: 6, asker: processOf(HOST_A, 2) })).kind, 'higher-epoch')
  })

  it('refuses a higher one while it owes a promise to another host, and says for how long', () => {
    const rights = rightsOf({ at: 6, confirmedAt: 98_000 })
    assert.deepEqual(judge(rights, acceptRequest({ epoch: 7, voidUpTo: 5 })), {
      kind: 'promised',
      holder: HOST_A,
      remainingMs: 2000,
      epoch: 6,
    })
  })

  it('counts a promise from the last heartbeat that renewed it', () => {
    const rights = rightsOf({ at: 6, confirmedAt: 50_000 })
    const renewedAt = (process: ProcessIdentity): Millis | null =>
      process.incarnation === A.incarnation ? ms(99_000) : null
    const verdict = judge(rights, acceptRequest({ epoch: 7 }), LATER, renewedAt)
    assert(verdict.kind === 'promised')
    assert.equal(verdict.remainingMs, 3000)
  })

  it('accepts a higher one at the moment at which the promise ends, and not before', () => {
    const rights = rightsOf({ at: 6, confirmedAt: 96_000 })
    assert.equal(judge(rights, acceptRequest({ epoch: 7 }), ms(99_999)).kind, 'promised')
    assert.equal(judge(rights, acceptRequest({ epoch: 7 }), ms(100_000)).kind, 'accept')
  })

  it('accepts a higher one while the promise is void by the record', () => {
    const rights = rightsOf({ at: 6, confirmedAt: 99_999 })
    assert.equal(judge(rights, acceptRequest({ epoch: 8, voidUpTo: 6 })).kind, 'accept')
    assert.equal(judge(rights, acceptRequest({ epoch: 8, voidUpTo: 5 })).kind, 'promised')
  })

  it('owes nothing to a process that accepted and never confirmed', () => {
    assert.equal(judge(rightsOf({ at: 6, confirmedAt: null }), acceptRequest({ epoch: 7 })).kind, 'accept')
  })

  it('accepts a higher one from a process of the host that it owes the promise to when the record names that', () => {
    const ask = (asker: ProcessIdentity) =>
      judge(rightsOf({ at: 6, confirmedAt: 99_999 }), acceptRequest({ epoch: 7, asker, voidUpTo: 6 })).kind
    assert.equal(ask(A), 'accept')
    assert.equal(ask(processOf(HOST_A, 2)), 'accept')
  })

  it('lets a guest supersede maintenance at once, and nothing else supersede anything', () => {
    const ask = (holds: 'guest' | 'maintenance', asks: 'guest' | 'maintenance') =>
      judge(
        rightsOf({ at: 6, confirmedAt: 99_999, purpose: holds }),
        acceptRequest({ epoch: 7, purpose: asks })
      ).kind
    assert.equal(ask('maintenance', 'guest'), 'accept')
    assert.equal(ask('maintenance', 'maintenance'), 'promised')
    assert.equal(ask('guest', 'maintenance'), 'promised')
    assert.equal(ask('guest', 'guest'), 'promised')
  })

  it('accepts a higher one when the record counts it as stale, whatever it owes', () => {
    const rights = rightsOf({ at: 6, confirmedAt: 99_999 })
    assert.equal(judge(rights, acceptRequest({ epoch: 7, inSync: false })).kind, 'accept')
  })

  it('waits one promise time after its start, for it does not know what the process before it promised', () => {
    const rights = rightsOf()
    assert.deepEqual(judge(rights, acceptRequest({ epoch: 6 }), ms(1000)), {
      kind: 'promised',
      holder: null,
      remainingMs: 3000,
      epoch: 5,
    })
    assert.equal(judge(rights, acceptRequest({ epoch: 6 }), ms(PROMISE_MS)).kind, 'accept')
  })

  it('need not wait after its start when the record voids what was promised', () => {
    assert.equal(judge(rightsOf(), acceptRequest({ epoch: 6, voidUpTo: 5 }), ms(1)).kind, 'accept')
  })

  it('changes nothing by being asked', () => {
    const rights = rightsOf({ at: 6, confirmedAt: null })
    judge(rights, acceptRequest({ epoch: 9 }))
    assert.equal(rights.accepted, 6)
    assert.deepEqual(rights.holder, A)
  })
})

describe('a replica that accepts an epoch', () => {
  it('makes the asker the holder and stops the session of before', () => {
    const rights = rightsOf({ at: 6, confirmedAt: 0 })
    assert(rights.openSession(epoch(6), sessionNumber(3)))
    assert.deepEqual(rights.accept(acceptRequest({ epoch: 7, asker: B })), A)
    assert.equal(rights.accepted, 7)
    assert.deepEqual(rights.holder, B)
    assert.equal(rights.session, null)
  })

  it('lets session numbers begin anew with the new epoch', () => {
    const rights = rightsOf({ at: 6, confirmedAt: 0 })
    assert(rights.openSession(epoch(6), sessionNumber(30)))
    rights.accept(acceptRequest({ epoch: 7 }))
    rights.confirm(epoch(7), B, 'guest', LATER)
    assert(rights.openSession(epoch(7), sessionNumber(1)))
  })

  it('takes nothing away from anybody when the holder itself raises its epoch', () => {
    const rights = rightsOf({ at: 6, confirmedAt: 0 })
    assert.equal(rights.accept(acceptRequest({ epoch: 7, asker: A })), null)
  })

  it('names nobody when there was no holder', () => {
    assert.equal(rightsOf().accept(acceptRequest({ epoch: 7 })), null)
  })

  it('keeps the promise and the session when it is asked for the same epoch twice', () => {
    const rights = rightsOf({ at: 6, confirmedAt: 99_999 })
    rights.openSession(epoch(6), sessionNumber(1))
    assert.equal(rights.accept(acceptRequest({ epoch: 6, asker: A })), null)
    assert.equal(rights.session, 1)
    assert.equal(judge(rights, acceptRequest({ epoch: 7, asker: B })).kind, 'promised')
  })

  it('owes nothing until the new holder has confirmed', () => {
    const rights = rightsOf({ at: 6, confirmedAt: 50_000 })
    rights.accept(acceptRequest({ epoch: 7, asker: B }))
    assert.equal(judge(rights, acceptRequest({ epoch: 8, asker: processOf(HOST_C) })).kind, 'accept')
  })
})

describe('a replica that is asked to confirm', () => {
  it('refuses any epoch but the accepted one', () => {
    const rights = rightsOf({ at: 6, confirmedAt: null })
    assert.equal(rights.confirm(epoch(5), A, 'guest', LATER), false)
    assert.equal(rights.confirm(epoch(7), A, 'guest', LATER), false)
    assert.equal(judge(rights, acceptRequest({ epoch: 7 })).kind, 'accept')
  })

  it('refuses a process that is not the holder', () => {
    const rights = rightsOf({ at: 6, confirmedAt: null })
    assert.equal(rights.confirm(epoch(6), B, 'guest', LATER), false)
    assert.equal(rights.confirm(epoch(6), processOf(HOST_A, 2), 'guest', LATER), false)
  })

  it('knows the holder again after it was started anew, and owes the promise from then', () => {
    const rights = rightsOf()
    assert(rights.confirm(STORED, A, 'guest', LATER))
    assert.deepEqual(rights.holder, A)
    const verdict = judge(rights, acceptRequest({ epoch: 6, asker: B }))
    assert(verdict.kind === 'promised')
    assert.equal(verdict.remainingMs, PROMISE_MS)
  })

  it('counts the promise from the last confirmation', () => {
    const rights = rightsOf({ at: 6, confirmedAt: 50_000 })
    rights.confirm(epoch(6), A, 'guest', ms(99_000))
    const verdict = judge(rights, acceptRequest({ epoch: 7, asker: B }))
    assert(verdict.kind === 'promised')
    assert.equal(verdict.remainingMs, 3000)
  })

  it('remembers for what purpose a process confirmed that it did not know', () => {
    const rights = rightsOf()
    rights.confirm(STORED, A, 'maintenance', LATER)
    assert.equal(judge(rights, acceptRequest({ epoch: 6, asker: B })).kind, 'accept')
  })
})

describe('a replica whose holder raises the epoch', () => {
  it('goes on with the session and the promise under the higher one', () => {
    const rights = rightsOf({ at: 6, confirmedAt: 99_000 })
    rights.openSession(epoch(6), sessionNumber(2))
    assert(rights.raise(epoch(6), epoch(7), A))
    assert.equal(rights.accepted, 7)
    assert.equal(rights.session, 2)
    assert.equal(judge(rights, acceptRequest({ epoch: 8, asker: B })).kind, 'promised')
  })

  it('says yes again when the answer was lost, and refuses the same to another process', () => {
    const rights = rightsOf({ at: 6, confirmedAt: 0 })
    rights.raise(epoch(6), epoch(7), A)
    assert.equal(rights.raise(epoch(6), epoch(7), A), true)
    assert.equal(rights.raise(epoch(6), epoch(7), B), false)
    assert.equal(rights.accepted, 7)
    assert.equal(rights.confirm(epoch(7), A, 'guest', ms(0)), true)
  })

  it('refuses when it has accepted another epoch meanwhile, or the sender is not the holder', () => {
    const rights = rightsOf({ at: 6, confirmedAt: 0 })
    assert.equal(rights.raise(epoch(5), epoch(7), A), false)
    assert.equal(rights.raise(epoch(6), epoch(7), B), false)
    assert.equal(rights.accepted, 6)
  })

  it('never goes down', () => {
    const rights = rightsOf({ at: 6, confirmedAt: 0 })
    assert.equal(rights.raise(epoch(6), epoch(5), A), false)
    assert.equal(rights.accepted, 6)
  })

  it('allows it when it does not know the holder because it was started anew', () => {
    const rights = rightsOf()
    assert(rights.raise(STORED, epoch(7), A))
    assert.equal(rights.accepted, 7)
  })
})

describe('sessions of a replica', () => {
  it('open only at the accepted epoch, and only with a number above the last one', () => {
    const rights = rightsOf({ at: 6, confirmedAt: 0 })
    assert.equal(rights.openSession(epoch(5), sessionNumber(1)), false)
    assert.equal(rights.openSession(epoch(7), sessionNumber(1)), false)
    assert.equal(rights.openSession(epoch(6), sessionNumber(2)), true)
    assert.equal(rights.openSession(epoch(6), sessionNumber(2)), false)
    assert.equal(rights.openSession(epoch(6), sessionNumber(1)), false)
    assert.equal(rights.session, 2)
  })

  it('open only after the holder has confirmed, and to this process', () => {
    const accepted = rightsOf({ at: 6, confirmedAt: null })
    assert.equal(accepted.openSession(epoch(6), sessionNumber(1)), false)
    const startedAnew = rightsOf()
    assert.equal(startedAnew.openSession(STORED, sessionNumber(1)), false)
    startedAnew.confirm(STORED, A, 'guest', LATER)
    assert.equal(startedAnew.openSession(STORED, sessionNumber(1)), true)
  })

  it('replace one another', () => {
    const rights = rightsOf({ at: 6, confirmedAt: 0 })
    rights.openSession(epoch(6), sessionNumber(1))
    rights.openSession(epoch(6), sessionNumber(2))
    assert.equal(rights.session, 2)
  })

  it('are not ended by the late end of an earlier one, and never opened again', () => {
    const rights = rightsOf({ at: 6, confirmedAt: 0 })
    rights.openSession(epoch(6), sessionNumber(1))
    rights.openSession(epoch(6), sessionNumber(2))
    rights.closeSession(sessionNumber(1))
    assert.equal(rights.session, 2)
    rights.closeSession(sessionNumber(2))
    assert.equal(rights.session, null)
    assert.equal(rights.openSession(epoch(6), sessionNumber(2)), false)
  })
})

describe('a replica that its holder releases', () => {
  it('owes nothing more and serves no session', () => {
    const rights = rightsOf({ at: 6, confirmedAt: 99_999 })
    rights.openSession(epoch(6), sessionNumber(1))
    rights.release(epoch(6), A)
    assert.equal(rights.session, null)
    assert.equal(judge(rights, acceptRequest({ epoch: 7, asker: B })).kind, 'accept')
  })

  it('ignores a release of another process or epoch', () => {
    const rights = rightsOf({ at: 6, confirmedAt: 99_999 })
    rights.openSession(epoch(6), sessionNumber(1))
    rights.release(epoch(6), B)
    rights.release(epoch(5), A)
    assert.equal(rights.session, 1)
    assert.equal(judge(rights, acceptRequest({ epoch: 7, asker: B })).kind, 'promised')
  })

  it('keeps its epoch', () => {
    const rights = rightsOf({ at: 6, confirmedAt: 0 })
    rights.release(epoch(6), A)
    assert.equal(rights.accepted, 6)
    assert.equal(judge(rights, acceptRequest({ epoch: 5 })).kind, 'higher-epoch')
  })
})
