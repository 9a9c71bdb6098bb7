import assert from 'node:assert/strict'
import {
  changeMembership,
  closeVolume,
  inSyncReplicas,
  growVolume,
  replaceReplica,
  replicasOf,
  reserveEpoch,
  takeVolume,
} from '../../../../core/mirror/volume-change.ts'
import { isPristine } from '../../../../core/mirror/volume-record.ts'
import { type ByteLength, type ReplicaId, type StoreId, epoch } from '../../../../core/units.ts'
import { HOST_A, HOST_B, lettersOf, recordOf, replicaOn } from './samples.ts'

const acceptedBy = (letters: string): Set<ReplicaId> => new Set(Array.from(letters, replicaOn))

describe('the record of a volume', () => {
  it('knows the replicas of all stripes, and which of them are in-sync', () => {
    const state = recordOf({ replicas: 'Ab cD' })
    assert.deepEqual(
      replicasOf(state).map(({ replica }) => replica),
      ['a', 'b', 'c', 'd'].map(replicaOn)
    )
    assert.deepEqual(
      inSyncReplicas(state).map(({ replica }) => replica),
      [replicaOn('a'), replicaOn('d')]
    )
  })

  it('is pristine until the first reservation, which may already have led to writes', () => {
    const fresh = recordOf({ epoch: 0, primary: null, reservedBy: null })
    assert.equal(isPristine(fresh), true)
    const reserved = reserveEpoch(fresh, HOST_A, 'x')
    assert.equal(isPristine(reserved), false)
    assert.equal(isPristine({ ...fresh, primary: HOST_A }), false)
    assert.equal(isPristine({ ...fresh, epoch: epoch(1) }), false)
  })
})

describe('reserving an epoch', () => {
  it('gives out the next number above all that were given out, and leaves the primary in its right', () => {
    const before = recordOf({ epoch: 5, reserved: 8, primary: HOST_A })
    const after = reserveEpoch(before, HOST_B, 'mine')
    assert.deepEqual(after, { ...before, reserved: { epoch: 9, host: HOST_B, operation: 'mine' } })
  })
})

describe('taking a volume', () => {
  const reserved = recordOf({ epoch: 5, reserved: 6, reservedBy: HOST_B, replicas: 'ABC' })

  it('makes the host primary at its epoch, and those that did not accept stale', () => {
    const taken = takeVolume(reserved, HOST_B, epoch(6), acceptedBy('bc'))!
    assert.equal(taken.primary, HOST_B)
    assert.equal(taken.epoch, 6)
    assert.equal(lettersOf(taken), 'aBC')
  })

  it('makes no stale replica in-sync, even if it accepted', () => {
    const state = recordOf({ reserved: 6, reservedBy: HOST_B, replicas: 'aB' })
    assert.equal(lettersOf(takeVolume(state, HOST_B, epoch(6), acceptedBy('ab'))!), 'aB')
  })

  it('is refused once the epoch was overtaken by another reservation', () => {
    assert.equal(takeVolume(reserveEpoch(reserved, HOST_A, 'x'), HOST_B, epoch(6), acceptedBy('abc')), null)
  })

  it('is refused once the volume has grown, of which the replicas that accepted do not know', () => {
    const grown = growVolume(reserved, (reserved.size * 2) as ByteLength, 'grow')
    assert.equal(grown.size, reserved.size * 2)
    assert.equal(takeVolume(grown, HOST_B, epoch(6), acceptedBy('abc')), null)
  })

  it('is refused to a host that did not reserve the epoch', () => {
    assert.equal(takeVolume(reserved, HOST_A, epoch(6), acceptedBy('abc')), null)
  })

  it('is refused when no in-sync replica accepted', () => {
    assert.equal(takeVolume(reserved, HOST_B, epoch(6), acceptedBy('')), null)
    const stale = recordOf({ reserved: 6, reservedBy: HOST_B, replicas: 'aB' })
    assert.equal(takeVolume(stale, HOST_B, epoch(6), acceptedBy('a')), null)
  })

  it('is refused when one stripe has nobody who accepted', () => {
    const striped = recordOf({ reserved: 6, reservedBy: HOST_B, replicas: 'AB CD' })
    assert.equal(takeVolume(striped, HOST_B, epoch(6), acceptedBy('ab')), null)
    assert.equal(lettersOf(takeVolume(striped, HOST_B, epoch(6), acceptedBy('ad'))!), 'Ab cD')
  })
})

