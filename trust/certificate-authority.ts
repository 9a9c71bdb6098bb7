import { XosanError } from '../core/errors.ts'
import { type HostId } from '../core/units.ts'
import { type Authority, issueHostCertificate } from './authority.ts'
import { certificateFacts } from './certificate.ts'
import { type TrustScope } from './identity.ts'
import { type IssuedCertificate, revokeAllOf, usableOf } from './issued.ts'
import { createRevocationList, readRevocationList } from './revocation.ts'

/**
 * Certificates of one host that are in their time. It has one, and another while it is renewed; more are left by
 * renewals whose answer was lost, one a day at most. That many mean a mistake that only somebody can end.
 */
const USABLE_MAX = 64

/** Where the list of issued certificates is kept. */
export interface IssuedStore {
  /** Replaces the list durably; one change after the other. @returns the new list */
  changeIssued(
    change: (issued: readonly IssuedCertificate[]) => readonly IssuedCertificate[]
  ): Promise<readonly IssuedCertificate[]>
}

interface IssueRequest {
  /** PKCS #10 in PEM. */
  readonly csrPem: string
  readonly host: HostId
  /** IP addresses to go into it. */
  readonly addresses: readonly string[]
  /** The time of day. */
  readonly now: Date
}

/** The authority on the host that holds it: it keeps a list of what it issues, so that it can revoke it. */
export class CertificateAuthority {
  readonly scope: TrustScope
  readonly certificatePem: string
  readonly #authority: Authority
  readonly #store: IssuedStore

  constructor(authority: Authority, store: IssuedStore) {
    this.scope = authority.scope
    this.certificatePem = authority.certificatePem
    this.#authority = authority
    this.#store = store
  }

  /**
   * Signs a host's key. The certificate is on the list of issued ones, durably, before anybody has it.
   * @throws XosanError INVALID_ARGUMENT as `issueHostCertificate`; CERTIFICATE_REFUSED when the host has far too many;
   *   TRUST_FILE_UNSAFE
   */
  async issue({ csrPem, host, addresses, now }: IssueRequest): Promise<string> {
    const identity = { ...this.scope, host }
    const certificatePem = await issueHostCertificate(this.#authority, { csrPem, identity, addresses, now })
    const { serial, notAfter } = certificateFacts(certificatePem)!
    await this.#store.changeIssued(issued => {
      if (usableOf(issued, host, now).length >= USABLE_MAX) {
        throw new XosanError('CERTIFICATE_REFUSED', {
          host,
          reason: `it has been given ${USABLE_MAX} that are still in their time`,
        })
      }
      return [...issued, { serial, host, notAfter, revoked: false }]
    })
    return certificatePem
  }

  /**
   * Revokes all that a host was ever given. It may join again: what it is given then is not revoked.
   * @returns the new revocation list, in PEM, for the gates before etcd
   */
  async revoke(host: HostId, now: Date): Promise<string> {
    return this.#revocationList(await this.#store.changeIssued(issued => revokeAllOf(issued, host)), now)
  }

  /** The revocation list as it is, in PEM; gates before etcd need one also when nothing is revoked. */
  async revocationList(now: Date): Promise<string> {
    return this.#revocationList(await this.#store.changeIssued(issued => issued), now)
  }

  /** Hosts with certificates that are not revoked; also those whose certificates have ended. */
  async holders(): Promise<ReadonlySet<HostId>> {
    const issued = await this.#store.changeIssued(all => all)
    return new Set(issued.flatMap(({ host, revoked }) => (revoked || host === null ? [] : [host])))
  }

  /** Whether a revocation list of this authority holds all that is revoked. @param pem null: there is none yet */
  async isComplete(pem: string | null): Promise<boolean> {
    if (pem === null) return false
    const listed = await readRevocationList(pem, this.certificatePem).catch(() => null)
    const issued = await this.#store.changeIssued(all => all)
    return listed !== null && issued.every(({ serial, revoked }) => !revoked || listed.includes(serial))
  }

  async #revocationList(issued: readonly IssuedCertificate[], now: Date): Promise<string> {
    // Also those whose time is over: what one clock takes for over another may not.
    const serials = issued.filter(({ revoked }) => revoked).map(({ serial }) => serial)
    return createRevocationList(this.#authority, serials, now)
  }
}
