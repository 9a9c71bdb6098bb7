import assert from 'node:assert/strict'
import { DurabilityPolicy } from '../../../../datapath/nbd-server/durability-policy.ts'
import { InFlightBudget } from '../../../../datapath/nbd-server/in-flight-budget.ts'

describe('the durability policy of a connection', () => {
  it('makes every change durable for a client that has never asked', () => {
    const policy = new DurabilityPolicy('until-client-asks')
    for (let count = 0; count < 3; count++) assert.equal(policy.mustBeDurable(false), true)
  })

  it('leaves it to the client from its first FLUSH on', () => {
    const policy = new DurabilityPolicy('until-client-asks')
    policy.flushSeen()
    assert.equal(policy.mustBeDurable(false), false)
    assert.equal(policy.mustBeDurable(true), true)
  })

  it('leaves it to the client from its first FUA on', () => {
    const policy = new DurabilityPolicy('until-client-asks')
    assert.equal(policy.mustBeDurable(true), true)
    assert.equal(policy.mustBeDurable(false), false)
  })

  it('never trusts the client where the export says always', () => {
    const policy = new DurabilityPolicy('always')
    policy.flushSeen()
    assert.equal(policy.mustBeDurable(true), true)
    assert.equal(policy.mustBeDurable(false), true)
  })

  it('follows each flag of a peer', () => {
    const policy = new DurabilityPolicy('as-asked')
    assert.equal(policy.mustBeDurable(false), false)
    assert.equal(policy.mustBeDurable(true), true)
  })
})

describe('the budget of bytes in flight', () => {
  it('admits a connection with nothing under way even when others have taken everything', () => {
    const budget = new InFlightBudget(100)
    assert.ok(budget.tryAcquire(100, false))
    assert.equal(budget.tryAcquire(1, false), false)
    assert.ok(budget.tryAcquire(70, true))
    assert.equal(budget.used, 170)
  })

  it('wakes who waits once there is room, and only once', () => {
    const budget = new InFlightBudget(100)
    let woken = 0
    assert.ok(budget.tryAcquire(60, true))
    assert.ok(budget.tryAcquire(60, true))
    budget.wait(() => woken++)
    budget.release(10)
    assert.equal(woken, 0, 'there is still none')
    budget.release(50)
    budget.release(50)
    assert.equal(woken, 1)
  })

  it('does not spin on who finds no room when woken', () => {
    const budget = new InFlightBudget(100)
    assert.ok(budget.tryAcquire(100, true))
    let tries = 0
    const wake = (): void => {
      tries++
      if (!budget.tryAcquire(90, false)) budget.wait(wake)
    }
    budget.wait(wake)
    budget.release(5)
    assert.equal(tries, 1)
    budget.forget(wake)
    budget.release(95)
    assert.equal(tries, 1)
  })
})
