/**
 * Another host takes the place of the one that holds the authority, because that one is removed
 * (docs/decisions/trust-succession.md). Every step can be done twice, here or on another host.
 */
import { MEMBERS_PREFIX, srKey } from '../../cluster/keys.ts'
import { parseMemberRecord, parseSrRecord, serialiseSrRecord } from '../../cluster/records.ts'
import { update } from '../../cluster/update.ts'
import { reasonOf, XosanError } from '../../core/errors.ts'
import { type Clock } from '../../core/ports/clock.ts'
import { type Coordinator } from '../../core/ports/coordinator.ts'
import { type Random } from '../../core/ports/random.ts'
import { type HostId, type SrId } from '../../core/units.ts'
import { certificatesIn } from '../../trust/certificate.ts'
import { createSuccessor } from '../../trust/successor.ts'
import { TrustDirectory } from '../../trust/trust-directory.ts'
import { type Deadline } from '../../volume/deadline.ts'
import { type Config } from '../config.ts'
import { type Log } from '../log.ts'
import { trustPath } from './cluster-file.ts'
import { type HostCluster } from './host-cluster.ts'
import { type Pool } from './pool.ts'

interface SuccessionOptions {
  readonly config: Config
  readonly cluster: HostCluster
  readonly pool: Pool
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  /** Saves and publishes the list of revoked certificates, as far as it is this host's to do. */
  readonly revocationsCurrent: () => Promise<void>
  /** Makes all programs of this host look at its keys again. */
  readonly reload: () => Promise<void>
  /** Makes this host's certificate one of the last authority that it trusts. */
  readonly renewal: { trust(authoritiesPem: string): void; renewNow(): Promise<void> }
  /** Makes this host's member of etcd, if it has one, read what it trusts again. */
  readonly etcdRestarted: () => Promise<void>
  /** Waits until this host knows what the coordinator knows now. */
  readonly synchronise: () => Promise<void>
}

interface AuthoritiesToTrust {
  readonly sr: SrId
  readonly authoritiesPem: string
}

const CHECK_MS = 5_000
/** With etcd's restart, for which a host waits for its turn. */
const TRUST_MS = 200_000
const CERTIFY_MS = 60_000

export class Succession {
  readonly #options: SuccessionOptions

  constructor(options: SuccessionOptions) {
    this.#options = options
  }

  /** One was begun, here or elsewhere, and has not come to its end. */
  get unfinished(): boolean {
    const { credentials } = this.#options.cluster
    return credentials !== null && certificatesIn(credentials.authoritiesPem).length > 1
  }

  /**
   * Looks whether every member but some answers by way of the pool.
   * @throws XosanError SUCCESSION_WAITS
   */
  async check(removed: HostId, deadline: Deadline): Promise<void> {
    const { pool } = this.#options
    const sr = this.#sr()
    await Promise.all(
      (await this.#others(removed, deadline)).map(async host => {
        const checked = await pool
          .call(host, 'cluster.check', {}, deadline.remainingMs(CHECK_MS))
          .catch((error: unknown) => {
            throw waits(host, reasonOf(error))
          })
        if (checked.sr !== sr) throw waits(host, 'it is not in the cluster of this SR')
      })
    )
  }

  /**
   * Makes this host the one that holds the authority. The host of before is on no list any more.
   * @throws XosanError what another host says; done again, it goes on
   */
  async carryOut(removed: HostId, deadline: Deadline): Promise<void> {
    const { config, clock, random, revocationsCurrent, log } = this.#options
    const sr = this.#sr()
    const self = config.host.uuid
    const hosts = [self, ...(await this.#others(removed, deadline))]
    const { authority, transitionPem } = await createSuccessor(await this.#directory(), new Date())
    log.info('this host succeeds the one that held the authority', { before: removed, hosts: hosts.length })
    // One after the other: each may have to restart its member of etcd.
    for (const host of hosts) await this.#tell(host, { sr, authoritiesPem: transitionPem }, deadline)
    await update(
      { coordinator: this.#coordinator, clock, random },
      srKey(sr),
      entry => {
        if (entry === null) throw new XosanError('SR_NOT_FOUND', { sr })
        const record = parseSrRecord(entry.key, entry.value)
        if (record.authority === self) return 'unchanged'
        return { value: serialiseSrRecord(entry.key, { ...record, authority: self }) }
      },
      deadline.at
    )
    for (const host of hosts) await this.#certify(host, sr, deadline)
    await revocationsCurrent()
    // This host last: as long as it trusts two, it knows that this is not done.
    for (const host of hosts.reverse()) {
      await this.#tell(host, { sr, authoritiesPem: authority.certificatePem }, deadline)
    }
    log.info('this host holds the authority', { members: hosts.length })
  }

  /** Trusts these authorities, the one to be certified by last. @throws XosanError NOT_IN_CLUSTER, INVALID_ARGUMENT */
  async trust({ sr, authoritiesPem }: AuthoritiesToTrust): Promise<void> {
    const { revocationsCurrent, reload, renewal, etcdRestarted } = this.#options
    this.#require(sr)
    // A list of revoked certificates that only an authority of before has signed cannot be kept without it.
    await revocationsCurrent()
    await (await this.#directory()).saveAuthorities(authoritiesPem)
    await reload()
    renewal.trust(authoritiesPem)
    await etcdRestarted()
  }

  /** Has this host certified by the last authority that it trusts. @throws XosanError NOT_IN_CLUSTER, and as `renewNow` */
  async certify(sr: SrId): Promise<void> {
    this.#require(sr)
    // Whom to ask is on the SR's record.
    await this.#options.synchronise()
    await this.#options.renewal.renewNow()
  }

  async #tell(host: HostId, params: AuthoritiesToTrust, deadline: Deadline): Promise<void> {
    const { config, pool } = this.#options
    if (host === config.host.uuid) await this.trust(params)
    else await pool.call(host, 'cluster.trust', params, deadline.remainingMs(TRUST_MS))
  }

  async #certify(host: HostId, sr: SrId, deadline: Deadline): Promise<void> {
    const { config, pool } = this.#options
    if (host === config.host.uuid) await this.certify(sr)
    else await pool.call(host, 'cluster.certify', { sr }, deadline.remainingMs(CERTIFY_MS))
  }

  async #others(removed: HostId, deadline: Deadline): Promise<HostId[]> {
    const { entries } = await deadline.race(this.#coordinator.list(MEMBERS_PREFIX))
    const hosts = entries.map(({ key, value }) => parseMemberRecord(key, value).host)
    return hosts.filter(host => host !== removed && host !== this.#options.config.host.uuid)
  }

  get #coordinator(): Coordinator {
    return this.#options.cluster.coordinator
  }

  #sr(): SrId {
    const { file } = this.#options.cluster
    if (file === null) throw new XosanError('NOT_IN_CLUSTER', {})
    return file.sr
  }

  #require(sr: SrId): void {
    if (this.#sr() !== sr) throw new XosanError('NOT_IN_CLUSTER', {})
  }

  async #directory(): Promise<TrustDirectory> {
    return TrustDirectory.open(trustPath(this.#options.config.stateDirectory))
  }
}

const waits = (host: HostId, reason: string): XosanError =>
  new XosanError('SUCCESSION_WAITS', { host, reason })
