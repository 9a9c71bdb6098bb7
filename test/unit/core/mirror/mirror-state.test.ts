import assert from 'node:assert/strict'
import { ACKNOWLEDGEMENT } from '../../../../core/mirror/acknowledgement.ts'
import { REGION_BYTES, epoch, type RegionIndex } from '../../../../core/units.ts'
import { NOW, Primary } from './primary.ts'
import { ms, replicaOn } from './samples.ts'

describe('the table of acknowledgement', () => {
  it('waits for in-sync replicas only, and takes out only those', () => {
    for (const [standing, row] of Object.entries(ACKNOWLEDGEMENT)) {
      assert.equal(row['none yet'] === 'wait', standing === 'in-sync')
      assert.equal(row.failed === 'take out', standing === 'in-sync')
      assert.equal(row.done, 'enough')
    }
  })
})

describe('a change on its primary', () => {
  it('goes to all in-sync and rebuilding replicas at once, and to no stale one', () => {
    const primary = new Primary('AB+cd')
    primary.write()
    assert.deepEqual(primary.effects(), ['send 1 to a', 'send 1 to b', 'send 1 to c'])
  })

  it('is acknowledged when the last in-sync replica has answered, and not before', () => {
    const primary = new Primary('ABC')
    const request = primary.write()
    primary.effects()
    primary.answer(request, 'ca')
    assert.deepEqual(primary.effects(), [])
    primary.answer(request, 'b')
    assert.deepEqual(primary.effects(), ['acknowledge 1', 'finished 1'])
  })

  it('is not acknowledged while an in-sync replica owes no promise, and is when there is a new one', () => {
    const primary = new Primary('AB')
    const request = primary.write()
    primary.effects()
    primary.answer(request, 'ab', ms(NOW + 3000))
    assert.deepEqual(primary.effects(ms(NOW + 3000)), [])
    assert.equal(primary.state.runningCount, 1)
    assert.equal(primary.state.withheldCount, 1)
    primary.state.promised(replicaOn('b'), ms(NOW + 6000))
    assert.deepEqual(primary.effects(ms(NOW + 3001)), ['acknowledge 1', 'finished 1'])
    assert.equal(primary.state.withheldCount, 0)
  })

  it('is not acknowledged when, before there is a new promise, it is waited for again', () => {
    const primary = new Primary('AB')
    const request = primary.write()
    primary.effects()
    primary.answer(request, 'ab', ms(NOW + 3000))
    assert.deepEqual(primary.effects(ms(NOW + 3000)), [])
    // The volume is opened again.
    primary.state.addLink(replicaOn('b'), false)
    primary.stand('AB')
    primary.state.promised(replicaOn('b'), ms(NOW + 6000))
    assert.deepEqual(primary.effects(ms(NOW + 3001)), [])
    primary.answer(request, 'b', ms(NOW + 3002))
    assert.deepEqual(primary.effects(), ['acknowledge 1', 'finished 1'])
  })

  it('does not wait for a rebuilding replica, which still needs its data', () => {
    const primary = new Primary('A+b')
    const request = primary.write()
    primary.effects()
    primary.answer(request, 'a')
    assert.deepEqual(primary.effects(), ['acknowledge 1'])
    assert.equal(primary.state.caughtUp(replicaOn('b'), 1), false)
    primary.answer(request, 'b')
    assert.deepEqual(primary.effects(), ['finished 1'])
    assert.equal(primary.state.caughtUp(replicaOn('b'), 1), true)
  })

  it('is not counted twice when a replica answers twice', () => {
    const primary = new Primary('AB')
    const request = primary.write()
    primary.effects()
    primary.answer(request, 'aa')
    assert.deepEqual(primary.effects(), [])
  })

  it('is not refused by a replica that has done it, or that nobody asks any more', () => {
    const primary = new Primary('AB')
    const request = primary.write()
    primary.answer(request, 'a')
    primary.state.refused(request, replicaOn('a'), NOW)
    primary.answer(request, 'b')
    primary.state.refused(request, replicaOn('b'), NOW)
    assert.equal(primary.state.refusedCount, 0)
  })

  it('waits for an in-sync replica that is away, and is sent to it again when it is back', () => {
    const primary = new Primary('AB')
    const request = primary.write()
    primary.effects()
    primary.disconnect('b')
    primary.answer(request, 'a')
    assert.deepEqual(primary.effects(), [])
    primary.connect('b')
    assert.deepEqual(primary.effects(), ['send 1 to b'])
    primary.answer(request, 'b')
    assert.deepEqual(primary.effects(), ['acknowledge 1', 'finished 1'])
  })

  it('that begins while an in-sync replica is away waits for it too', () => {
    const primary = new Primary('AB')
    primary.disconnect('b')
    const request = primary.write()
    assert.deepEqual(primary.effects(), ['send 1 to a'])
    primary.answer(request, 'a')
    assert.deepEqual(primary.effects(), [])
    primary.connect('b')
    assert.deepEqual(primary.effects(), ['send 1 to b'])
  })

  it('is sent again in order, and only what has not been answered', () => {
    const primary = new Primary('AB')
    const [first, second, third] = [primary.write(0), primary.write(4096), primary.write(8192)]
    primary.answer(second, 'ab')
    primary.effects()
    primary.disconnect('b')
    primary.connect('b')
    assert.deepEqual(primary.effects(), [`send ${first.number} to b`, `send ${third.number} to b`])
  })

  it('is acknowledged once the record says that the replica it waits for is not in-sync', () => {
    const primary = new Primary('AB')
    const request = primary.write()
    primary.disconnect('b')
    primary.answer(request, 'a')
    primary.effects()
    primary.stand('Ab')
    assert.deepEqual(primary.effects(), ['acknowledge 1', 'finished 1'])
  })

  it('does not wait for a rebuilding replica that is lost, whose intents collect what it misses', () => {
    const primary = new Primary('A+b')
    const request = primary.write()
    primary.answer(request, 'a')
    primary.effects()
    primary.disconnect('b')
    assert.deepEqual(primary.effects(), ['finished 1'])
  })

  it('is never acknowledged while nobody is in-sync', () => {
    const primary = new Primary('A')
    const request = primary.write()
    primary.disconnect('a')
    primary.stand('a')
    primary.effects()
    assert.equal(request.acknowledged, false)
    primary.write(8192)
    assert.deepEqual(primary.effects(), [])
  })

  it('waits for a replica that is put back from the moment it is', () => {
    const primary = new Primary('A+b')
    const request = primary.write()
    primary.effects()
    primary.stand('AB')
    primary.answer(request, 'a')
    assert.deepEqual(primary.effects(), [])
    primary.answer(request, 'b')
    assert.deepEqual(primary.effects(), ['acknowledge 1', 'finished 1'])
  })

  it('waits for one that overlaps it, until that is finished on replicas nobody relies on too', () => {
    const primary = new Primary('A+b')
    const [first, second] = [primary.write(), primary.write()]
    assert.deepEqual(primary.effects(), ['send 1 to a', 'send 1 to b'])
    primary.answer(first, 'a')
    assert.deepEqual(primary.effects(), ['acknowledge 1'])
    primary.answer(first, 'b')
    assert.deepEqual(primary.effects(), ['finished 1', 'send 2 to a', 'send 2 to b'])
    assert.equal(second.acknowledged, false)
  })

  for (const kind of ['zero', 'trim'] as const) {
    it(`is a ${kind} as much as a write`, () => {
      const primary = new Primary('AB')
      const request = primary.submit(kind)
      primary.answer(request, 'ab')
      assert.deepEqual(primary.effects(), ['send 1 to a', 'send 1 to b', 'acknowledge 1', 'finished 1'])
    })
  }

  it('is seen to be under way until it is finished', () => {
    const primary = new Primary('A')
    const request = primary.write()
    assert.equal(primary.state.changing(0, 1), true)
    assert.equal(primary.state.runningCount, 1)
    primary.answer(request, 'a')
    assert.equal(primary.state.changing(0, 1), false)
    assert.equal(primary.state.runningCount, 0)
  })
})

