/** The lab that is attacked: three hosts of a cluster, and one that was a member of it and is the attacker's now. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { DaemonClient } from '../../../cli/daemon-client.ts'
import { type HostPaths } from '../../../cli/lab/layout.ts'
import { labCommand } from '../../../cli/lab/lab-links.ts'
import { type NbdAddress } from '../../../cli/lab/guest-disk.ts'
import { type PoolHost, type PoolVolume, openVolume } from '../../../cli/lab/pool.ts'
import { requireProgram } from '../../../cli/lab/find-program.ts'
import { until } from '../cluster/bounded.ts'
import { type ControlMethod, type ControlParams, type ControlResult } from '../../../rpc/control-api.ts'
import { runProgram, type ProgramResult } from '../../support/run-program.ts'
import { TestLab } from '../../support/test-lab.ts'

const HOSTS = 4
const VOLUME_BYTES = 64 * 1024 * 1024
/** A member of etcd that left is replaced by one on another host, which is started and told all. */
const REMOVAL_MS = 60_000
const CLUSTER_HOSTS = 3

const WHAT = 'The attack on a namespaced lab'

/** @throws XosanError PROGRAM_MISSING, naming the package */
export function requireTools(): void {
  requireProgram(WHAT, 'ss', 'iproute2')
  requireProgram(WHAT, 'nbdinfo', 'libnbd-bin')
  requireProgram(WHAT, 'qemu-img', 'qemu-utils')
}

/** Asks xosand of a host. */
export async function askHost<M extends ControlMethod>(
  host: PoolHost,
  method: M,
  params: ControlParams<M>
): Promise<ControlResult<M>> {
  const daemon = new DaemonClient(host.controlSocket)
  try {
    return await daemon.call(method, params)
  } finally {
    daemon.close()
  }
}

export class AttackLab {
  readonly lab: TestLab
  readonly volume: PoolVolume
  readonly disk: NbdAddress
  /** Serves the volume. */
  readonly primary: PoolHost
  /** Those with replicas, the primary first. */
  readonly holders: readonly PoolHost[]
  /** Those that are to be attacked. */
  readonly hosts: readonly PoolHost[]
  /** Was a member, and has been removed. */
  readonly removed: PoolHost

  private constructor(
    lab: TestLab,
    volume: PoolVolume,
    disk: NbdAddress,
    holders: readonly PoolHost[],
    removed: PoolHost
  ) {
    this.lab = lab
    this.volume = volume
    this.disk = disk
    this.primary = holders[0]!
    this.holders = holders
    this.hosts = lab.hosts.filter(host => host !== removed)
    this.removed = removed
  }

  static startLab(): Promise<TestLab> {
    return TestLab.start(HOSTS, { netns: true, coordinator: 'etcd', copies: 2 })
  }

  /** Opens a volume on the first host, and chooses who is going to be removed: if possible with a member of etcd. */
  static async prepare(lab: TestLab): Promise<AttackLab> {
    const primary = lab.hosts[0]!
    const volume = await lab.createVolume(VOLUME_BYTES)
    const disk = await openVolume(primary, volume)
    const { replicas } = await askHost(primary, 'volume.show', { volume: volume.key })
    const others = lab.hosts.filter(({ uuid }) => uuid !== primary.uuid)
    const holding = (uuid: string): boolean => replicas.some(({ host }) => host === uuid)
    const candidates = others.filter(({ uuid }) => !holding(uuid))
    const { cluster } = await askHost(primary, 'status', {})
    const hasMember = ({ uuid }: PoolHost): boolean =>
      cluster?.etcdMembers.some(({ host }) => host === uuid) === true
    const removed = candidates.find(hasMember) ?? candidates[0]
    const holders = [primary, ...others.filter(({ uuid }) => holding(uuid))]
    if (removed === undefined || holders.length !== 2 || !holding(primary.uuid)) {
      throw new Error(`the replicas of the volume are not on the first host and one more`)
    }
    return new AttackLab(lab, volume, disk, holders, removed)
  }

  /** Ends the membership of the host that becomes the attacker's. Its programs go on. */
  async remove(): Promise<void> {
    await askHost(this.primary, 'host.remove', { host: this.removed.uuid })
  }

  /** Waits until the hosts that are left have all members of etcd. */
  async untilMembersMoved(): Promise<void> {
    await until('etcd has its members on the hosts that are left', REMOVAL_MS, async () => {
      for (const host of this.hosts) {
        const { cluster, coordinator } = await askHost(host, 'status', {})
        const members = cluster?.etcdMembers.map(member => member.host) ?? []
        const left = members.filter(uuid => this.hosts.some(each => each.uuid === uuid))
        if (left.length !== CLUSTER_HOSTS || members.length !== CLUSTER_HOSTS) {
          return `${host.name} knows ${left.length} of them`
        }
        if (!coordinator.reachable) return `${host.name} does not reach any`
      }
      return null
    })
  }

  /** Ends everything that runs on the removed host, for an attacker who has it for himself. */
  async takeRemoved(): Promise<void> {
    await (await this.lab.control(this.removed)).kill()
  }

  /** What must not change while the load goes on: who serves, by which right, and who is in-sync. */
  async volumeState(): Promise<string> {
    const shown = await askHost(this.primary, 'volume.show', { volume: this.volume.key })
    const replicas = shown.replicas.map(({ hostName, state }) => `${hostName} ${state}`).sort()
    return `epoch ${shown.epoch}, ${replicas.join(', ')}`
  }

  async pathsOf(host: PoolHost): Promise<HostPaths> {
    return (await this.lab.control(host)).paths
  }

  /** Runs a program in the network of a host. */
  async run(host: PoolHost, command: readonly string[], timeoutMs = 60_000): Promise<ProgramResult> {
    const [program, ...words] = await labCommand(this.lab.labDirectory, host.name, command)
    return runProgram(program!, words, { timeoutMs })
  }

  /** Gives the attacker a subnet's worth of addresses. They go with the lab. @returns them */
  async takeAddresses(count: number): Promise<string[]> {
    const subnet = this.removed.address.slice(0, this.removed.address.lastIndexOf('.'))
    const addresses = Array.from({ length: count }, (_, index) => `${subnet}.${100 + index}`)
    for (const address of addresses) {
      const words = ['addr', 'add', `${address}/24`, 'dev', 'eth0', 'noprefixroute']
      const { code, output } = await this.run(this.removed, ['ip', ...words])
      if (code !== 0) throw new Error(`the attacker got no address ${address}: ${output}`)
    }
    return addresses
  }

  async trustFile(host: PoolHost, name: string): Promise<string> {
    return readFile(join((await this.pathsOf(host)).state, 'trust', name), 'utf8')
  }
}
