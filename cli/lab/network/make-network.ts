/**
 * Makes the network of a lab: a bridge in a namespace of its own, which is the switch, and a veth pair from it to every
 * host. Nothing is added to the machine's own network.
 *
 *     namespace xosan-1a2b3c4d-sw           namespace xosan-1a2b3c4d-h1
 *       br0 ── p1 ═════════════════════════ eth0 10.78.N.1/24
 *           ── p2 ═══ ...
 *
 * Hosts know each other's hardware addresses from the start and never ask for them (no ARP). So a packet that a cut
 * swallows is lost without a word, where ARP would turn silence into an error, or keep the packet for later; and one
 * direction of a link can be lost for good without the answers to ARP being lost in the other.
 */
import { z } from 'zod'
import { type LabHost } from '../layout.ts'
import { ip, ipBatch, ipJson, requireNetworkTools } from './iproute.ts'
import { type NetnsLab, ensureNamespace, hostNamespace, switchNamespace } from './namespaces.ts'

/** Name of the bridge inside of the switch's namespace. */
export const BRIDGE = 'br0'
/** Name of a host's interface inside of its namespace. */
export const HOST_INTERFACE = 'eth0'

const links = z.array(
  z.object({ ifname: z.string(), flags: z.array(z.string()), master: z.string().optional() })
)

/** One interface of the switch. */
interface SwitchInterface {
  readonly up: boolean
  /** Whether it is a port of the bridge, so that it reaches the others. */
  readonly connected: boolean
}

/** The interface of the switch to which a host's link goes: numbered as the host's address. */
export const portOf = ({ address }: LabHost): string => `p${address.slice(address.lastIndexOf('.') + 1)}`

/** A host's hardware address: locally administered, and made of the host's IP address. */
export function hardwareAddress(address: string): string {
  const bytes = address.split('.').map(byte => Number(byte).toString(16).padStart(2, '0'))
  return ['02', '58', ...bytes].join(':')
}

/** The bridge's own hardware address, as if it were host 0. The switch has no use for what is sent to it. */
export const bridgeHardwareAddress = (lab: NetnsLab): string => hardwareAddress(`${lab.subnet}.0`)

/** The command that tells a host where packets to another one go. */
export const neighbour = (address: string, hardware: string): string =>
  `neigh replace ${address} lladdr ${hardware} dev ${HOST_INTERFACE} nud permanent`

/** The interfaces of the switch by name; none when there is no switch. */
export async function switchInterfaces(lab: NetnsLab): Promise<ReadonlyMap<string, SwitchInterface>> {
  const shown = await ipJson(links, switchNamespace(lab), 'link', 'show')
  return new Map(
    shown.map(({ ifname, flags, master }) => [
      ifname,
      { up: flags.includes('UP'), connected: master === BRIDGE },
    ])
  )
}

/**
 * Makes what is missing of a lab's network; what is there stays as it is, cut and shaped as it may be. After a boot
 * of the machine that is all of it.
 *
 * @throws XosanError ROOT_REQUIRED, PROGRAM_MISSING, LAB_NETWORK_BROKEN
 */
export async function ensureNetwork(lab: NetnsLab): Promise<void> {
  requireNetworkTools('A lab whose hosts have network namespaces')
  const switchName = switchNamespace(lab)
  await ensureNamespace(switchName)
  const interfaces = await switchInterfaces(lab)
  await ipBatch(switchName, [
    ...(interfaces.has(BRIDGE)
      ? []
      : [`link add ${BRIDGE} address ${bridgeHardwareAddress(lab)} type bridge`]),
    `link set ${BRIDGE} addrgenmode none`,
    `link set ${BRIDGE} up`,
  ])
  for (const host of lab.hosts) {
    const port = interfaces.get(portOf(host))
    // A port is taken up last, so one that is up belongs to a link that is complete.
    if (port?.up !== true) await makeLink(lab, host, port !== undefined)
  }
}

/** @param half whether an interrupted attempt left a pair of interfaces */
async function makeLink(lab: NetnsLab, host: LabHost, half: boolean): Promise<void> {
  const switchName = switchNamespace(lab)
  const namespace = hostNamespace(lab, host)
  const port = portOf(host)
  if (half) await ip('-n', switchName, 'link', 'del', port)
  await ensureNamespace(namespace)
  const hardware = hardwareAddress(host.address)
  await ipBatch(namespace, [
    `link add ${HOST_INTERFACE} address ${hardware} type veth peer name ${port} netns ${switchName}`,
    'link set lo up',
    // IPv6 would find the hosts by itself, past the cuts.
    `link set ${HOST_INTERFACE} addrgenmode none`,
    `addr add ${host.address}/24 dev ${HOST_INTERFACE} noprefixroute`,
    `link set ${HOST_INTERFACE} up`,
    // cubic is what dom0 runs, while a kernel whose default is bbr would pace a veth down to a few Gbit/s, and only
    // a route can choose in a namespace. quickack: some NBD servers stall on delayed acknowledgements.
    `route replace ${lab.subnet}.0/24 dev ${HOST_INTERFACE} scope link src ${host.address} congctl cubic quickack 1`,
    ...lab.hosts
      .filter(other => other !== host)
      .map(other => neighbour(other.address, hardwareAddress(other.address))),
  ])
  await ipBatch(switchName, [
    `link set ${port} addrgenmode none`,
    `link set ${port} master ${BRIDGE}`,
    `link set ${port} up`,
  ])
}