describe('a read on its primary', () => {
  it('goes to the local replica when that is in-sync, else to another', () => {
    const local = new Primary('BA')
    local.submit('read')
    assert.deepEqual(local.effects(), ['read 1 to a'])
    const remote = new Primary('aB')
    remote.submit('read')
    assert.deepEqual(remote.effects(), ['read 1 to b'])
  })

  it('is returned while every other in-sync replica owes a promise', () => {
    const primary = new Primary('AB')
    const request = primary.submit('read')
    primary.effects()
    primary.answer(request, 'a')
    assert.deepEqual(primary.effects(), ['acknowledge 1', 'finished 1'])
  })

  it('is held when a promise has lapsed while it was done, and done again when there is a new one', () => {
    const primary = new Primary('AB')
    const request = primary.submit('read')
    primary.effects()
    primary.answer(request, 'a', ms(NOW + 3000))
    assert.deepEqual(primary.effects(), [])
    assert.equal(primary.state.heldCount, 1)
    primary.state.promised(replicaOn('b'), ms(NOW + 6000))
    assert.deepEqual(primary.effects(), ['read 1 to a'], 'the bytes of before may be old')
    primary.answer(request, 'a', ms(NOW + 3001))
    assert.deepEqual(primary.effects(), ['acknowledge 1', 'finished 1'])
  })

  it('needs no promise from its own host, from stale and from rebuilding replicas', () => {
    const primary = new Primary('Ab+c')
    assert.equal(primary.state.promisesHold(ms(1e9)), true)
  })

  it('needs the promise of an in-sync replica even while it is not connected', () => {
    const primary = new Primary('AB')
    primary.disconnect('b')
    assert.equal(primary.state.promisesHold(NOW), true)
    assert.equal(primary.state.promisesHold(ms(NOW + 3000)), false)
  })

  it('does not take a promise back, and knows nothing of one for a replica that is not there', () => {
    const primary = new Primary('AB')
    primary.state.promised(replicaOn('b'), ms(1))
    primary.state.promised(replicaOn('x'), ms(1))
    assert.equal(primary.state.promisesHold(NOW), true)
  })

  it('is held while the volume is held, and its answer of before does not count', () => {
    const primary = new Primary('AB')
    const request = primary.submit('read')
    primary.state.hold()
    primary.effects()
    primary.answer(request, 'a')
    assert.deepEqual(primary.effects(), [])
    primary.state.serve(primary.unreconciled)
    assert.deepEqual(primary.effects(), ['read 1 to a'])
  })

  it('goes to another replica when the one that was asked is lost', () => {
    const primary = new Primary('AB')
    const request = primary.submit('read')
    primary.effects()
    primary.disconnect('a')
    assert.deepEqual(primary.effects(), ['read 1 to b'])
    primary.answer(request, 'a')
    assert.deepEqual(primary.effects(), [], 'a late answer of the lost one says nothing')
  })

  it('waits while no replica that may be read is connected', () => {
    const primary = new Primary('A+b')
    primary.disconnect('a')
    const request = primary.submit('read')
    assert.deepEqual(primary.effects(), [])
    primary.connect('a')
    assert.deepEqual(primary.effects(), [`read ${request.number} to a`])
  })

  it('is not done on a replica that is in-sync in one of two possible records only', () => {
    const primary = new Primary('AB')
    primary.state.setStandings([{ replica: replicaOn('a'), standing: 'in-sync', mayBeRead: false }])
    primary.submit('read')
    assert.deepEqual(primary.effects(), ['read 1 to b'])
  })

  it('waits for a change that overlaps it', () => {
    const primary = new Primary('A')
    const change = primary.write()
    primary.submit('read')
    primary.effects()
    primary.answer(change, 'a')
    assert.deepEqual(primary.effects(), ['acknowledge 1', 'finished 1', 'read 2 to a'])
  })

  it('of regions that may differ asks for them and waits until each is reconciled', () => {
    const primary = new Primary('AB', { serving: false })
    primary.unreconciled.addRange(0 as RegionIndex, 4 as RegionIndex)
    primary.state.serve(primary.unreconciled)
    primary.submit('read', REGION_BYTES, REGION_BYTES + 1)
    assert.deepEqual(primary.effects(), ['reconcile 1', 'reconcile 2'])
    primary.state.reconciled(1 as RegionIndex)
    assert.deepEqual(primary.effects(), ['reconcile 2'])
    primary.state.reconciled(2 as RegionIndex)
    assert.deepEqual(primary.effects(), ['read 1 to a'])
    assert.deepEqual([...primary.unreconciled], [0, 3])
    primary.state.reconciled(2 as RegionIndex)
    assert.deepEqual([...primary.unreconciled], [0, 3])
  })
})

