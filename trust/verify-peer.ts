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

export interface IssuedExpectations {
  readonly scope: TrustScope
  /** Whether a certificate was revoked. @param serial in lower-case hexadecimal */
  readonly isRevoked: (serial: string) => boolean
  /** The host that was called; null for who calls. */
  readonly host: HostId | null
  /** The time of day. */
  readonly now: Date
}

export interface PeerExpectations extends Omit<IssuedExpectations, 'isRevoked'> {
  readonly members: MemberList
}

/** `detail` in words, for the log: it names what the certificate claims. */
interface Refusal {
  readonly refused: RefusedCertificate
  readonly detail: string
}

/** What a good certificate says. */
export interface IssuedFacts {
  readonly host: HostId
  readonly fingerprint: string
  readonly serial: string
}

export type PeerVerdict = { readonly member: Member } | Refusal

/**
 * Decides whether a certificate, that TLS has found to chain to the authority, is one of a host of this SR and was not
 * revoked. The time is checked here again: then this answer does not depend on how TLS came to its own.
 *
 * @param certificate DER, as the other end sent it
 */
export function verifyIssued(
  certificate: Uint8Array,
  { scope, isRevoked, host, now }: IssuedExpectations
): IssuedFacts | Refusal {
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
  if (isRevoked(serial)) {
    return { refused: 'revoked', detail: `the certificate of host ${identity.host} was revoked` }
  }
  return { host: identity.host, fingerprint, serial }
}

/**
 * Decides who is at the other end, once TLS has checked that the certificate chains to the authority and that the other
 * end has its key: `verifyIssued`, and this very certificate is on the list of members.
 *
 * @param certificate DER, as the other end sent it
 */
export function verifyPeer(
  certificate: Uint8Array,
  { members, ...expectations }: PeerExpectations
): PeerVerdict {
  // What was revoked before the list, whose records a host that was removed may have written itself, before it was shut
  // out everywhere.
  const issued = verifyIssued(certificate, {
    ...expectations,
    isRevoked: serial => members.isRevoked(serial),
  })
  if ('refused' in issued) return issued
  const { host, fingerprint } = issued
  const member = members.get(host)
  if (member?.certificates.includes(fingerprint) !== true) {
    const what = member === undefined ? 'the host' : 'this certificate of the host'
    return { refused: 'not-a-member', detail: `${what} ${host} is not on the list of members` }
  }
  return { member }
}
