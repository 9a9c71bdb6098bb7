import { HOSTS_PREFIX } from '../../cluster/keys.ts'
import { parseHostRecord } from '../../cluster/records.ts'
import { XosanError } from '../../core/errors.ts'
import { type Clock } from '../../core/ports/clock.ts'
import { type Random } from '../../core/ports/random.ts'
import { type HostId } from '../../core/units.ts'
import { type Config } from '../config.ts'
import { MemberKeeper, type KeeperHost } from '../etcd/member-keeper.ts'
import { type MemberPlace } from '../etcd/member-arguments.ts'
import { MemberProcess } from '../etcd/member-process.ts'
import { type Log } from '../log.ts'
import { programsDirectory } from '../supervision/programs.ts'
import { type ClusterEtcdMember, type ClusterFile } from './cluster-file.ts'
import { type CoordinatorMember } from './cluster-service.ts'
import { type HostCluster } from './host-cluster.ts'

interface EtcdPartOptions {
  readonly config: Config
  readonly cluster: HostCluster
  /** Whether another host answers. */
  readonly isUp: (host: HostId) => Promise<boolean>
  /** Told of the members that clients should know. */
  readonly membersChanged: (members: readonly ClusterEtcdMember[]) => Promise<void>
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
}

/** This host's part in etcd, for the cluster that it is in. */
export class EtcdPart implements CoordinatorMember {
  readonly #options: EtcdPartOptions
  #keeper: MemberKeeper | null = null

  constructor(options: EtcdPartOptions) {
    this.#options = options
  }

  async startAlone(file: ClusterFile, deadlineMs: number): Promise<void> {
    await (await this.#keeperFor(file)).startAlone(deadlineMs)
  }

  /** Begins to look after the members of the cluster that this host has entered. */
  async begin(): Promise<void> {
    const { file } = this.#options.cluster
    if (file !== null) (await this.#keeperFor(file)).start()
  }

  async untilComplete(deadlineMs: number): Promise<void> {
    if (this.#keeper === null) throw new XosanError('NOT_IN_CLUSTER', {})
    await this.#keeper.untilComplete(deadlineMs)
  }

  /**
   * Makes this host's member, if it has one, read the authorities again.
   * @throws XosanError NOT_IN_CLUSTER while it is not known yet whether there is one; as `MemberKeeper.restart`
   */
  async restarted(): Promise<void> {
    if (this.#keeper === null) throw new XosanError('NOT_IN_CLUSTER', {})
    await this.#keeper.restart()
  }

  /** The process goes on. */
  async close(): Promise<void> {
    await this.#keeper?.close()
  }

  async #keeperFor(file: ClusterFile): Promise<MemberKeeper> {
    if (this.#keeper !== null) return this.#keeper
    const { config, cluster, isUp, membersChanged, clock, random, log } = this.#options
    if (config.coordinator.kind !== 'etcd') {
      throw new XosanError('INTERNAL', { reason: 'the coordinator is not etcd' })
    }
    this.#keeper = new MemberKeeper({
      place: memberPlace(config, file),
      program: config.coordinator.program,
      programs: programsDirectory(),
      clock,
      random,
      target: () => cluster.etcdTarget(),
      hosts: async () => this.#hosts(),
      isUp,
      members: membersChanged,
      log: text => log.info(text),
      warn: text => log.warn(text),
    })
    return this.#keeper
  }

  async #hosts(): Promise<KeeperHost[]> {
    const { entries } = await this.#options.cluster.coordinator.list(HOSTS_PREFIX)
    return entries.map(({ key, value }) => ({ record: parseHostRecord(key, value), leaving: false }))
  }
}

function memberPlace(config: Config, { sr, generation }: ClusterFile): MemberPlace {
  const { host, ports, stateDirectory } = config
  return {
    host: host.uuid,
    address: host.address,
    ports: { client: ports.etcdClient, peer: ports.etcdPeer },
    stateDirectory,
    sr,
    generation,
  }
}

/** Ends what runs of etcd on this host, and removes its data: for a host that has left its cluster. */
export async function removeMember(config: Config, file: ClusterFile, log: Log): Promise<void> {
  if (config.coordinator.kind !== 'etcd') return
  const { program } = config.coordinator
  const member = new MemberProcess({
    ...memberPlace(config, file),
    program,
    programs: programsDirectory(),
    log: text => log.info(text),
  })
  await member.stop()
  await member.destroy()
}
