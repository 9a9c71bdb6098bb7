import { type HostId } from '../core/units.ts'
import { certificateFacts } from './certificate.ts'
import { type TrustScope } from './identity.ts'
import { type Member, type MemberList } from './members.ts'

/** Why a certificate that chains to the authority is refused all the same. */
export type RefusedCertificate =
  | 'malformed'
  | 'not-yet-valid'
  | 'expired'
  | 'not-a-host'
  | 'other-sr'
  | 'other-generation'
  | 'other-host'
  | 'revoked'
  | 'not-a-member'

export interface PeerExpectations {
  readonly scope: TrustScope
  readonly members: MemberList
  /** The host that was called; null for who calls. */
  readonly host: HostId | null
  /** The time of day. */
  readonly now: Date
}

export type PeerVerdict =
  | { readonly member: Member }
  /** `detail` in words, for the log: it names what the certificate claims. */
  | { readonly refused: RefusedCertificate; readonly detail: string }

/**
 * Decides who is at the other end, once TLS has checked that the certificate chains to the authority and that the other
 * end has its key. The time is checked here again: then this answer does not depend on how TLS came to its own.
 *
 * @param certificate DER, as the other end sent it
 */
export function verifyPeer(
  certificate: Uint8Array,
  { scope, members, host, now }: PeerExpectations
): PeerVerdict {
  const facts = certificateFacts(certificate)
  if (facts === null) return { refused: 'malformed', detail: 'the certificate cannot be understood' }
  const { identity, notBefore, notAfter, fingerprint, serial } = facts
  if (now < notBefore) {
    return { refused: 'not-yet-valid', detail: `the certificate begins on ${notBefore.toISOString()}` }
  }
  if (now > notAfter) {
    return { refused: 'expired', detail: `the certificate ended on ${notAfter.toISOString()}` }
  }
  if (identity === null) return { refused: 'not-a-host', detail: 'the certificate names no host' }
  if (identity.sr !== scope.sr) {
    return { refused: 'other-sr', detail: `the certificate is of SR ${identity.sr}` }
  }
  if (identity.generation !== scope.generation) {
    const detail = `the certificate is of generation ${identity.generation}, this one is ${scope.generation}`
    return { refused: 'other-generation', detail }
  }
  if (host !== null && identity.host !== host) {
    return { refused: 'other-host', detail: `the certificate is of host ${identity.host}` }
  }
  // Before the list, whose records a host that was removed may have written itself, before it was shut out everywhere.
  if (members.isRevoked(serial)) {
    return { refused: 'revoked', detail: `the certificate of host ${identity.host} was revoked` }
  }
  const member = members.get(identity.host)
  if (member?.certificates.includes(fingerprint) !== true) {
    const what = member === undefined ? 'the host' : 'this certificate of the host'
    return { refused: 'not-a-member', detail: `${what} ${identity.host} is not on the list of members` }
  }
  return { member }
}