describe('changing who is in-sync', () => {
  const state = recordOf({ epoch: 5, reserved: 7, primary: HOST_A, replicas: 'AB' })
  const only = (letter: string) => (replica: { replica: ReplicaId }) => replica.replica === replicaOn(letter)

  it('goes to a new epoch above every reservation, which voids a contender', () => {
    const next = changeMembership(state, HOST_A, epoch(5), 'mine', only('a'))!
    assert.equal(lettersOf(next), 'Ab')
    assert.equal(next.epoch, 8)
    assert.deepEqual(next.reserved, { epoch: 8, host: HOST_A, operation: 'mine' })
    assert.equal(takeVolume(next, HOST_B, epoch(7), acceptedBy('ab')), null)
  })

  it('may put one back', () => {
    const stale = recordOf({ replicas: 'Ab' })
    assert.equal(lettersOf(changeMembership(stale, HOST_A, epoch(5), 'x', () => true)!), 'AB')
  })

  it('fails when nobody would be left, also on one stripe only', () => {
    const left = /no replica would be left/
    assert.throws(() => changeMembership(state, HOST_A, epoch(5), 'x', () => false), left)
    const striped = recordOf({ replicas: 'A B' })
    assert.throws(() => changeMembership(striped, HOST_A, epoch(5), 'x', only('a')), left)
  })

  it('is refused to a host that is not primary any more, or is so at another epoch', () => {
    assert.equal(
      changeMembership(state, HOST_B, epoch(5), 'x', () => true),
      null
    )
    assert.equal(
      changeMembership(state, HOST_A, epoch(4), 'x', () => true),
      null
    )
    assert.equal(
      changeMembership({ ...state, primary: null }, HOST_A, epoch(5), 'x', () => true),
      null
    )
  })
})

describe('replacing a lost replica', () => {
  const replacement = { replica: replicaOn('n'), store: 'another store' as StoreId }

  it('puts the new id in its place, stale, under a new epoch', () => {
    const state = recordOf({ replicas: 'AbC' })
    const next = replaceReplica(state, HOST_A, epoch(5), 'x', replicaOn('b'), replacement)!
    assert.equal(lettersOf(next), 'AnC')
    assert.equal(next.epoch, 6)
    const replaced = replicasOf(next).find(({ replica }) => replica === replacement.replica)
    assert.deepEqual(replaced, { host: HOST_B, ...replacement, inSync: false })
  })

  it('never lets the new one count as in-sync, even if the lost one did', () => {
    const next = replaceReplica(recordOf(), HOST_A, epoch(5), 'x', replicaOn('b'), replacement)!
    assert.equal(lettersOf(next), 'An')
  })

  it('fails for the last in-sync replica', () => {
    const state = recordOf({ replicas: 'aB' })
    assert.throws(
      () => replaceReplica(state, HOST_A, epoch(5), 'x', replicaOn('b'), replacement),
      /no replica would be left/
    )
  })

  it('is refused to a host that is not primary any more', () => {
    assert.equal(replaceReplica(recordOf(), HOST_B, epoch(5), 'x', replicaOn('b'), replacement), null)
  })
})

describe('closing a volume', () => {
  it('leaves nobody in the right to write, and the epoch as the replicas have stored it', () => {
    const state = recordOf()
    assert.deepEqual(closeVolume(state), { ...state, primary: null })
  })
})
