import assert from 'node:assert/strict'
import { renewalOf } from '../../../trust/renewal.ts'

describe('the end of a certificate', () => {
  const now = new Date('2030-06-01T12:00:00Z')
  const inDays = (days: number) => new Date(now.getTime() + days * 86_400_000)

  it('is renewed four months before, and warned of two months before', () => {
    const states = [365, 120, 119, 60, 59, 0].map(days => renewalOf(inDays(days), now).state)
    assert.deepEqual(states, ['fresh', 'fresh', 'due', 'due', 'ending', 'ending'])
    assert.equal(renewalOf(new Date(now.getTime() - 1), now).state, 'expired')
    assert.equal(renewalOf(inDays(59), now).daysLeft, 59)
  })
})
