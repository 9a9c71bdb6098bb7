/**
 * One xosand, from its start to its death, as far as it has to do with a succession: the real parts, over files of trust
 * that outlive it. Death is that nothing goes on: what it waits for never comes, and nobody catches anything.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { HOSTS_PREFIX, MEMBERS_PREFIX, REVOKED_KEY } from '../../cluster/keys.ts'
import { parseHostRecord } from '../../cluster/records.ts'
import { XosanError } from '../../core/errors.ts'
import { type Clock } from '../../core/ports/clock.ts'
import { type Coordinator } from '../../core/ports/coordinator.ts'
import { type HostId, type SrId } from '../../core/units.ts'
import { CertificateRenewal } from '../../daemon/cluster/certificate-renewal.ts'
import { createSuccession, type SuccessionParts } from '../../daemon/cluster/create-succession.ts'
import { removeHost } from '../../daemon/cluster/host-removal.ts'
import { MemberFollower } from '../../daemon/cluster/member-follower.ts'
import { type Pool, type PoolMethod } from '../../daemon/cluster/pool.ts'
import { Revocation } from '../../daemon/cluster/revocation.ts'
import { type Log } from '../../daemon/log.ts'
import { nodeRandom } from '../../daemon/ports/node-random.ts'
import { controlApi } from '../../rpc/control-api.ts'
import { type Member, MemberList } from '../../trust/members.ts'
import { type HostCredentials, TrustDirectory } from '../../trust/trust-directory.ts'

const VERSION = '1.2.3'

/** What a host is, whether its xosand runs or not. */
export interface SuccessionHost {
  readonly uuid: HostId
  readonly name: string
  readonly address: string
  readonly trustPath: string
  /** Authorities that its member of etcd has read at its last start. */
  etcdTrusts: string
}

/** What surrounds a xosand. */
export interface Surroundings {
  readonly clock: Clock
  readonly sr: SrId
  /** This process's client. @param deliver lets in what comes, or not */
  coordinator(name: string, deliver: (action: () => void) => void): Coordinator
  /** Told of each thing that was done, and by whom; may end any xosand. */
  did(host: SuccessionHost, what: string): void
  pool(caller: Xosand): Pool
  readonly log: Log
}

const never = async <T>(): Promise<T> => new Promise<T>(() => undefined)

/** Replace files. */
const WRITES = [
  'saveCertificate',
  'saveAuthorities',
  'saveAuthority',
  'changeIssued',
  'saveRevocationList',
] as const

export class Xosand {
  readonly host: SuccessionHost
  readonly members = new MemberList([])
  /** Rejects when this process ends, as the connections to it do. */
  readonly ended: Promise<never>
  #credentials!: HostCredentials
  readonly #around: Surroundings
  readonly #coordinator: Coordinator
  #revocation!: Revocation
  #follower!: MemberFollower
  #renewal!: CertificateRenewal
  #succession!: SuccessionParts
  #alive = true
  #end!: (error: XosanError) => void

