/**
 * The list of revoked certificates (RFC 5280, section 5), above all for the gate before etcd, which asks no list of members.
 * It is signed, so that it may come by way of anybody.
 */
import { XosanError } from '../core/errors.ts'
import { type Authority } from './authority.ts'
import { ALGORITHM, signingKey, x509 } from './x509.ts'

/** The label that Go looks for; others are taken for binary. */
const LABEL = 'X509 CRL'
/** Some ten thousand serial numbers. */
const TEXT_LENGTH_MAX = 1024 * 1024

/**
 * Signs a list of revoked certificates. It has to be complete each time: it takes the place of the one before.
 *
 * @param serials in hexadecimal
 * @param now the time of day
 * @returns PEM
 */
export async function createRevocationList(
  authority: Authority,
  serials: readonly string[],
  now: Date
): Promise<string> {
  const issuer = new x509.X509Certificate(authority.certificatePem)
  const list = await x509.X509CrlGenerator.create({
    issuer: issuer.subjectName,
    thisUpdate: now,
    // Nobody need make another one when nothing has changed.
    nextUpdate: issuer.notAfter,
    entries: serials.map(serialNumber => ({ serialNumber, revocationDate: now })),
    signingAlgorithm: ALGORITHM,
    signingKey: await signingKey(authority.keyPem),
  })
  return `${x509.PemConverter.encode(list.rawData, LABEL)}\n`
}

/**
 * Reads a list that came from elsewhere.
 *
 * @param authoritiesPem one of which must have signed it
 * @returns the serial numbers, in lower-case hexadecimal
 * @throws XosanError INVALID_ARGUMENT
 */
export async function readRevocationList(pem: string, authoritiesPem: string): Promise<readonly string[]> {
  const list = parsed(pem)
  for (const der of x509.PemConverter.decode(authoritiesPem)) {
    const { publicKey } = new x509.X509Certificate(der)
    if (await list.verify({ publicKey })) return list.entries.map(({ serialNumber }) => serialNumber)
  }
  throw invalid('it is not signed by an authority of this SR')
}

function parsed(pem: string): x509.X509Crl {
  if (!pem.startsWith(`-----BEGIN ${LABEL}-----\n`) || pem.length > TEXT_LENGTH_MAX) {
    throw invalid('it is none, or too long')
  }
  try {
    return new x509.X509Crl(pem)
  } catch {
    throw invalid('it is malformed')
  }
}

const invalid = (reason: string): XosanError =>
  new XosanError('INVALID_ARGUMENT', { what: 'the list of revoked certificates', reason })
