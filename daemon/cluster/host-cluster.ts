/**
 * What one program of a host has of the cluster that the host is in: the coordinator, the list of members, and TLS with
 * the other hosts. All of it comes from files that xosand writes; `reload` looks at them again.
 *
 * A program begins to speak to other hosts only when its host has joined. On the loopback of one machine, in clear,
 * that is from the start.
 */
import { openEmbeddedCoordinator } from '../../cluster/embedded/embedded-coordinator.ts'
import { type EtcdCoordinator } from '../../cluster/etcd/etcd-coordinator.ts'
import { type EtcdTarget } from '../../cluster/etcd/members.ts'
import { reasonOf, XosanError } from '../../core/errors.ts'
import { type Clock } from '../../core/ports/clock.ts'
import { type Coordinator } from '../../core/ports/coordinator.ts'
import { type Random } from '../../core/ports/random.ts'
import { type HostId, millis } from '../../core/units.ts'
import { type Member, MemberList } from '../../trust/members.ts'
import { type HostCredentials, TrustDirectory } from '../../trust/trust-directory.ts'
import { type PeerDialer, TrustedTransport } from '../../trust/trusted-transport.ts'
import { type Config } from '../config.ts'
import { LazyCoordinator } from '../lazy-coordinator.ts'
import { type LogFacts } from '../log.ts'
import { type ClusterFile, etcdNamespace, readClusterFile, trustPath } from './cluster-file.ts'
import { MemberFollower } from './member-follower.ts'

interface HostClusterOptions {
  readonly config: Config
  readonly clock: Clock
  readonly random: Random
  readonly log: (level: 'info' | 'warn', event: string, facts: LogFacts) => void
  /** Whether this program keeps the list of members in its file: one of a host does. */
  readonly keepsMembers: boolean
}

/** Begins something that needs other hosts. @param transport null: in clear, on the loopback */
type Begin = (transport: TrustedTransport | null) => Promise<void>

export class HostCluster {
  readonly coordinator: Coordinator
  readonly members = new MemberList([])
  readonly #options: HostClusterOptions
  readonly #lazy: LazyCoordinator
  readonly #begins: Begin[] = []
  #file: ClusterFile | null = null
  #entered = false
  #transport: TrustedTransport | null = null
  #credentials: HostCredentials | null = null
  #follower: MemberFollower | null = null
  #etcd: EtcdCoordinator | null = null
  #keeping: Promise<void> = Promise.resolve()

  private constructor(options: HostClusterOptions) {
    this.#options = options
    this.#lazy = new LazyCoordinator(async () => this.#openCoordinator())
    this.coordinator = this.#lazy
  }

  /** @throws XosanError TRUST_FILE_UNSAFE, INVALID_ARGUMENT when the files cannot be used */
  static async open(options: HostClusterOptions): Promise<HostCluster> {
    const cluster = new HostCluster(options)
    await cluster.reload()
    return cluster
  }

  /** The cluster that this host is in or about to be in; null while it is in none, and on the loopback. */
  get file(): ClusterFile | null {
    return this.#file
  }

  /** Whether the other hosts can be spoken to. */
  get entered(): boolean {
    return this.#entered
  }

  /** This host's key and certificate. */
  get credentials(): HostCredentials | null {
    return this.#credentials
  }