  private constructor(host: SuccessionHost, around: Surroundings) {
    this.host = host
    this.#around = around
    this.#coordinator = this.#gated(
      around.coordinator(host.name, action => {
        if (this.#alive) action()
      })
    )
    this.ended = new Promise<never>((_, reject) => (this.#end = reject))
    this.ended.catch(() => undefined)
  }

  /** In the order of a real one: keys and the last list of members from disk, then what follows the coordinator. */
  static async start(host: SuccessionHost, around: Surroundings): Promise<Xosand> {
    const xosand = new Xosand(host, around)
    await xosand.#begin()
    return xosand
  }

  get alive(): boolean {
    return this.#alive
  }

  /** What its programs use for their connections. */
  get credentials(): HostCredentials {
    return this.#credentials
  }

  kill(): void {
    this.#alive = false
    this.#revocation.close()
    this.#follower.close()
    this.#renewal.close()
    void this.#coordinator.close()
    this.#end(new XosanError('PEER_UNREACHABLE', { host: this.host.name, reason: 'it has ended' }))
  }

  /** Resolves when what it does by itself at its start, about revoked certificates, is done. */
  async looked(): Promise<void> {
    await this.#revocation.current()
  }

  /** Removes a host, as `xosan host remove` has it. */
  async remove(wanted: HostId): ReturnType<typeof removeHost> {
    const { sr, clock, log } = this.#around
    const { entries } = await this.#coordinator.list(HOSTS_PREFIX)
    const removal = removeHost(wanted, {
      self: this.host.uuid,
      sr,
      coordinator: this.#coordinator,
      clock,
      log,
      hosts: entries.map(({ key, value }) => parseHostRecord(key, value)),
      agent: () => {
        throw new XosanError('PEER_UNREACHABLE', { host: 'any', reason: 'nobody is asked this way here' })
      },
      ...this.#succession,
    })
    return Promise.race([removal, this.ended])
  }

  /** Answers a call that came by way of the pool. */
  async serve(method: PoolMethod, params: object): Promise<unknown> {
    const { steps } = this.#succession
    switch (method) {
      case 'cluster.check':
        return {
          version: VERSION,
          sr: this.#around.sr,
          holdsData: true,
          timeOfDay: Date.now(),
          witness: false,
        }
      case 'cluster.trust':
        return steps.trust(controlApi[method].params.parse(params))
      case 'cluster.request': {
        const { sr, listed } = controlApi[method].params.parse(params)
        return steps.request(sr, listed)
      }
      case 'cluster.certify':
        return steps.certify(controlApi[method].params.parse(params))
      case 'cluster.invite':
      case 'cluster.join':
      case 'cluster.leave':
        throw new Error(`nobody calls ${method} in a succession`)
    }
  }

  async #begin(): Promise<void> {
    const { host, members } = this
    const { sr, clock, log } = this.#around
    const coordinator = this.#coordinator
    const directory = async () => this.#directory()
    await this.#reload()
    const warn = (event: string): void => log.warn(event)
    this.#follower = new MemberFollower({
      host: host.uuid,
      members,
      coordinator,
      clock,
      changed: list => void this.#keep(list),
      warn,
    })
    this.#follower.start()
    const parts = { config: { host } as never, coordinator, clock, random: nodeRandom, log }
    this.#revocation = new Revocation({
      ...parts,
      host: host.uuid,
      directory: await this.#directory(),
      members,
      isJoining: () => false,
      changed: () => void this.#reload(),
    })
    coordinator.watch(REVOKED_KEY, (await coordinator.list(MEMBERS_PREFIX)).revision, {
      changed: (_, events) => {
        if (events.length > 0) this.#revocation.look()
      },
      failed: () => undefined,
    })
    this.#revocation.look()
    const reload = async () => this.#reload()
    const cluster = {
      coordinator,
      file: { sr },
      toldMembers: async (list: readonly Member[]) => {
        this.#take(list)
        await this.#keep(members.all)
      },
    }
    this.#renewal = new CertificateRenewal({
      ...parts,
      cluster: { credentials: null, members } as never,
      holder: () => null,
      reload,
    })
    this.#succession = createSuccession({
      ...parts,
      version: VERSION,
      cluster,
      nameOf: id => id,
      directory,
      pool: this.#around.pool(this),
      revocation: () => this.#revocation,
      reload,
      renewal: this.#renewal,
      etcdPart: {
        restarted: async () =>
          this.#effect('starts etcd anew', async () => {
            host.etcdTrusts = (await (await directory()).credentials())!.authoritiesPem
          }),
      },
    })
  }

  /** As `HostCluster.reload`. */
  async #reload(): Promise<void> {
    const directory = await this.#directory()
    this.#credentials = (await directory.credentials())!
    const kept = await directory.members()
    this.#take(kept)
    this.members.revoke(await directory.revoked())
  }

  /** As in `HostCluster`. */
  #take(members: readonly Member[]): void {
    if ((this.#follower as MemberFollower | undefined)?.following === true) this.members.learn(members)
    else this.members.replace(members)
  }

  async #keep(members: readonly Member[]): Promise<void> {
    const directory = await this.#directory()
    if (this.#alive) await directory.saveMembers(members)
  }

  /** The files, each write of which is an effect. Also the issuing of certificates writes by way of these. */
  async #directory(): Promise<TrustDirectory> {
    // Opening makes a directory that is missing: also one that a test has removed by now.
    if (!this.#alive) return never()
    const directory = await TrustDirectory.open(this.host.trustPath)
    for (const name of WRITES) {
      const write = (directory[name] as (...words: unknown[]) => Promise<unknown>).bind(directory)
      Object.assign(directory, {
        [name]: async (...words: unknown[]) => {
          if (!this.#alive) return never()
          const before = filesIn(this.host.trustPath)
          const result = await write(...words)
          if (this.alive && filesIn(this.host.trustPath) !== before) this.#around.did(this.host, name)
          return this.alive ? result : never()
        },
      })
    }
    return directory
  }

  #gated(coordinator: Coordinator): Coordinator {
    return {
      read: async key => (this.#alive ? coordinator.read(key) : never()),
      list: async prefix => (this.#alive ? coordinator.list(prefix) : never()),
      transact: async (conditions, changes) =>
        this.#effect(`changes ${changes.map(({ key }) => key.split('/')[0]).join(', ')}`, async () =>
          coordinator.transact(conditions, changes)
        ),
      watch: (prefix, revision, listener) => coordinator.watch(prefix, revision, listener),
      close: async () => coordinator.close(),
    }
  }

  /** Does what outlives this process, unless that has ended; when it ends just then it does not hear of the outcome. */
  async #effect<T>(what: string, action: () => Promise<T>): Promise<T> {
    if (!this.#alive) return never()
    const result = await action()
    if (this.alive) this.#around.did(this.host, what)
    return this.alive ? result : never()
  }
}

/** All files of a directory, but for what is being written, and the list of members, which is kept as it comes. */
function filesIn(path: string): string {
  return readdirSync(path)
    .filter(name => !name.endsWith('.new') && name !== 'members.json')
    .sort()
    .map(name => `${name}\n${readFileSync(join(path, name), 'utf8')}`)
    .join('')
}
