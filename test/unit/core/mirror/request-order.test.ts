import assert from 'node:assert/strict'
import { type Access, type OrderedRange, RequestOrder } from '../../../../core/mirror/request-order.ts'

const range = (access: Access, offset: number, length = 10): OrderedRange => ({ access, offset, length })

describe('the order of requests', () => {
  let order: RequestOrder<OrderedRange>
  beforeEach(() => (order = new RequestOrder()))

  it('runs requests together that touch different bytes, down to neighbours', () => {
    assert(order.submit(range('change', 0)))
    assert(order.submit(range('change', 10)))
    assert(order.submit(range('read', 20)))
    assert(order.submit(range('lock', 30)))
  })

  const together: Record<Access, Record<Access, boolean>> = {
    read: { read: true, change: false, lock: true },
    change: { read: false, change: false, lock: false },
    lock: { read: true, change: false, lock: false },
  }
  for (const first of ['read', 'change', 'lock'] as const) {
    for (const second of ['read', 'change', 'lock'] as const) {
      it(`${together[first][second] ? 'runs' : 'does not run'} a ${second} beside a ${first} of one byte in common`, () => {
        assert(order.submit(range(first, 0)))
        assert.equal(order.submit(range(second, 9)), together[first][second])
      })
    }
  }

  it('lets those run that waited, as soon as nothing overlaps them', () => {
    const [one, two, waiting] = [range('change', 0), range('change', 10), range('change', 5)]
    order.submit(one)
    order.submit(two)
    assert.equal(order.submit(waiting), false)
    assert.deepEqual(order.finish(one), [])
    assert.deepEqual(order.finish(two), [waiting])
    assert.deepEqual(order.finish(waiting), [], 'each comes back once')
  })

  it('lets several run at once, in the order in which they came, and only the first of two that overlap', () => {
    const running = range('change', 0, 100)
    const [read, change, other] = [range('read', 0), range('change', 5), range('change', 50)]
    order.submit(running)
    for (const request of [read, change, other]) order.submit(request)
    assert.deepEqual(order.finish(running), [read, other])
    assert.deepEqual(order.finish(read), [change])
  })

  it('does not let a request pass an earlier one that waits, so that readers cannot starve a writer', () => {
    const [read, change, later] = [range('read', 0), range('change', 0), range('read', 0)]
    order.submit(read)
    order.submit(change)
    assert.equal(order.submit(later), false)
    assert.deepEqual(order.finish(read), [change])
    assert.deepEqual(order.finish(change), [later])
  })

  it('lets a lock pass changes that wait for a read, which may wait for what the lock is for', () => {
    order.submit(range('read', 0))
    assert.equal(order.submit(range('change', 0)), false)
    assert.equal(order.submit(range('lock', 0)), true)
  })

  it('puts a lock that must wait before all changes that wait', () => {
    const [running, waiting, lock] = [range('change', 0), range('change', 0), range('lock', 0)]
    order.submit(running)
    order.submit(waiting)
    assert.equal(order.submit(lock), false)
    assert.deepEqual(order.finish(running), [lock])
    assert.deepEqual(order.finish(lock), [waiting])
  })

  it('grants locks of one region in the order in which they came', () => {
    const [first, second, third] = [range('lock', 0), range('lock', 0), range('lock', 0)]
    order.submit(first)
    assert.equal(order.submit(second), false)
    assert.equal(order.submit(third), false)
    assert.deepEqual(order.finish(first), [second])
    assert.deepEqual(order.finish(second), [third])
  })

  it('knows whether bytes are being changed: by a change that runs or waits, not by reads and locks', () => {
    const change = range('change', 0)
    order.submit(range('read', 20))
    order.submit(range('lock', 40))
    order.submit(change)
    order.submit(range('change', 20))
    assert.equal(order.changing(9, 1), true)
    assert.equal(order.changing(10, 5), false)
    assert.equal(order.changing(25, 1), true, 'one that waits counts')
    assert.equal(order.changing(40, 10), false)
    order.finish(change)
    assert.equal(order.changing(0, 10), false)
  })
})
