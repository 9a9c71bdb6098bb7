/** Hosts with keys and addresses of the loopback of their own, each of which may have a real member of etcd. */
import { randomUUID } from 'node:crypto'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { EtcdAdmin } from '../../cluster/etcd/etcd-admin.ts'
import { type EtcdTarget } from '../../cluster/etcd/members.ts'
import { type HostId, type SrId, millis } from '../../core/units.ts'
import { trustPath } from '../../daemon/cluster/cluster-file.ts'
import { gateMark } from '../../daemon/etcd/gate-arguments.ts'
import { type MemberPlace, memberMark } from '../../daemon/etcd/member-arguments.ts'
import { MemberProcess } from '../../daemon/etcd/member-process.ts'
import { createNodeClock } from '../../daemon/ports/node-clock.ts'
import { nodeRandom } from '../../daemon/ports/node-random.ts'
import { programsDirectory } from '../../daemon/supervision/programs.ts'
import {
  type ProcessHandle,
  processesWithArguments,
  signal,
  waitForCondition,
} from '../../daemon/supervision/process-handle.ts'
import {
  type Authority,
  createAuthority,
  createHostKey,
  issueHostCertificate,
} from '../../trust/authority.ts'
import { createRevocationList } from '../../trust/revocation.ts'
import { TrustDirectory } from '../../trust/trust-directory.ts'
import { fastDirectory, freePorts } from './etcd-cluster.ts'

const KILL_MS = 10_000

export interface EtcdHost extends MemberPlace {
  readonly log: string[]
}

export class EtcdHosts {
  readonly hosts: readonly EtcdHost[]
  readonly tls: NonNullable<EtcdTarget['tls']>
  readonly authority: Authority
  readonly #directory: string

  private constructor(
    directory: string,
    hosts: readonly EtcdHost[],
    tls: NonNullable<EtcdTarget['tls']>,
    authority: Authority
  ) {
    this.#directory = directory
    this.authority = authority
    this.hosts = hosts
    this.tls = tls
  }

  static async create(count: number): Promise<EtcdHosts> {
    const scope = { sr: randomUUID() as SrId, generation: 1 }
    const directory = await mkdtemp(join(fastDirectory(), 'xosan-etcd-'))
    const authority = await createAuthority(scope, new Date())
    const [client, peer] = await freePorts(2)
    const subnet = `127.${1 + Math.floor(Math.random() * 250)}.${1 + Math.floor(Math.random() * 250)}`
    const nothingRevoked = await createRevocationList(authority, [], new Date())
    let tls: NonNullable<EtcdTarget['tls']> | null = null
    const hosts: EtcdHost[] = []
    for (let n = 1; n <= count; n++) {
      const host = randomUUID() as HostId
      const address = `${subnet}.${n}`
      const stateDirectory = join(directory, `h${n}`)
      const { keyPem, csrPem } = await createHostKey()
      const certificatePem = await issueHostCertificate(authority, {
        csrPem,
        identity: { ...scope, host },
        addresses: [address],
        now: new Date(),
      })
      await mkdir(stateDirectory, { mode: 0o700 })
      const trust = await TrustDirectory.open(trustPath(stateDirectory))
      await trust.saveCredentials({ keyPem, certificatePem, authoritiesPem: authority.certificatePem })
      await trust.saveRevocationList(nothingRevoked)
      tls ??= {
        ca: Buffer.from(authority.certificatePem),
        cert: Buffer.from(certificatePem),
        key: Buffer.from(keyPem),
      }
      hosts.push({
        ...scope,
        host,
        address,
        ports: { client: client!, peer: peer! },
        stateDirectory,
        log: [],
      })
    }
    return new EtcdHosts(directory, hosts, tls!, authority)
  }

  /** Looks after the member of a host, as xosand would. */
  process(host: EtcdHost): MemberProcess {
    return new MemberProcess({
      ...host,
      program: 'etcd',
      programs: programsDirectory(),
      log: text => host.log.push(text),
    })
  }

  /** A client of the members on these hosts. */
  admin(hosts: readonly EtcdHost[]): EtcdAdmin {
    return new EtcdAdmin({
      target: { members: hosts.map(memberOf), tls: this.tls },
      clock: createNodeClock(),
      random: nodeRandom,
      callTimeMs: millis(5_000),
    })
  }

  /** SIGKILL for the member of a host, which waits until it is gone; its gate stays. */
  async kill(host: EtcdHost): Promise<void> {
    await killAll(await processesWithArguments(...memberMark(host)))
  }

  /** The same for the gate. */
  async killGate(host: EtcdHost): Promise<void> {
    await killAll(await processesWithArguments(...gateMark(host)))
  }

  /** Ends all members and removes all files. Whoever looks after a member must have ended before. */
  async end(): Promise<void> {
    for (const host of this.hosts) {
      await this.kill(host)
      await this.killGate(host)
    }
    await rm(this.#directory, { recursive: true, force: true })
  }
}

async function killAll(handles: readonly ProcessHandle[]): Promise<void> {
  for (const handle of handles) signal(handle, 'SIGKILL')
  await waitForCondition(handles, 'down', KILL_MS)
}

/** How clients find the member of a host. */
export const memberOf = ({ address, ports }: EtcdHost) => ({ address, port: ports.client })

/** Looks again until an action succeeds, for as long as real members may take on a busy machine. */
export async function soon<T>(action: () => Promise<T>, timeMs = 40_000): Promise<T> {
  const end = performance.now() + timeMs
  for (;;) {
    try {
      return await action()
    } catch (error) {
      if (performance.now() > end) throw error
      await delay(50)
    }
  }
}
