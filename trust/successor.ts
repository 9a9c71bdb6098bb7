import { XosanError } from '../core/errors.ts'
import { createAuthority } from './authority.ts'
import { type CertificateAuthority } from './certificate-authority.ts'
import { certificatesIn } from './certificate.ts'
import { type TrustDirectory } from './trust-directory.ts'

/**
 * Makes an authority that is to succeed the one that this host trusts (docs/decisions/trust-succession.md). Nobody trusts
 * it yet, this host included. Called again when this host does, it is the same one.
 *
 * @param now the time of day
 * @throws XosanError NOT_IN_CLUSTER, TRUST_FILE_UNSAFE
 */
export async function createSuccessor(directory: TrustDirectory, now: Date): Promise<CertificateAuthority> {
  const credentials = await directory.credentials()
  if (credentials === null) throw new XosanError('NOT_IN_CLUSTER', {})
  const { identity, authoritiesPem } = credentials
  let authority = await directory.ownAuthority()
  // One that was given up, in favour of another's, has issued what nobody remembers.
  if (authority === null || !authoritiesPem.includes(authority.certificatePem)) {
    const { sr, generation } = identity
    await directory.saveAuthority(await createAuthority({ sr, generation }, now))
    authority = (await directory.ownAuthority())!
  }
  // Nothing that was ever revoked becomes good again, not even while both authorities are trusted.
  const revoked = await directory.revoked()
  await directory.changeIssued(issued => {
    const known = new Set(issued.map(({ serial }) => serial))
    const adopted = revoked.filter(serial => !known.has(serial))
    return [...issued, ...adopted.map(serial => ({ serial, host: null, notAfter: now, revoked: true }))]
  })
  return authority
}

/**
 * Whether one authority is about to succeed another. Until that is over nobody is certified or revoked in the ordinary
 * way: a host that was removed may have the key of the old one.
 */
export const isSucceeding = (authoritiesPem: string): boolean => certificatesIn(authoritiesPem).length > 1
