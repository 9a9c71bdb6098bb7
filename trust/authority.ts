import { randomBytes } from 'node:crypto'
import { isIP } from 'node:net'
import { XosanError } from '../core/errors.ts'
import { identityUri, type HostIdentity, type TrustScope } from './identity.ts'
import { ALGORITHM, DER_BYTES_MAX, newKeyPair, privateKeyPem, signingKey, VALID_FROM, x509 } from './x509.ts'

const DAY_MS = 86_400_000
/** Long enough that a succession is a matter of losing a host, not of time. */
const AUTHORITY_DAYS = 3650
/** Long enough that an SR may be switched off for a season; twice as long would make a forgotten clock matter less, and a
 * stolen disk more. */
export const HOST_CERTIFICATE_DAYS = 365

/** An SR's certificate authority with its key: of one host only. */
export interface Authority {
  readonly scope: TrustScope
  readonly certificatePem: string
  readonly keyPem: string
}

/**
 * Makes a certificate authority for an SR and generation.
 * @param now the time of day
 */
export async function createAuthority(scope: TrustScope, now: Date): Promise<Authority> {
  const keys = await newKeyPair()
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(),
    // The random part keeps an authority and its successor apart, for programs that choose by name.
    name: [
      { CN: [`XOSAN authority ${randomBytes(4).toString('hex')}`] },
      { O: [scope.sr] },
      { OU: [`generation ${scope.generation}`] },
    ],
    notBefore: VALID_FROM,
    notAfter: new Date(now.getTime() + AUTHORITY_DAYS * DAY_MS),
    signingAlgorithm: ALGORITHM,
    keys,
    extensions: [
      // It signs hosts and nothing that signs.
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  })
  return { scope, certificatePem: pemOf(certificate), keyPem: await privateKeyPem(keys.privateKey) }
}

interface HostCertificateRequest {
  /** PKCS #10 in PEM; only its key is taken, whatever else it asks for. */
  readonly csrPem: string
  readonly identity: HostIdentity
  /** IP addresses, for programs that know a host by nothing else. */
  readonly addresses: readonly string[]
  /** The time of day. */
  readonly now: Date
}

/**
 * Signs a host's key.
 *
 * @returns the certificate in PEM, good for both ends of TLS
 * @throws XosanError INVALID_ARGUMENT for a request that is malformed, is not signed by its own key, or has a key of
 *   another kind; for an identity of another scope than the authority's
 */
export async function issueHostCertificate(
  authority: Authority,
  { csrPem, identity, addresses, now }: HostCertificateRequest
): Promise<string> {
  const { scope } = authority
  if (identity.sr !== scope.sr || identity.generation !== scope.generation) {
    throw invalid('the identity to certify', 'it is not of this authority')
  }
  for (const address of addresses) {
    if (isIP(address) === 0) throw invalid(`the address ${address}`, 'it is no IP address')
  }
  const publicKey = await requestedKey(csrPem)
  const issuer = new x509.X509Certificate(authority.certificatePem)
  const end = Math.min(now.getTime() + HOST_CERTIFICATE_DAYS * DAY_MS, issuer.notAfter.getTime())
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: serialNumber(),
    subject: [{ CN: [identity.host] }, { O: [identity.sr] }],
    issuer: issuer.subjectName,
    notBefore: VALID_FROM,
    notAfter: new Date(end),
    signingAlgorithm: ALGORITHM,
    publicKey,
    signingKey: await signingKey(authority.keyPem),
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([
        x509.ExtendedKeyUsage.serverAuth,
        x509.ExtendedKeyUsage.clientAuth,
      ]),
      new x509.SubjectAlternativeNameExtension([
        { type: 'url', value: identityUri(identity) },
        ...addresses.map(value => ({ type: 'ip' as const, value })),
      ]),
      await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey),
      await x509.SubjectKeyIdentifierExtension.create(publicKey),
    ],
  })
  return pemOf(certificate)
}

/** A new key for a host, and the request for its certificate. */
export async function createHostKey(): Promise<{ readonly keyPem: string; readonly csrPem: string }> {
  const keys = await newKeyPair()
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    // Names are given by who issues.
    name: [],
    keys,
    signingAlgorithm: ALGORITHM,
  })
  return { keyPem: await privateKeyPem(keys.privateKey), csrPem: `${request.toString('pem')}\n` }
}

/** The key of a request, whose owner has shown to have the other half of it. */
async function requestedKey(csrPem: string): Promise<CryptoKey> {
  const what = 'the certificate request'
  if (csrPem.length > DER_BYTES_MAX) throw invalid(what, `it is longer than ${DER_BYTES_MAX} bytes`)
  let publicKey: CryptoKey
  let signed: boolean
  try {
    const request = new x509.Pkcs10CertificateRequest(csrPem)
    publicKey = await request.publicKey.export(ALGORITHM, ['verify'])
    signed = await request.verify()
  } catch (error) {
    // What the parser says may quote the request.
    throw new XosanError('INVALID_ARGUMENT', { what, reason: 'it is malformed' }, { cause: error })
  }
  if (!signed) throw invalid(what, 'it is not signed by its own key')
  return publicKey
}

/** 127 random bits: positive, and never 0. */
function serialNumber(): string {
  const bytes = randomBytes(16)
  bytes[0] = (bytes[0]! & 0x7f) | 0x40
  return bytes.toString('hex')
}

const pemOf = (certificate: x509.X509Certificate): string => `${certificate.toString('pem')}\n`

const invalid = (what: string, reason: string): XosanError =>
  new XosanError('INVALID_ARGUMENT', { what, reason })
