import { isIPv6 } from 'node:net'
import { join } from 'node:path'
import { type HostId, type SrId } from '../../core/units.ts'
import { etcdPath, trustPath } from '../cluster/cluster-file.ts'

/** What does not change as long as a host is in a cluster. */
export interface MemberPlace {
  readonly host: HostId
  /** IP address that the other hosts connect to. */
  readonly address: string
  readonly ports: { readonly client: number; readonly peer: number }
  /** Holds the data, and keys and certificates as `TrustDirectory` keeps them. */
  readonly stateDirectory: string
  readonly sr: SrId
  readonly generation: number
}

/** Read by etcd once, when it starts without data: whether it makes a cluster or finds one. */
export type Bootstrap =
  | { readonly state: 'new' }
  | {
      readonly state: 'existing'
      /** All members as the cluster lists them, this one included: etcd compares. */
      readonly members: readonly { readonly name: string; readonly peerUrl: string }[]
    }

const urlOf = (address: string, port: number): string =>
  `https://${isIPv6(address) ? `[${address}]` : address}:${port}`

export const clientUrl = ({ address, ports }: Pick<MemberPlace, 'address' | 'ports'>): string =>
  urlOf(address, ports.client)
export const peerUrl = ({ address, ports }: Pick<MemberPlace, 'address' | 'ports'>): string =>
  urlOf(address, ports.peer)

/** Directory of the unix sockets on which etcd listens, and where it works: below it, root alone can connect. */
export const socketsPath = (stateDirectory: string): string => join(stateDirectory, 'etcd-sockets')

/** The sockets' names. etcd (3.4) insists on something like a port. */
export const SOCKETS = { client: 'client:0', peer: 'peer:0' } as const

/** Arguments by which this host's process of etcd is known. */
export const memberMark = ({ host, stateDirectory }: MemberPlace): string[] => [
  ...['--name', host, '--data-dir', etcdPath(stateDirectory)],
]

/** A list of flags that etcd 3.4 and its successors take; docs/internals/coordinator.md gives reasons. */
export function memberArguments(place: MemberPlace, bootstrap: Bootstrap): string[] {
  const { host, stateDirectory, sr, generation } = place
  const [client, peer] = [clientUrl(place), peerUrl(place)]
  const trust = trustPath(stateDirectory)
  const initial = bootstrap.state === 'new' ? [{ name: host, peerUrl: peer }] : bootstrap.members
  return [
    ...memberMark(place),
    ...['--listen-client-urls', `unix://${SOCKETS.client}`, '--advertise-client-urls', client],
    ...['--listen-peer-urls', `unix://${SOCKETS.peer}`, '--initial-advertise-peer-urls', peer],
    ...['--initial-cluster', initial.map(one => `${one.name}=${one.peerUrl}`).join(',')],
    ...['--initial-cluster-state', bootstrap.state],
    ...['--initial-cluster-token', `xosan-${sr}-${generation}`],
    // What it shows to the gates of its peers, and by what it knows them.
    ...['--peer-cert-file', join(trust, 'host.pem'), '--peer-key-file', join(trust, 'host.pem')],
    ...['--peer-trusted-ca-file', join(trust, 'authorities.pem')],
    ...['--pre-vote', '--snapshot-count', '5000', '--enable-grpc-gateway=false'],
    ...['--logger', 'zap', '--log-outputs', 'stderr', '--log-level', 'warn'],
  ]
}
