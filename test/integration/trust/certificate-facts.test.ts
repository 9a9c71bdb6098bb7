import assert from 'node:assert/strict'
import { certificateFacts, fingerprintOf } from '../../../trust/certificate.ts'
import { TrustRig } from '../../support/trust-rig.ts'

describe('the facts of a certificate', () => {
  it('are read once, however often it is shown, and are its own', async () => {
    const trust = await TrustRig.create()
    const [one, other] = [await trust.credentials(), await trust.credentials()]
    const facts = certificateFacts(one.certificatePem)
    assert.deepEqual(facts?.identity, one.identity)
    assert.equal(facts.fingerprint, fingerprintOf(one.certificatePem))
    assert.equal(certificateFacts(one.certificatePem), facts, 'it was read again')
    assert.deepEqual(certificateFacts(other.certificatePem)?.identity, other.identity)
  })

  it('are none of what is no certificate, each time', () => {
    const nothing = Buffer.from('no certificate')
    assert.deepEqual([certificateFacts(nothing), certificateFacts(nothing)], [null, null])
  })
})
