import { hostKey, memberKey } from '../../cluster/keys.ts'
import { parseHostRecord, parseMemberRecord, serialiseMemberRecord } from '../../cluster/records.ts'
import { update } from '../../cluster/update.ts'
import { XosanError } from '../../core/errors.ts'
import { type Clock } from '../../core/ports/clock.ts'
import { type Coordinator } from '../../core/ports/coordinator.ts'
import { type Random } from '../../core/ports/random.ts'
import { type HostId, millis } from '../../core/units.ts'
import { type Caller } from '../../trust/caller.ts'
import { fingerprintOf } from '../../trust/certificate.ts'
import { type Member, withCertificate, withoutCertificates } from '../../trust/members.ts'
import { type RenewalParams, type RenewalResult } from '../../trust/renewal-api.ts'
import { Renewal } from '../../trust/renewal-loop.ts'
import { renewalHandlers } from '../../trust/renewal-server.ts'
import { isSucceeding } from '../../trust/successor.ts'
import { TrustDirectory } from '../../trust/trust-directory.ts'
import { type HostAgent } from '../../volume/context.ts'
import { type Config } from '../config.ts'
import { type Log } from '../log.ts'
import { trustPath } from './cluster-file.ts'
import { type HostCluster } from './host-cluster.ts'

interface CertificateRenewalOptions {
  readonly config: Config
  readonly cluster: HostCluster
  readonly coordinator: Coordinator
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  /** The host that holds the authority's key; null while this host does not know it. */
  readonly holder: () => HostAgent | null
  /** Makes all programs of this host look at its keys again. */
  readonly reload: () => Promise<void>
}

const CALL_MS = 30_000
const UPDATE_MS = 15_000

/** The certificates of this host and, where the authority's key is, those of all: how they are renewed. */
export class CertificateRenewal {
  readonly #options: CertificateRenewalOptions
  #loop: Renewal | null = null
  /** Needs an administrator's eye; null when all is well. */
  #warning: string | null = null

  constructor(options: CertificateRenewalOptions) {
    this.#options = options
  }

  get warnings(): readonly string[] {
    return this.#warning === null ? [] : [this.#warning]
  }

  /** Begins to renew this host's certificate when it is time. */
  async begin(): Promise<void> {
    const { config, cluster, clock } = this.#options
    if (cluster.credentials === null) return
    const directory = await this.#directory()
    this.#loop = new Renewal(cluster.credentials, {
      clock,
      timeOfDay: () => new Date(),
      renew: async params => this.#holder().peer('trust.renew', params, CALL_MS),
      retire: async certificates =>
        this.#holder().peer('trust.retire', { certificates: [...certificates] }, CALL_MS),
      listed: () => cluster.members.get(config.host.uuid)?.certificates ?? [],
      save: async credentials => directory.saveCertificate(credentials),
      use: async () => this.#options.reload(),
      report: event => this.#report(event),
    })
    this.#loop.start()
  }

  /** Trusts these authorities, which are on disk, the one to be certified by last. */
  trust(authoritiesPem: string): void {
    this.#loop?.trust(authoritiesPem)
  }

  /** This host was given another certificate, which is on disk and in use. */
  adopt(own: { readonly keyPem: string; readonly certificatePem: string }): void {
    this.#loop?.adopt(own)
  }

  /** Answers a member that wants a new certificate. @throws XosanError AUTHORITY_ELSEWHERE, PEER_NOT_TRUSTED */
  async renew(params: RenewalParams<'trust.renew'>, caller: Caller): Promise<RenewalResult<'trust.renew'>> {
    return (await this.#handlers())['trust.renew'](params, caller)
  }

  /** Takes certificates that a member uses no longer from the list. @throws as `renew` */
  async retire(
    params: RenewalParams<'trust.retire'>,
    caller: Caller
  ): Promise<RenewalResult<'trust.retire'>> {
    return (await this.#handlers())['trust.retire'](params, caller)
  }

  close(): void {
    this.#loop?.close()
  }

  async #handlers() {
    const { config } = this.#options
    const directory = await this.#directory()
    const authority = await directory.authority()
    if (authority === null) throw new XosanError('AUTHORITY_ELSEWHERE', { host: config.host.name })
    // While a removed host's authority is trusted, too, whoever has that key could come as any member.
    const trusted = [(await directory.credentials())!, this.#options.cluster.credentials]
    if (trusted.some(each => each !== null && isSucceeding(each.authoritiesPem))) {
      throw new XosanError('CERTIFICATE_REFUSED', {
        host: config.host.name,
        reason:
          'another authority takes over just now, and gives every host its certificate by way of the pool',
      })
    }
    return renewalHandlers({
      authority,
      addressesOf: async host => this.#addressesOf(host),
      addFingerprint: async (host, fingerprint, inUse) => this.#add(host, fingerprint, inUse),
      removeFingerprints: async (host, fingerprints) =>
        this.#change(host, member => withoutCertificates(member, fingerprints)),
      timeOfDay: () => new Date(),
    })
  }

  /** Adds a certificate to the record of a member. @throws as `renew` */
  async addCertificate(host: HostId, certificatePem: string, inUse: string): Promise<void> {
    await this.#add(host, fingerprintOf(certificatePem), inUse)
  }

  async #add(host: HostId, fingerprint: string, inUse: string): Promise<void> {
    await this.#change(host, member => withCertificate(member, fingerprint, inUse))
  }

  async #addressesOf(host: HostId): Promise<readonly string[]> {
    const key = hostKey(host)
    const { entry } = await this.#options.coordinator.read(key)
    return entry === null ? [] : [parseHostRecord(key, entry.value).address]
  }

  /** @throws XosanError PEER_NOT_TRUSTED when the host is no member: it does not become one this way */
  async #change(host: HostId, change: (member: Member) => Member): Promise<void> {
    const { coordinator, clock, random } = this.#options
    const key = memberKey(host)
    await update(
      { coordinator, clock, random },
      key,
      entry => {
        if (entry === null) {
          throw new XosanError('PEER_NOT_TRUSTED', { host, reason: 'it is not on the list of members' })
        }
        const value = serialiseMemberRecord(key, {
          version: 1,
          ...change(parseMemberRecord(key, entry.value)),
        })
        return value === entry.value ? 'unchanged' : { value }
      },
      millis(clock.now() + UPDATE_MS)
    )
  }

  #holder(): HostAgent {
    const holder = this.#options.holder()
    if (holder !== null) return holder
    throw new XosanError('PEER_UNREACHABLE', {
      host: 'the host of the authority',
      reason: 'it is not known yet',
    })
  }

  async #directory(): Promise<TrustDirectory> {
    return TrustDirectory.open(trustPath(this.#options.config.stateDirectory))
  }

  #report(event: Parameters<ConstructorParameters<typeof Renewal>[1]['report']>[0]): void {
    const { log } = this.#options
    if (event.kind === 'renewed') {
      this.#warning = null
      log.info("this host's certificate is renewed", { until: event.notAfter.toISOString() })
      return
    }
    const { daysLeft, reason } = event
    log.warn("this host's certificate could not be renewed", { daysLeft, reason })
    if (event.kind === 'ending') {
      this.#warning = `The certificate of this host ends in ${daysLeft} days, and could not be renewed: ${reason}`
    }
  }
}
