import assert from 'node:assert/strict'
import { randomUUID, X509Certificate } from 'node:crypto'
import fc from 'fast-check'
import { type SrId } from '../../../core/units.ts'
import { createHostKey, issueHostCertificate } from '../../../trust/authority.ts'
import { certificateFacts } from '../../../trust/certificate.ts'
import { identityUri, parseIdentityUri } from '../../../trust/identity.ts'
import { type Member, MemberList } from '../../../trust/members.ts'
import { parseTicket, type Ticket, ticketText } from '../../../trust/ticket.ts'
import { verifyPeer } from '../../../trust/verify-peer.ts'
import { newHostId, TrustRig } from '../../support/trust-rig.ts'

/** Bytes with some of them changed, cut off, or doubled. */
const damaged = (bytes: Buffer): fc.Arbitrary<Buffer> =>
  fc
    .record({
      at: fc.array(fc.nat(bytes.length - 1), { minLength: 1, maxLength: 4 }),
      value: fc.nat(255),
      cut: fc.option(fc.nat(bytes.length - 1)),
    })
    .map(({ at, value, cut }) => {
      const copy = Buffer.from(bytes)
      for (const position of at) copy[position] = value
      return cut === null ? copy : copy.subarray(0, cut)
    })

const derOf = (pem: string): Buffer => Buffer.from(pem.replace(/-----[^-]+-----|\s/g, ''), 'base64')

const requestPem = (der: Uint8Array): string =>
  `-----BEGIN CERTIFICATE REQUEST-----\n${Buffer.from(der).toString('base64')}\n-----END CERTIFICATE REQUEST-----\n`

describe('certificates and requests from anybody', () => {
  let rig: TrustRig

  before(async () => {
    rig = await TrustRig.create()
  })

  it('a certificate that was damaged is never a member, and never an exception', async () => {
    const credentials = await rig.credentials()
    const members = new MemberList([rig.enlist(credentials)])
    const { identity: scope, certificatePem } = credentials
    const der = derOf(certificatePem)
    const verdict = (bytes: Uint8Array) => verifyPeer(bytes, { scope, members, host: null, now: new Date() })
    assert.ok('member' in verdict(der))
    fc.assert(
      fc.property(fc.oneof(damaged(der), fc.uint8Array({ maxLength: 200 })), bytes => {
        assert.ok('refused' in verdict(bytes) || der.equals(bytes))
      }),
      { numRuns: 500 }
    )
  })

  it('a request that was damaged is refused, or its key is certified all the same', async () => {
    const { csrPem } = await createHostKey()
    const identity = rig.identity()
    const now = new Date()
    await fc.assert(
      fc.asyncProperty(fc.oneof(damaged(derOf(csrPem)), fc.uint8Array({ maxLength: 200 })), async der => {
        try {
          const request = { csrPem: requestPem(der), identity, addresses: [], now }
          const issued = await issueHostCertificate(rig.authority, request)
          assert.deepEqual(certificateFacts(issued)?.identity, identity)
        } catch (error) {
          assert.equal((error as { code?: string }).code, 'INVALID_ARGUMENT', String(error))
        }
      }),
      { numRuns: 200 }
    )
  })

  it('a request gets nothing but a certificate for its key', async () => {
    const { certificatePem, identity } = await rig.credentials()
    const certificate = new X509Certificate(certificatePem)
    assert.equal(certificate.ca, false)
    assert.ok(certificate.verify(new X509Certificate(rig.authority.certificatePem).publicKey))
    assert.deepEqual(certificateFacts(certificatePem)?.identity, identity)
    const elsewhere = { ...identity, sr: randomUUID() as SrId }
    await assert.rejects(rig.credentials(elsewhere), { code: 'INVALID_ARGUMENT' })
  })

  it('a certificate that names two hosts names none', async () => {
    const uris = [identityUri(rig.identity()), identityUri(rig.identity())]
    assert.equal(certificateFacts((await rig.flawed({ uris })).certificatePem)?.identity, null)
    assert.equal(certificateFacts((await rig.flawed({ uris: [] })).certificatePem)?.identity, null)
  })

  it('a name has one spelling', () => {
    const identity = rig.identity()
    const uri = identityUri(identity)
    assert.deepEqual(parseIdentityUri(uri), identity)
    const others = [
      uri.toUpperCase(),
      `${uri}/`,
      ` ${uri}`,
      uri.replace('/1/', '/01/'),
      uri.replace('/1/', '/0/'),
    ]
    for (const other of others) assert.equal(parseIdentityUri(other), null, other)
    fc.assert(fc.property(fc.string(), text => parseIdentityUri(text) === null))
  })

  it('a ticket is read as it was written, or not at all, and never quoted', async () => {
    const ticket: Ticket = {
      ...rig.authority.scope,
      host: newHostId(),
      holder: { host: newHostId(), address: '10.0.0.1', port: 7790 },
      authorityPem: rig.authority.certificatePem,
      id: 'abcdefghijk',
      secret: 's'.repeat(43),
    }
    const text = ticketText(ticket)
    assert.deepEqual(parseTicket(text), ticket)
    fc.assert(
      fc.property(
        fc.oneof(
          fc.nat(text.length - 1).map(end => text.slice(0, end)),
          fc.string()
        ),
        other => {
          try {
            parseTicket(other)
            assert.fail('it was taken')
          } catch (error) {
            assert.equal((error as { code?: string }).code, 'INVALID_ARGUMENT')
            assert.ok(!String(error).includes('sss'))
          }
        }
      )
    )
  })

  it('a member is known by every certificate of its record, in its time and scope only', async () => {
    const [old, young] = [await rig.credentials(), await rig.credentials()]
    const renewed = await rig.credentials(old.identity)
    const both: Member = {
      ...rig.enlist(old),
      certificates: [old, renewed].map(each => certificateFacts(each.certificatePem)!.fingerprint),
    }
    const members = new MemberList([both])
    const verdict = (pem: string, now = new Date()) =>
      verifyPeer(derOf(pem), { scope: old.identity, members, host: null, now })
    assert.ok('member' in verdict(old.certificatePem))
    assert.ok('member' in verdict(renewed.certificatePem))
    assert.ok('refused' in verdict(young.certificatePem))
    const late = verdict(old.certificatePem, new Date(Date.now() + 366 * 86_400_000))
    assert.equal('refused' in late && late.refused, 'expired')
    const before = verdict(old.certificatePem, new Date('1999-12-31'))
    assert.equal('refused' in before && before.refused, 'not-yet-valid')
    assert.ok('member' in verdict(old.certificatePem, new Date('2001-01-01')), 'a clock without a battery')
  })
})