  /**
   * Looks at the files again: whether the host has joined, its certificate, the members of etcd.
   * @returns whether the host is leaving its cluster: then this program is to end
   */
  async reload(): Promise<boolean> {
    const { config } = this.#options
    if (config.peers === 'loopback') {
      if (!this.#entered) await this.#begin(null)
      return false
    }
    const file = await readClusterFile(config.stateDirectory)
    if (file?.phase === 'joined') await this.enter(file)
    return this.#entered && file?.phase !== 'joined'
  }

  /**
   * Takes up keys and the coordinator's place from disk, for a cluster that forms: only the coordinator can be used then.
   * @throws XosanError TRUST_FILE_UNSAFE when keys are missing or may be known to others
   */
  async prepare(file: ClusterFile): Promise<void> {
    const directory = await TrustDirectory.open(trustPath(this.#options.config.stateDirectory))
    const credentials = await directory.credentials()
    if (credentials === null) {
      throw new XosanError('TRUST_FILE_UNSAFE', { path: directory.path, reason: 'there are no keys in it' })
    }
    this.#file = file
    this.#use(credentials)
    this.#etcd?.retarget(this.etcdTarget())
    const kept = await directory.members()
    this.#take(kept)
    this.members.revoke(await directory.revoked())
  }

  /** Begins to speak to the other hosts of a cluster; called again, takes up what has changed. @throws as `prepare` */
  async enter(file: ClusterFile): Promise<void> {
    await this.prepare(file)
    if (!this.#entered) await this.#begin(this.#transport)
  }

  /** Calls what needs other hosts as soon as they can be spoken to: now, or when this host joins. */
  async onEntered(begin: Begin): Promise<void> {
    this.#begins.push(begin)
    if (this.#entered) await begin(this.#transport)
  }

  /**
   * Takes a list of members that somebody who may be believed has told, for the other programs of this host as well, when
   * they are told to look at the files again.
   */
  async toldMembers(members: readonly Member[]): Promise<void> {
    if (!members.some(({ host }) => host === this.#options.config.host.uuid)) return
    this.#take(members)
    await this.#keep(this.members.all)
  }

  /** How another host is called; undefined in clear. @throws XosanError NOT_IN_CLUSTER */
  dialer(host: HostId): PeerDialer | undefined {
    if (this.#transport !== null) return this.#transport.to(host)
    if (this.#entered) return undefined
    throw notInCluster()
  }

  async close(): Promise<void> {
    this.#follower?.close()
    await this.#lazy.close()
    this.#transport?.close()
    // A list that is being written is written to its end.
    await this.#keeping
  }

  async #begin(transport: TrustedTransport | null): Promise<void> {
    this.#entered = true
    if (transport !== null) this.#follow()
    for (const begin of this.#begins) await begin(transport)
  }

  /**
   * A list that the coordinator has not told. What it has told is younger, as a rule, and decides who is a member; but a
   * watch that was cut off looks like one without news, and members of etcd whose certificates are all new could not be
   * asked any more, by those either who would have to hear of these from etcd.
   */
  #take(members: readonly Member[]): void {
    if (this.#follower?.following === true) this.members.learn(members)
    else this.members.replace(members)
  }

  #use(credentials: HostCredentials): void {
    const { clock, log } = this.#options
    const before = this.#credentials
    this.#credentials = credentials
    if (this.#transport === null) {
      this.#transport = new TrustedTransport({
        credentials,
        members: this.members,
        clock,
        log: event => log('warn', 'a connection was refused', { ...event }),
      })
    } else if (
      before?.certificatePem !== credentials.certificatePem ||
      before.authoritiesPem !== credentials.authoritiesPem
    ) {
      this.#transport.use(credentials)
    }
  }

  #follow(): void {
    const { config, clock, log, keepsMembers } = this.#options
    this.#follower = new MemberFollower({
      host: config.host.uuid,
      members: this.members,
      coordinator: this.coordinator,
      clock,
      changed: members => {
        if (keepsMembers) void this.#keep(members)
      },
      warn: (event, facts) => log('warn', event, facts),
    })
    this.#follower.start()
  }

  /** For a start without the coordinator. One list after the other: the last that was told is the last in the file. */
  async #keep(members: readonly Member[]): Promise<void> {
    const { config, log } = this.#options
    this.#keeping = this.#keeping.then(async () => {
      try {
        const directory = await TrustDirectory.open(trustPath(config.stateDirectory))
        await directory.saveMembers(members)
      } catch (error) {
        log('warn', 'the list of members could not be kept', { reason: reasonOf(error) })
      }
    })
    await this.#keeping
  }

  async #openCoordinator(): Promise<Coordinator> {
    const { config, clock, random } = this.#options
    const { coordinator } = this.#file ?? { coordinator: config.coordinator }
    if (!this.#entered && this.#transport === null && config.peers === 'tls') throw notInCluster()
    const callTimeMs = millis(config.timing.coordinatorCallMs)
    if (coordinator.kind === 'embedded') {
      return openEmbeddedCoordinator({ path: coordinator.path, clock, random, callTimeMs })
    }
    // Loaded only where it is used: gRPC takes some 15 MiB of a process.
    const { openEtcdCoordinator } = await import('../../cluster/etcd/etcd-coordinator.ts')
    const namespace = etcdNamespace(this.#file!)
    this.#etcd = openEtcdCoordinator({ target: this.etcdTarget(), namespace, clock, random, callTimeMs })
    return this.#etcd
  }

  /** Where etcd's members are, and how this host shows who it is. */
  etcdTarget(): EtcdTarget {
    const { coordinator } = this.#file!
    if (coordinator.kind !== 'etcd')
      throw new XosanError('INTERNAL', { reason: 'the coordinator is not etcd' })
    return {
      members: coordinator.members.map(({ address, port }) => ({ address, port })),
      tls: this.#transport!.etcdTls(),
    }
  }
}

const notInCluster = (): XosanError => new XosanError('NOT_IN_CLUSTER', {})
