import { XosanError } from '../core/errors.ts'
import { type HostId } from '../core/units.ts'
import { type Caller } from './caller.ts'
import { fingerprintOf } from './certificate.ts'
import { type CertificateAuthority } from './certificate-authority.ts'
import { type RenewalParams, type RenewalResult, type renewalApi } from './renewal-api.ts'

export interface RenewalServerOptions {
  readonly authority: Pick<CertificateAuthority, 'issue'>
  /** IP addresses of a host, by its record: never by what it says. */
  readonly addressesOf: (host: HostId) => Promise<readonly string[]>
  /**
   * Puts a certificate on the record of a host (`withCertificate`), durably.
   * Rejects when the host is no member: it must not become one this way
   */
  readonly addFingerprint: (host: HostId, fingerprint: string, inUse: string) => Promise<void>
  /** Takes certificates from the record of a host (`withoutCertificates`). */
  readonly removeFingerprints: (host: HostId, fingerprints: readonly string[]) => Promise<void>
  readonly timeOfDay: () => Date
}

type RenewalHandlers = {
  [M in keyof typeof renewalApi]: (params: RenewalParams<M>, caller: Caller) => Promise<RenewalResult<M>>
}

/**
 * Answers members that renew their certificates, on the host that holds the authority. A host gets a certificate for
 * nobody but itself, which is who TLS says that it is.
 *
 * A request that comes twice issues two certificates; the one that is not used is retired by its host a day later.
 */
export function renewalHandlers(options: RenewalServerOptions): RenewalHandlers {
  const { authority, addressesOf, addFingerprint, removeFingerprints, timeOfDay } = options
  return {
    'trust.renew': async ({ csrPem, inUse }, caller) => {
      const host = requireHost(caller)
      const addresses = await addressesOf(host)
      const certificatePem = await authority.issue({ csrPem, host, addresses, now: timeOfDay() })
      // First the list, then the certificate: whoever has it can use it.
      await addFingerprint(host, fingerprintOf(certificatePem), inUse)
      return { certificatePem }
    },
    'trust.retire': async ({ certificates }, caller) => {
      await removeFingerprints(requireHost(caller), certificates)
      return null
    },
  }
}

function requireHost({ host }: Caller): HostId {
  if (host !== null) return host
  throw new XosanError('PEER_NOT_TRUSTED', { host: 'The caller', reason: 'it came without a certificate' })
}
