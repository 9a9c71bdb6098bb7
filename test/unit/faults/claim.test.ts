import assert from 'node:assert/strict'
import { type AcknowledgedWrite, findTwoWriters } from '../../faults/activation/claim.ts'

const writes = (hosts: string): AcknowledgedWrite[] =>
  Array.from(hosts, (host, index) => ({ host, sentAt: index * 10, acknowledgedAt: index * 10 + 5 }))

describe('the judge of the activation race', () => {
  it('accepts one writer, and a right that passed on', () => {
    assert.equal(findTwoWriters(writes('AAAA')), null)
    assert.equal(findTwoWriters(writes('AABBBC')), null)
  })

  it('accepts an answer that came late, to a write from before the right passed on', () => {
    const late = { host: 'A', sentAt: 7, acknowledgedAt: 1000 }
    assert.equal(findTwoWriters([...writes('ABBB'), late]), null)
  })

  it('accuses a host that writes again after another one has written', () => {
    assert.match(findTwoWriters(writes('AABA')) ?? '', /A wrote, then B, then A again/)
    assert.match(findTwoWriters(writes('ABCB')) ?? '', /B wrote, then C, then B again/)
  })
})
