import { randomUUID, webcrypto } from 'node:crypto'
import { copyFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type HostId, type SrId } from '../../core/units.ts'
import { createNodeClock } from '../../daemon/ports/node-clock.ts'
import {
  type Authority,
  createAuthority,
  createHostKey,
  issueHostCertificate,
} from '../../trust/authority.ts'
import { fingerprintOf } from '../../trust/certificate.ts'
import { type IssuedStore } from '../../trust/certificate-authority.ts'
import { type GateLimits } from '../../trust/handshake-gate.ts'
import { identityUri, type HostIdentity, type TrustScope } from '../../trust/identity.ts'
import { type IssuedCertificate } from '../../trust/issued.ts'
import { type Member, MemberList } from '../../trust/members.ts'
import { type RefusalEvent } from '../../trust/refusal-log.ts'
import { exportToolCertificates } from '../../trust/tool-certificates.ts'
import { type HostCredentials } from '../../trust/trust-directory.ts'
import { TrustedTransport } from '../../trust/trusted-transport.ts'
import { ALGORITHM, signingKey, x509 } from '../../trust/x509.ts'

export const newHostId = (): HostId => randomUUID() as HostId

/** What a test may want to be wrong with a certificate. */
interface Flaws {
  readonly notBefore?: Date
  readonly notAfter?: Date
  /** In place of the one URI. */
  readonly uris?: readonly string[]
  readonly serverOnly?: boolean
}

/** An SR's authority, its list of members, and hosts to be on it or not. */
export class TrustRig {
  readonly authority: Authority
  readonly members = new MemberList([])
  readonly refusals: RefusalEvent[] = []
  readonly #transports: TrustedTransport[] = []
  #heard: () => void = () => undefined

  constructor(authority: Authority) {
    this.authority = authority
  }

  static async create(scope: Partial<TrustScope> = {}): Promise<TrustRig> {
    const whole = { sr: randomUUID() as SrId, generation: 1, ...scope }
    return new TrustRig(await createAuthority(whole, new Date()))
  }

  identity(host: HostId = newHostId()): HostIdentity {
    return { ...this.authority.scope, host }
  }

  /** A certificate that the authority has issued, and that is on no list. */
  async credentials(
    identity = this.identity(),
    addresses: readonly string[] = ['127.0.0.1']
  ): Promise<HostCredentials> {
    const { keyPem, csrPem } = await createHostKey()
    const certificatePem = await issueHostCertificate(this.authority, {
      csrPem,
      identity,
      addresses,
      now: new Date(),
    })
    return { identity, keyPem, certificatePem, authoritiesPem: this.authority.certificatePem }
  }

  /** A certificate that the authority has signed and would never have issued. */
  async flawed(flaws: Flaws, identity = this.identity()): Promise<HostCredentials> {
    const { keyPem, csrPem } = await createHostKey()
    const issuer = new x509.X509Certificate(this.authority.certificatePem)
    const request = new x509.Pkcs10CertificateRequest(csrPem)
    const usage = flaws.serverOnly === true ? 'serverAuth' : 'clientAuth'
    const certificate = await x509.X509CertificateGenerator.create({
      issuer: issuer.subjectName,
      subject: [{ CN: [identity.host] }],
      notBefore: flaws.notBefore ?? new Date('2020-01-01T00:00:00Z'),
      notAfter: flaws.notAfter ?? new Date(Date.now() + 3_600_000),
      signingAlgorithm: ALGORITHM,
      publicKey: await request.publicKey.export(ALGORITHM, ['verify'], webcrypto),
      signingKey: await signingKey(this.authority.keyPem),
      extensions: [
        new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage[usage]]),
        new x509.SubjectAlternativeNameExtension([
          ...(flaws.uris ?? [identityUri(identity)]).map(value => ({ type: 'url' as const, value })),
          { type: 'ip', value: '127.0.0.1' },
        ]),
      ],
    })
    const certificatePem = `${certificate.toString('pem')}\n`
    return { identity, keyPem, certificatePem, authoritiesPem: this.authority.certificatePem }
  }

  /** Puts a host on the list, with this certificate alone. */
  enlist({ identity, certificatePem }: HostCredentials): Member {
    const member = {
      host: identity.host,
      admission: randomUUID(),
      certificates: [fingerprintOf(certificatePem)],
    }
    this.#list.set(member.host, member)
    this.members.replace([...this.#list.values()])
    return member
  }

  /** Changes the record of a host. */
  change(host: HostId, change: (member: Member) => Member): void {
    this.#list.set(host, change(this.#list.get(host)!))
    this.members.replace([...this.#list.values()])
  }

  /** Takes a host from the list. */
  remove(host: HostId): void {
    this.#list.delete(host)
    this.members.replace([...this.#list.values()])
  }

  /** A member's end of all connections. */
  transport(credentials: HostCredentials, limits: Partial<GateLimits> = {}): TrustedTransport {
    const transport = new TrustedTransport({
      credentials,
      members: this.members,
      clock: createNodeClock(),
      limits,
      log: event => {
        this.refusals.push(event)
        this.#heard()
      },
    })
    this.#transports.push(transport)
    return transport
  }

  /** A member, and its end of all connections. */
  async member(limits: Partial<GateLimits> = {}): Promise<TrustedTransport & { readonly host: HostId }> {
    const credentials = await this.credentials()
    this.enlist(credentials)
    return Object.assign(this.transport(credentials, limits), { host: credentials.identity.host })
  }

  /** Waits until a connection has been refused for a cause. */
  async refused(cause: string): Promise<RefusalEvent> {
    for (;;) {
      const event = this.refusals.find(each => each.cause === cause)
      if (event !== undefined) return event
      await new Promise<void>(resolve => (this.#heard = resolve))
    }
  }

  close(): void {
    for (const transport of this.#transports) transport.close()
  }

  readonly #list = new Map<HostId, Member>()
}

/** What an authority has issued, kept in memory. */
export class IssuedInMemory implements IssuedStore {
  issued: readonly IssuedCertificate[] = []
  /** Every change fails with this. */
  failing: Error | null = null

  async changeIssued(
    change: (issued: readonly IssuedCertificate[]) => readonly IssuedCertificate[]
  ): Promise<readonly IssuedCertificate[]> {
    if (this.failing !== null) throw this.failing
    this.issued = change(this.issued)
    return Promise.resolve(this.issued)
  }

  serialsOf(host: HostId): string[] {
    return this.issued.filter(each => each.host === host).map(({ serial }) => serial)
  }
}

/** Writes what NBD tools look for, as clients and as servers. */
export async function writeToolFiles(directory: string, credentials: HostCredentials): Promise<string> {
  await exportToolCertificates(directory, credentials)
  for (const kind of ['cert', 'key']) {
    await copyFile(join(directory, `client-${kind}.pem`), join(directory, `server-${kind}.pem`))
  }
  return directory
}