describe('a flush on its primary', () => {
  it('goes to every in-sync replica and is acknowledged by all', () => {
    const primary = new Primary('AB')
    const request = primary.flush()
    primary.answer(request, 'a')
    assert.deepEqual(primary.effects(), ['send 1 to a', 'send 1 to b'])
    primary.answer(request, 'b')
    assert.deepEqual(primary.effects(), ['acknowledge 1', 'finished 1'])
  })

  it('waits for no request and keeps none waiting', () => {
    const primary = new Primary('A')
    primary.write()
    primary.flush()
    primary.write(8192)
    assert.deepEqual(primary.effects(), ['send 1 to a', 'send 2 to a', 'send 3 to a'])
  })

  it('covers what was acknowledged before it, and nothing that was acknowledged after it was sent', () => {
    const primary = new Primary('A')
    primary.written('a')
    assert.equal(primary.state.unflushed, true)
    const flush = primary.flush()
    assert.equal(primary.state.unflushed, true)
    primary.written('a', 8192)
    primary.answer(flush, 'a')
    assert.equal(primary.state.unflushed, true, 'the second write came after the flush')
    primary.answer(primary.flush(), 'a')
    assert.equal(primary.state.unflushed, false)
  })

  it('does not cover a write that was under way when it was sent and acknowledged later', () => {
    const primary = new Primary('AB')
    const write = primary.write()
    const flush = primary.flush()
    primary.answer(write, 'ab')
    primary.answer(flush, 'ab')
    assert.equal(primary.state.unflushed, true)
  })

  it('is not needed after durable writes', () => {
    const primary = new Primary('A')
    primary.written('a', 0, true)
    assert.equal(primary.state.unflushed, false)
  })

  it('fails once after acknowledged writes were lost that it should have covered', () => {
    const primary = new Primary('A')
    primary.written('a')
    primary.loseUnflushed()
    primary.flush()
    assert.deepEqual(primary.effects(), ['fail-flush 2'])
    assert.equal(primary.state.unflushed, false)
    primary.answer(primary.flush(), 'a')
    assert.deepEqual(primary.effects(), ['send 3 to a', 'acknowledge 3', 'finished 3'])
  })

  it('does not fail when nothing was lost that it should have covered', () => {
    const primary = new Primary('A')
    primary.written('a')
    primary.answer(primary.flush(), 'a')
    primary.loseUnflushed()
    primary.effects()
    primary.flush()
    assert.deepEqual(primary.effects(), ['send 3 to a'])
  })

  it('does not fail when one replica lost nothing, or only what an earlier opening had written', () => {
    for (const lost of [null, epoch(5)]) {
      const primary = new Primary('AB')
      primary.state.opened(epoch(6), [epoch(5), null])
      primary.written('ab')
      primary.state.opened(epoch(8), [lost, epoch(7)])
      const flush = primary.flush()
      assert.deepEqual(primary.effects(), [`send ${flush.number} to a`, `send ${flush.number} to b`])
    }
  })

  it('fails when all replicas lost what came since the first opening whose writes are not flushed', () => {
    const primary = new Primary('AB')
    primary.state.opened(epoch(6), [null, null])
    primary.written('ab')
    primary.state.opened(epoch(8), [null, null])
    primary.written('ab')
    primary.state.opened(epoch(10), [epoch(6), epoch(8)])
    const flush = primary.flush()
    assert.deepEqual(primary.effects(), [`fail-flush ${flush.number}`])
  })

  it('fails only when the volume is served: until then it is held', () => {
    const primary = new Primary('A')
    primary.written('a')
    primary.state.hold()
    primary.loseUnflushed()
    primary.flush()
    assert.deepEqual(primary.effects(), [])
    primary.state.serve(primary.unreconciled)
    assert.deepEqual(primary.effects(), ['fail-flush 2'])
  })
})

describe('a primary that acknowledges only what is durable', () => {
  it('holds back answered changes until it may acknowledge again', () => {
    const primary = new Primary('AB')
    const request = primary.write()
    primary.state.acknowledgeOnlyDurable(true)
    primary.effects()
    primary.answer(request, 'ab')
    assert.deepEqual(primary.effects(), [])
    primary.stand('Ab')
    assert.deepEqual(primary.effects(), [])
    primary.state.acknowledgeOnlyDurable(false)
    assert.deepEqual(primary.effects(), ['acknowledge 1', 'finished 1'])
  })

  it('acknowledges durable writes and flushes', () => {
    const primary = new Primary('A')
    primary.state.acknowledgeOnlyDurable(true)
    primary.answer(primary.write(0, true), 'a')
    primary.answer(primary.flush(), 'a')
    assert.deepEqual(
      primary.effects().filter(text => text.startsWith('acknowledge')),
      ['acknowledge 1', 'acknowledge 2']
    )
  })
})
