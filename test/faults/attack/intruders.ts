/** Who tries to get in, and what each can show. */
import { randomUUID } from 'node:crypto'
import { type HostId, type SrId } from '../../../core/units.ts'
import {
  type Authority,
  HOST_CERTIFICATE_DAYS,
  createAuthority,
  createHostKey,
  issueHostCertificate,
} from '../../../trust/authority.ts'
import { certificateFacts } from '../../../trust/certificate.ts'
import { type HostIdentity } from '../../../trust/identity.ts'
import { type AttackLab } from './attack-lab.ts'
import { type Credentials } from './attack-wire.ts'

const DAY_MS = 86_400_000

export type Intruder =
  | 'nobody'
  /** A member of another SR. */
  | 'stranger'
  /** Whose own files are still there. */
  | 'removed'
  /** A member, by a certificate that the authority has issued and whose time is over. */
  | 'expired'
  /** By a certificate that somebody has made with the authority's own key. */
  | 'forger'
  /** Of the generation before, by the SR's own authority. */
  | 'outdated'
  /** Who may: shows that an attack would be answered if nobody refused it. */
  | 'member'

export type Intruders = Readonly<Record<Intruder, Credentials | null>>

/** @param addresses of the attacker, which its certificates carry so that they are not refused for that */
export async function makeIntruders(attacked: AttackLab, addresses: readonly string[]): Promise<Intruders> {
  const own = splitPem(await attacked.trustFile(attacked.primary, 'host.pem'))
  const { host, ...scope } = certificateFacts(own.certificatePem)!.identity!
  const authority = { scope, ...splitPem(await attacked.trustFile(attacked.primary, 'authority.pem')) }
  const foreign = await createAuthority({ sr: randomUUID() as SrId, generation: 1 }, new Date())
  const longAgo = new Date(Date.now() - (HOST_CERTIFICATE_DAYS + 1) * DAY_MS)
  const before: Authority = { ...authority, scope: { ...scope, generation: scope.generation + 1 } }
  return {
    nobody: null,
    stranger: await issue(foreign, randomUUID() as HostId, new Date()),
    removed: splitPem(await attacked.trustFile(attacked.removed, 'host.pem')),
    expired: await issue(authority, host, longAgo),
    forger: await issue(authority, host, new Date()),
    outdated: await issue(before, host, new Date()),
    member: own,
  }

  async function issue(by: Authority, named: HostId, now: Date): Promise<Credentials> {
    const { keyPem, csrPem } = await createHostKey()
    const identity: HostIdentity = { ...by.scope, host: named }
    return { keyPem, certificatePem: await issueHostCertificate(by, { csrPem, identity, addresses, now }) }
  }
}

/** A file that holds a key and then its certificate. */
export function splitPem(pem: string): Credentials {
  const at = pem.indexOf('-----BEGIN CERTIFICATE-----')
  return { keyPem: pem.slice(0, at), certificatePem: pem.slice(at) }
}
