import { type HostId } from '../core/units.ts'

/** A host of the SR, and the certificates by which it may be known. */
export interface Member {
  readonly host: HostId
  /** Random id of its admission: a host that was removed and joined again has another, and its old connections end. */
  readonly admission: string
  /** SHA-256 of each of its certificates in lower-case hexadecimal: two while one follows the other. */
  readonly certificates: readonly string[]
}

/** Certificates on the record of a member: more than the two of a renewal, since some may have left some behind. */
export const CERTIFICATES_MAX = 8

/**
 * The member with one more certificate. When there are too many the oldest go, but never the one in use: the others
 * are of renewals whose answer was lost, or that are long over.
 * @param inUse fingerprint of the certificate that the host shows now
 */
export function withCertificate(member: Member, fingerprint: string, inUse: string): Member {
  const others = member.certificates.filter(each => each !== fingerprint && each !== inUse)
  const kept = member.certificates.includes(inUse) && inUse !== fingerprint ? [inUse] : []
  const room = CERTIFICATES_MAX - kept.length - 1
  return { ...member, certificates: [...kept, ...others.slice(-room), fingerprint] }
}

/** The member without some certificates. One that would have none left keeps what it has: somebody is mistaken. */
export function withoutCertificates(member: Member, fingerprints: readonly string[]): Member {
  const certificates = member.certificates.filter(each => !fingerprints.includes(each))
  return certificates.length === 0 ? member : { ...member, certificates }
}

/** The member with more certificates; the oldest go when there are too many. */
function withAllOf(member: Member, fingerprints: readonly string[]): Member {
  const others = member.certificates.filter(each => !fingerprints.includes(each))
  return { ...member, certificates: [...others, ...fingerprints].slice(-CERTIFICATES_MAX) }
}

/** The hosts that may speak to each other, as this process knows them last. */
export class MemberList {
  #members: ReadonlyMap<HostId, Member>
  /** Serial numbers of certificates, in lower-case hexadecimal. */
  #revoked: ReadonlySet<string> = new Set()
  readonly #listeners = new Set<() => void>()

  constructor(members: readonly Member[]) {
    this.#members = byHost(members)
  }

  get(host: HostId): Member | undefined {
    return this.#members.get(host)
  }

  /** Takes the place of the whole list; connections of hosts that are no longer on it end before this returns. */
  replace(members: readonly Member[]): void {
    this.#members = byHost(members)
    for (const listener of this.#listeners) listener()
  }

  get all(): readonly Member[] {
    return [...this.#members.values()]
  }

  /**
   * Takes note of more certificates of those who are members, from a list that may be younger than this one or older. Only
   * that: nobody becomes a member by it, or stops being one, and the next `replace` has the last word.
   */
  learn(members: readonly Member[]): void {
    const told = byHost(members)
    this.#members = byHost(
      this.all.map(member => {
        const more = told.get(member.host)
        return more?.admission === member.admission ? withAllOf(member, more.certificates) : member
      })
    )
  }

  /** Whether a certificate was revoked, whatever any record says of it. @param serial in lower-case hexadecimal */
  isRevoked(serial: string): boolean {
    return this.#revoked.has(serial)
  }

  /**
   * Takes more certificates for revoked; none ever becomes good again. Connections that were opened with them end before
   * this returns.
   */
  revoke(serials: readonly string[]): void {
    if (serials.every(serial => this.#revoked.has(serial))) return
    this.#revoked = new Set([...this.#revoked, ...serials])
    for (const listener of this.#listeners) listener()
  }

  /** @returns what ends the subscription */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }
}

const byHost = (members: readonly Member[]): ReadonlyMap<HostId, Member> =>
  new Map(members.map(member => [member.host, member]))
