import { createHash } from 'node:crypto'
import { type HostIdentity, parseIdentityUri } from './identity.ts'
import { DER_BYTES_MAX, x509 } from './x509.ts'

/** What XOSAN wants to know of a certificate. */
export interface CertificateFacts {
  readonly fingerprint: string
  /** Number that its authority gave it, in lower-case hexadecimal. */
  readonly serial: string
  /** Null when it is no host's: it names none, or more than one. */
  readonly identity: HostIdentity | null
  readonly notBefore: Date
  readonly notAfter: Date
}

/** SHA-256 of a certificate, in lower-case hexadecimal. @param der or PEM */
export function fingerprintOf(certificate: Uint8Array | string): string {
  const der = typeof certificate === 'string' ? derOf(certificate) : certificate
  return createHash('sha256').update(der).digest('hex')
}

/**
 * Facts by fingerprint. Reading a certificate takes some ten milliseconds, and the same few come again in every
 * handshake: when members of etcd come back, all connections that were tried meanwhile are made at once, and guests
 * waited for seconds.
 */
const known = new Map<string, CertificateFacts>()
/** More than the members of any SR have; what anybody else shows takes no more memory than this. */
const KNOWN_MAX = 256

/**
 * Takes a certificate apart, as it came from anybody. Says nothing about who signed it.
 * @param certificate DER, or PEM
 * @returns null when it cannot be understood
 */
export function certificateFacts(certificate: Uint8Array | string): CertificateFacts | null {
  try {
    const der = typeof certificate === 'string' ? derOf(certificate) : certificate
    if (der.length > DER_BYTES_MAX) return null
    const fingerprint = fingerprintOf(der)
    const before = known.get(fingerprint)
    if (before !== undefined) return before
    const parsed = new x509.X509Certificate(Buffer.from(der))
    const names = parsed.getExtension(x509.SubjectAlternativeNameExtension)?.names.items ?? []
    const uris = names.filter(({ type }) => type === 'url')
    // Two names are none: whoever reads the other one would see another host.
    const identity = uris.length === 1 ? parseIdentityUri(uris[0]!.value) : null
    const { serialNumber, notBefore, notAfter } = parsed
    const serial = serialNumber.toLowerCase()
    const facts = { fingerprint, serial, identity, notBefore, notAfter }
    if (known.size >= KNOWN_MAX) known.clear()
    known.set(fingerprint, facts)
    return facts
  } catch {
    return null
  }
}

/** Takes apart what holds one certificate after another. */
export const certificatesIn = (pem: string): string[] => pem.match(CERTIFICATE) ?? []

const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n/g

function derOf(pem: string): Uint8Array {
  const [der] = x509.PemConverter.decode(pem)
  if (der === undefined) throw new Error('it holds no certificate')
  return new Uint8Array(der)
}
