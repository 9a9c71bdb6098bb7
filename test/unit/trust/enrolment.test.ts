import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { Enrolment } from '../../../trust/enrolment.ts'
import { newHostId } from '../../support/trust-rig.ts'
import { ManualClock } from '../cluster/manual-clock.ts'

describe('the tickets of hosts that join', () => {
  let clock: ManualClock
  let enrolment: Enrolment
  const host = newHostId()
  const refused = { code: 'ENROLMENT_REFUSED' }

  beforeEach(() => {
    clock = new ManualClock()
    enrolment = new Enrolment({ clock, randomBytes })
  })

  const invite = (who = host) => enrolment.invite({ host: who, addresses: ['10.0.0.1'] })

  it('are good once', () => {
    const { id, secret } = invite()
    assert.deepEqual(enrolment.redeem(id, secret), { host, addresses: ['10.0.0.1'] })
    assert.throws(() => enrolment.redeem(id, secret), refused)
  })

  it('are good for ten minutes', async () => {
    const { id, secret } = invite()
    const other = invite(newHostId())
    await clock.advance(599_999)
    enrolment.redeem(other.id, other.secret)
    await clock.advance(1)
    assert.throws(() => enrolment.redeem(id, secret), refused)
  })

  it('are closed by the third wrong answer', () => {
    const { id, secret } = invite()
    for (let count = 0; count < 3; count++) assert.throws(() => enrolment.redeem(id, 'guess'), /wrong/)
    assert.throws(() => enrolment.redeem(id, secret), /no such ticket/)
  })

  it('are closed by another for the same host, and leave those of others alone', () => {
    const first = invite()
    const other = invite(newHostId())
    const second = invite()
    assert.throws(() => enrolment.redeem(first.id, first.secret), refused)
    enrolment.redeem(second.id, second.secret)
    enrolment.redeem(other.id, other.secret)
  })

  it('do not open with the secret of another one', () => {
    const other = invite(newHostId())
    const { id } = invite()
    assert.throws(() => enrolment.redeem(id, other.secret), /wrong/)
  })

  it('are answered so many times a second, right or wrong', async () => {
    const { id, secret } = invite()
    for (let count = 0; count < 20; count++) {
      assert.throws(() => enrolment.redeem('none', secret), /no such/)
    }
    assert.throws(() => enrolment.redeem(id, secret), /too many/)
    await clock.advance(100)
    assert.equal(enrolment.redeem(id, secret).host, host)
  })

  it('are kept for the largest pool, and not for ever more', () => {
    const first = invite()
    for (let count = 0; count < 64; count++) invite(newHostId())
    assert.throws(() => enrolment.redeem(first.id, first.secret), /no such/)
  })
})
