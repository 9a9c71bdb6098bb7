/**
 * Faults of the links between lab hosts. They are kept by the kernel, in the namespaces, and not by any process: a
 * host that is killed and started again finds its link as it was. They go with the namespaces, at `lab down` and when
 * the machine boots.
 */
import { z } from 'zod'
import { type LabHost } from '../layout.ts'
import { ip, ipBatch, ipJson, tc, tcJson } from './iproute.ts'
import {
  BRIDGE,
  HOST_INTERFACE,
  bridgeHardwareAddress,
  hardwareAddress,
  neighbour,
  portOf,
  switchInterfaces,
} from './make-network.ts'
import { type NetnsLab, hostNamespace, namespacesOf, switchNamespace } from './namespaces.ts'

/** The link of one host, as the kernel has it. */
export interface LinkStatus {
  readonly host: string
  readonly address: string
  readonly namespace: string
  /** `cut`: nothing passes in either direction. `missing`: there is no link, as after a boot of the machine. */
  readonly state: 'up' | 'cut' | 'missing'
  /** Names of the hosts that do not receive what this one sends, while it receives what they send. */
  readonly losesTo: readonly string[]
  /** The limit in each direction in bit/s; null without one. */
  readonly bitsPerSecond: number | null
}

/**
 * The bucket in bytes: how much may pass at full speed after a pause, 6 ms at 1 Gbit/s. With a small one throughput is
 * lost where timers fire late, as on a busy virtual machine.
 */
const BUCKET = 768 * 1024
/** The queue in front of a shaped link in bytes, as in a switch of the simple kind: 17 ms at 1 Gbit/s. */
const QUEUE = 2 * 1024 * 1024

const neighbours = z.array(z.object({ dst: z.string(), lladdr: z.string().optional() }))
const queues = z.array(
  z.object({
    kind: z.string(),
    dev: z.string(),
    options: z.object({ rate: z.number().optional() }).optional(),
  })
)

/**
 * Nothing passes between this host and any other. The port leaves the bridge, so both ends of the link stay up and
 * nobody is told: silence, as when a switch dies behind the next one.
 */
export async function cutHost(lab: NetnsLab, host: LabHost): Promise<void> {
  await ip('-n', switchNamespace(lab), 'link', 'set', portOf(host), 'nomaster')
}

/**
 * What one host sends to another is lost; the other way it passes. The sender is made to address these packets to the
 * switch itself, which drops them.
 */
export async function cutOneWay(lab: NetnsLab, from: LabHost, to: LabHost): Promise<void> {
  await ipBatch(hostNamespace(lab, from), [neighbour(to.address, bridgeHardwareAddress(lab))])
}

/** Heals every cut of this host, also those in one direction, from it or to it. Shaping stays. */
export async function joinHost(lab: NetnsLab, host: LabHost): Promise<void> {
  const others = lab.hosts.filter(({ name }) => name !== host.name)
  const known = (other: LabHost): string => neighbour(other.address, hardwareAddress(other.address))
  await ipBatch(hostNamespace(lab, host), others.map(known))
  for (const other of others) await ipBatch(hostNamespace(lab, other), [known(host)])
  await ip('-n', switchNamespace(lab), 'link', 'set', portOf(host), 'master', BRIDGE)
}

/** @param bitsPerSecond the limit of a host's link in each direction; null takes it away */
export async function shapeHost(lab: NetnsLab, host: LabHost, bitsPerSecond: number | null): Promise<void> {
  const ends = [
    [hostNamespace(lab, host), HOST_INTERFACE],
    [switchNamespace(lab), portOf(host)],
  ] as const
  for (const [namespace, device] of ends) {
    const there = await tcJson(queues, namespace, 'qdisc', 'show')
    if (bitsPerSecond !== null) {
      const limits = ['rate', `${bitsPerSecond}bit`, 'burst', String(BUCKET), 'limit', String(QUEUE)]
      await tc(namespace, 'qdisc', 'replace', 'dev', device, 'root', 'tbf', ...limits)
    } else if (there.some(({ kind, dev }) => kind === 'tbf' && dev === device)) {
      await tc(namespace, 'qdisc', 'del', 'dev', device, 'root')
    }
  }
}

/** The links of all hosts, in their order. */
export async function linkStatus(lab: NetnsLab): Promise<LinkStatus[]> {
  const there = await namespacesOf(lab.network.name)
  const hasSwitch = there.includes(switchNamespace(lab))
  const interfaces = hasSwitch ? await switchInterfaces(lab) : new Map<string, never>()
  const shown = hasSwitch ? await tcJson(queues, switchNamespace(lab), 'qdisc', 'show') : []
  return await Promise.all(
    lab.hosts.map(async (host): Promise<LinkStatus> => {
      const namespace = hostNamespace(lab, host)
      const port = interfaces.get(portOf(host))
      const base = { host: host.name, address: host.address, namespace }
      if (port === undefined || !there.includes(namespace)) {
        return { ...base, state: 'missing', losesTo: [], bitsPerSecond: null }
      }
      const rate = shown.find(({ dev, kind }) => dev === portOf(host) && kind === 'tbf')?.options?.rate
      const known = await ipJson(neighbours, namespace, 'neigh', 'show', 'dev', HOST_INTERFACE)
      const lost = known.filter(({ lladdr }) => lladdr === bridgeHardwareAddress(lab)).map(({ dst }) => dst)
      return {
        ...base,
        state: port.connected ? 'up' : 'cut',
        losesTo: lab.hosts.filter(({ address }) => lost.includes(address)).map(({ name }) => name),
        // tc says bytes in its JSON and bits in its text.
        bitsPerSecond: rate === undefined ? null : rate * 8,
      }
    })
  )
}
