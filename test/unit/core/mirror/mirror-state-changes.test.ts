/** A primary that stops serving, is locked, or gets another set of replicas. */
import assert from 'node:assert/strict'
import { REGION_BYTES } from '../../../../core/units.ts'
import { Primary } from './primary.ts'
import { replicaOn } from './samples.ts'

describe('a primary that does not serve', () => {
  it('holds every kind of request and runs all of them, in order, when it does', () => {
    const primary = new Primary('A', { serving: false })
    primary.write(0)
    primary.submit('read', 8192)
    primary.flush()
    assert.deepEqual(primary.effects(), [])
    assert.equal(primary.state.heldCount, 3)
    assert.equal(primary.state.serving, false)
    primary.state.serve(primary.unreconciled)
    assert.deepEqual(primary.effects(), ['send 1 to a', 'read 2 to a', 'send 3 to a'])
  })

  it('lets go on what is under way on replicas', () => {
    const primary = new Primary('AB')
    const request = primary.write()
    primary.state.hold()
    primary.effects()
    primary.answer(request, 'ab')
    assert.deepEqual(primary.effects(), ['acknowledge 1', 'finished 1'])
  })

  it('grants locks, which its own copies need', () => {
    const primary = new Primary('A', { serving: false })
    primary.submit('lock', 0, REGION_BYTES)
    assert.deepEqual(primary.effects(), ['acknowledge 1'])
  })
})

describe('a lock on a primary', () => {
  it('keeps changes away until it is ended, and lets reads pass', () => {
    const primary = new Primary('A')
    const lock = primary.submit('lock', 0, REGION_BYTES)
    primary.write()
    assert.deepEqual(primary.effects(), ['acknowledge 1'])
    primary.submit('read', 8192)
    assert.deepEqual(primary.effects(), ['read 3 to a'])
    primary.state.unlock(lock)
    assert.deepEqual(primary.effects(), ['finished 1', 'send 2 to a'])
  })

  it('is granted when the change that it waits for is finished', () => {
    const primary = new Primary('A')
    const change = primary.write()
    primary.submit('lock', 0, REGION_BYTES)
    primary.effects()
    primary.answer(change, 'a')
    assert.deepEqual(primary.effects(), ['acknowledge 1', 'finished 1', 'acknowledge 2'])
  })
})

describe('a primary that gets another set of replicas', () => {
  it('forgets a replica that is replaced, and what it was asked', () => {
    const primary = new Primary('A+b')
    const request = primary.write()
    primary.answer(request, 'a')
    primary.effects()
    primary.state.removeLink(replicaOn('b'))
    assert.deepEqual(primary.effects(), ['finished 1'])
    primary.write(8192)
    assert.deepEqual(primary.effects(), ['send 2 to a'])
  })

  it('forgets those that the record does not name any more when the volume is opened again', () => {
    const primary = new Primary('ABC')
    primary.state.keepLinks(new Set([replicaOn('a'), replicaOn('c')]))
    primary.answer(primary.write(), 'ac')
    assert.deepEqual(primary.effects(), ['send 1 to a', 'send 1 to c', 'acknowledge 1', 'finished 1'])
  })

  it('is told of a replica that it does not have', () => {
    const primary = new Primary('A')
    assert.throws(() => primary.connect('x'), /no link to replica replica x/)
  })

  it('asks every replica anew for what was not acknowledged when it was opened again', () => {
    const primary = new Primary('AB')
    const request = primary.write()
    // Replica b answers, then both hosts lose power: what b answered may be lost with the rest.
    primary.answer(request, 'b')
    primary.effects()
    primary.state.hold()
    for (const letter of 'ab') primary.disconnect(letter)
    for (const letter of 'ab') primary.state.addLink(replicaOn(letter), false)
    primary.stand('AB')
    for (const letter of 'ab') primary.connect(letter)
    assert.deepEqual(primary.effects(), ['send 1 to a', 'send 1 to b'])
  })

  it('fails a flush that was under way when the writes that it covers were lost', () => {
    const primary = new Primary('AB')
    primary.written('ab')
    const flush = primary.flush()
    primary.effects()
    primary.state.hold()
    for (const letter of 'ab') primary.disconnect(letter)
    primary.loseUnflushed()
    for (const letter of 'ab') primary.state.addLink(replicaOn(letter), false)
    primary.stand('AB')
    for (const letter of 'ab') primary.connect(letter)
    primary.state.serve(primary.unreconciled)
    primary.answer(flush, 'ab')
    const effects = primary.effects()
    assert(effects.includes(`fail-flush ${flush.number}`), effects.join(', '))
    assert(!effects.includes(`acknowledge ${flush.number}`))
  })

  it('goes on with a read whose replica becomes stale while it is connected', () => {
    const primary = new Primary('AB')
    primary.submit('read')
    primary.effects()
    primary.stand('aB')
    assert.deepEqual(primary.effects(), ['read 1 to b'])
  })
})
