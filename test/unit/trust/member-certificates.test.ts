import assert from 'node:assert/strict'
import {
  CERTIFICATES_MAX,
  type Member,
  withCertificate,
  withoutCertificates,
} from '../../../trust/members.ts'
import { newHostId } from '../../support/trust-rig.ts'

describe('the certificates on the record of a member', () => {
  const member = (...certificates: string[]): Member => ({ host: newHostId(), admission: 'a', certificates })
  const many = Array.from({ length: CERTIFICATES_MAX }, (_, i) => `c${i}`)

  it('are one more after a renewal, once', () => {
    const both = withCertificate(member('a'), 'b', 'a')
    assert.deepEqual(both.certificates, ['a', 'b'])
    assert.deepEqual(withCertificate(both, 'b', 'a').certificates, ['a', 'b'])
  })

  it('are never too many, and never lack the one in use', () => {
    for (const inUse of many) {
      const { certificates } = withCertificate(member(...many), 'new', inUse)
      assert.equal(certificates.length, CERTIFICATES_MAX)
      assert.ok(certificates.includes(inUse) && certificates.includes('new'))
      assert.ok(!certificates.includes(inUse === 'c0' ? 'c1' : 'c0'), 'the oldest goes')
    }
  })

  it('do not come to be by saying that one is in use', () => {
    assert.deepEqual(withCertificate(member('a'), 'b', 'x').certificates, ['a', 'b'])
  })

  it('are retired, but never all', () => {
    const three = member('a', 'b', 'c')
    assert.deepEqual(withoutCertificates(three, ['a', 'c', 'x']).certificates, ['b'])
    assert.equal(withoutCertificates(three, ['a', 'b', 'c']), three)
  })
})
