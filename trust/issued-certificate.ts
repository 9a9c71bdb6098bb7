import { createPublicKey, X509Certificate } from 'node:crypto'
import { HOST_CERTIFICATE_DAYS } from './authority.ts'
import { certificateFacts, certificatesIn } from './certificate.ts'
import { identityUri } from './identity.ts'
import { type HostCredentials } from './trust-directory.ts'

const DAY_MS = 86_400_000
/** By how much the clocks of two hosts may differ, in days of the certificate's life. */
const CLOCK_DIFFERENCE_DAYS = 2

/**
 * Checks what a host was given, before it keeps anything of it.
 *
 * @param authoritiesPem one of which must have signed the certificate
 * @param now the time of day
 * @returns what is wrong, null when nothing is
 */
export function troubleWith(
  { identity, certificatePem, keyPem }: Pick<HostCredentials, 'identity' | 'certificatePem' | 'keyPem'>,
  authoritiesPem: string,
  now: Date
): string | null {
  const facts = certificateFacts(certificatePem)
  if (facts?.identity == null || identityUri(facts.identity) !== identityUri(identity)) {
    return 'the certificate is not for this host'
  }
  const authority = signerOf(certificatePem, authoritiesPem)
  if (authority === null) return 'the certificate is not of the authority that is expected'
  if (!new X509Certificate(certificatePem).publicKey.equals(createPublicKey(keyPem))) {
    return 'the certificate is of another key'
  }
  const authorityEnd = certificateFacts(authority)!.notAfter.getTime()
  const expectedEnd = Math.min(now.getTime() + HOST_CERTIFICATE_DAYS * DAY_MS, authorityEnd)
  if (Math.abs(facts.notAfter.getTime() - expectedEnd) > CLOCK_DIFFERENCE_DAYS * DAY_MS) {
    const daysLeft = (facts.notAfter.getTime() - now.getTime()) / DAY_MS
    return `the certificate ends in ${daysLeft.toFixed(0)} days: the clocks of the two hosts differ`
  }
  return null
}

/** Which of some authorities has signed a certificate; null when none has. All in PEM. */
export function signerOf(certificatePem: string, authoritiesPem: string): string | null {
  const certificate = new X509Certificate(certificatePem)
  return certificatesIn(authoritiesPem).find(pem => isSignedBy(certificate, pem)) ?? null
}

/** Whether one of some authorities, in PEM, has signed a certificate. */
export const isSignedByOne = (certificate: X509Certificate, authoritiesPem: string): boolean =>
  certificatesIn(authoritiesPem).some(pem => isSignedBy(certificate, pem))

const isSignedBy = (certificate: X509Certificate, authorityPem: string): boolean =>
  certificate.verify(new X509Certificate(authorityPem).publicKey)
