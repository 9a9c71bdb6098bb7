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
  /** Certificates that are no longer worth anything, in PEM or DER; the file is read at each handshake. */
  readonly revocationFile: string | null
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

/** A list of flags that etcd 3.4 and its successors take; docs/internals/coordinator.md gives reasons. */
export function memberArguments(place: MemberPlace, bootstrap: Bootstrap): string[] {
  const { host, address, stateDirectory, sr, generation, revocationFile } = place
  const [client, peer] = [clientUrl(place), peerUrl(place)]
  const trust = trustPath(stateDirectory)
  const initial = bootstrap.state === 'new' ? [{ name: host, peerUrl: peer }] : bootstrap.members
  const tls = (prefix: '' | 'peer-'): string[] => [
    ...[`--${prefix}cert-file`, join(trust, 'host.pem'), `--${prefix}key-file`, join(trust, 'host.pem')],
    ...[`--${prefix}trusted-ca-file`, join(trust, 'authorities.pem'), `--${prefix}client-cert-auth`],
  ]
  return [
    // Two arguments each: whoever looks for this process finds it by them.
    ...['--name', host, '--data-dir', etcdPath(stateDirectory)],
    ...['--listen-client-urls', client, '--advertise-client-urls', client],
    ...['--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer],
    ...['--initial-cluster', initial.map(one => `${one.name}=${one.peerUrl}`).join(',')],
    ...['--initial-cluster-state', bootstrap.state],
    ...['--initial-cluster-token', `xosan-${sr}-${generation}`],
    ...tls(''),
    ...tls('peer-'),
    ...(revocationFile === null
      ? []
      : ['--client-crl-file', revocationFile, '--peer-crl-file', revocationFile]),
    // Connections within one machine come from 127.0.0.1, whatever address of it their host has in its certificate.
    ...(address.startsWith('127.') ? ['--experimental-peer-skip-client-san-verification'] : []),
    ...['--pre-vote', '--snapshot-count', '5000', '--enable-grpc-gateway=false'],
    ...['--logger', 'zap', '--log-outputs', 'stderr', '--log-level', 'warn'],
  ]
}
