/** What listens on the hosts, whoever opened it. */
import { PORTS } from '../../../cli/lab/host-files.ts'
import { type PoolHost } from '../../../cli/lab/pool.ts'
import { DATAPATHS } from '../../support/test-lab.ts'
import { type AttackLab } from './attack-lab.ts'
import { type Protocol } from './attack-wire.ts'

export interface PortKind {
  readonly title: string
  readonly protocol: Protocol
  readonly ports: readonly number[]
}

const several = (first: number): number[] => Array.from({ length: DATAPATHS }, (_, index) => first + index)

/** Every port that a host has open to others. */
export const PORT_KINDS: readonly PortKind[] = [
  { title: 'XOSAND', protocol: 'rpc', ports: [PORTS.peer] },
  { title: 'DATAPATH', protocol: 'rpc', ports: several(PORTS.datapath) },
  { title: 'NBD', protocol: 'nbd', ports: several(PORTS.nbd) },
  { title: 'ETCD', protocol: 'etcd', ports: [PORTS.etcdClient] },
  { title: 'RAFT', protocol: 'etcd', ports: [PORTS.etcdPeer] },
]

export interface Listener {
  readonly host: PoolHost
  readonly address: string
  readonly port: number
  readonly pid: number
  readonly program: string
}

export interface Listeners {
  readonly listeners: readonly Listener[]
  /** What is open and should not be, and what should be and is not. */
  readonly faults: readonly string[]
}

/** Looks at the sockets of every host, by the kernel's own list. */
export async function findListeners(attacked: AttackLab): Promise<Listeners> {
  const listeners: Listener[] = []
  const faults: string[] = []
  const expected = PORT_KINDS.flatMap(({ ports }) => ports)
  for (const host of attacked.hosts) {
    const shown = await attacked.run(host, ['ss', '-Htlnp'])
    const open = shown.output.split('\n').flatMap((line): Listener[] => {
      const [, , , local] = line.split(/\s+/)
      const [, program, pid] = /"([^"]+)",pid=(\d+)/.exec(line) ?? []
      const at = local?.lastIndexOf(':') ?? -1
      if (local === undefined || at < 0) return []
      const address = local.slice(0, at)
      const port = Number(local.slice(at + 1))
      return [{ host, address, port, pid: Number(pid ?? 0), program: program ?? 'somebody' }]
    })
    const beyond = open.filter(({ address }) => !/^(127\.|\[::1\])/.test(address))
    for (const { address, port, program } of beyond) {
      if (!expected.includes(port)) faults.push(`${program} of ${host.name} listens on ${address}:${port}`)
      else if (address !== host.address) faults.push(`${host.name}: port ${port} is bound to ${address}`)
    }
    for (const port of expected) {
      if (!beyond.some(each => each.port === port)) faults.push(`${host.name}: nobody listens on ${port}`)
    }
    const datagrams = await attacked.run(host, ['ss', '-Hulnp'])
    if (datagrams.output.trim() !== '') faults.push(`${host.name} takes UDP: ${datagrams.output.trim()}`)
    listeners.push(...beyond.filter(({ port }) => expected.includes(port)))
  }
  return { listeners, faults }
}
