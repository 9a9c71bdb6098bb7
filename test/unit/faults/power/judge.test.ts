import assert from 'node:assert/strict'
import { CYCLE, SLOTS, changeOf, itemIn, slotsText, standingAt, textOf } from '../../../faults/power/items.ts'
import { type Chain, judge } from '../../../faults/power/judge.ts'

const SLOTTED: Chain = { shape: 'slots', durable: true }
const LAST: Chain = { shape: 'last', durable: true }

describe('the judge of a power cut', () => {
  it('takes what was acknowledged, and what was in flight, there or not', () => {
    const standing = { acknowledged: 41, sent: 42 }
    for (const at of [41, 42]) {
      assert.deepEqual(judge(SLOTTED, standing, standingAt('slots', at)), { kind: 'kept', at })
    }
  })

  it('finds an acknowledged item that is gone', () => {
    assert.equal(judge(SLOTTED, { acknowledged: 41, sent: 42 }, standingAt('slots', 40)).kind, 'lost')
    assert.equal(judge(LAST, { acknowledged: 1, sent: 1 }, '0').kind, 'lost')
  })

  it('finds what was never sent, and half of an item', () => {
    assert.equal(judge(LAST, { acknowledged: 41, sent: 42 }, '43').kind, 'damaged')
    const mixed = standingAt('slots', 42).replace('42:', '41:')
    assert.equal(judge(SLOTTED, { acknowledged: 41, sent: 42 }, mixed).kind, 'damaged')
    assert.equal(judge(SLOTTED, { acknowledged: 41, sent: 42 }, 'nothing').kind, 'damaged')
  })

  it('lets a chain be older that is not durable, and not newer', () => {
    const chain: Chain = { shape: 'last', durable: false }
    assert.deepEqual(judge(chain, { acknowledged: 41, sent: 42 }, '7'), { kind: 'kept', at: 7 })
    assert.equal(judge(chain, { acknowledged: 41, sent: 42 }, '43').kind, 'damaged')
  })

  it('tells two items that follow each other apart, in every shape', () => {
    for (let n = 0; n < 3 * SLOTS * CYCLE; n++) {
      for (const shape of ['slots', 'last', 'cycle', 'toggle'] as const) {
        assert.notEqual(standingAt(shape, n), standingAt(shape, n + 1))
      }
      // A step that empties an empty slot is the one that cannot be seen.
      const { removed } = changeOf('steps', n + 1)
      if (removed === null) assert.notEqual(standingAt('steps', n), standingAt('steps', n + 1))
    }
  })
})

describe('items', () => {
  it('are known again by their text, whole only', () => {
    for (const n of [1, 2, 17, 1000]) {
      const text = textOf('chain', n)
      assert.equal(itemIn('chain', text), n)
      assert.throws(() => itemIn('chain', text.slice(0, -1)), /no item/)
      assert.throws(() => itemIn('other', text), /no item/)
    }
  })

  it('leave what their changes add up to', () => {
    const slots = new Map<number, number>()
    for (let n = 1; n <= 100; n++) {
      const { put, removed } = changeOf('slots', n)
      slots.set(put!, n)
      if (removed !== null) slots.delete(removed)
      assert.equal(standingAt('slots', n), slotsText(slots, n))
    }
  })
})
