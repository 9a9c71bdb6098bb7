import { XosanError } from '../core/errors.ts'
import { datapathIndexOf } from '../core/placement/datapath-index.ts'
import { type Clock } from '../core/ports/clock.ts'
import { type HostId, type VolumeKey } from '../core/units.ts'
import { type HostRecord } from '../cluster/records.ts'
import { type RpcCaller, RpcClient } from '../rpc/client.ts'
import { datapathApi, type DatapathParams, type DatapathResult } from '../rpc/datapath-api.ts'
import { peerApi, type PeerMethod, type PeerParams, type PeerResult } from '../rpc/peer-api.ts'
import { type PeerDialer } from '../trust/trusted-transport.ts'
import { type HostAgent, type ReplicaMethod } from '../volume/context.ts'

interface RemoteHostsOptions {
  /** Of all hosts, as they are now. */
  readonly records: () => readonly HostRecord[]
  /** Makes a client of a port of a host. @throws XosanError NOT_IN_CLUSTER */
  readonly connect: (record: HostRecord, port: number) => RpcCaller
}

/** Connects over TCP. @param dialer how a host is called; undefined in clear */
export const connectOverTcp =
  (clock: Clock, dialer: (host: HostId) => PeerDialer | undefined): RemoteHostsOptions['connect'] =>
  ({ host, address, name }, port) => {
    const secured = dialer(host)
    return new RpcClient({
      address: { host: address, port },
      ...(secured === undefined ? {} : { dialer: secured }),
      clock,
      unreachable: reason => new XosanError('PEER_UNREACHABLE', { host: name, reason }),
    })
  }

/** The other hosts; connections are made when first needed and kept. */
export class RemoteHosts {
  readonly #options: RemoteHostsOptions
  readonly #clients = new Map<string, RpcCaller>()

  constructor(options: RemoteHostsOptions) {
    this.#options = options
  }

  /** @throws XosanError PEER_UNREACHABLE when no host of that id is known */
  agent(host: HostId): HostAgent {
    const record = this.#options.records().find(candidate => candidate.host === host)
    if (record === undefined) throw new XosanError('PEER_UNREACHABLE', { host, reason: 'it is not known' })
    return new RemoteHost(record, port => this.#client(record, port))
  }

  close(): void {
    for (const client of this.#clients.values()) client.close()
  }

  #client(record: HostRecord, port: number): RpcCaller {
    const key = `${record.host} ${record.address} ${port}`
    const known = this.#clients.get(key)
    if (known !== undefined) return known
    const client = this.#options.connect(record, port)
    this.#clients.set(key, client)
    return client
  }
}

class RemoteHost implements HostAgent {
  readonly #record: HostRecord
  readonly #client: (port: number) => RpcCaller

  constructor(record: HostRecord, client: (port: number) => RpcCaller) {
    this.#record = record
    this.#client = client
  }

  async peer<M extends PeerMethod>(
    method: M,
    params: PeerParams<M>,
    deadlineMs: number
  ): Promise<PeerResult<M>> {
    const client = this.#client(this.#record.ports.peer)
    // The schema is the one of this method; TypeScript does not follow the index type through. Also below.
    return (await client.call<unknown>(method, params, peerApi[method].result, {
      deadlineMs,
    })) as PeerResult<M>
  }

  async replica<M extends ReplicaMethod>(
    method: M,
    params: DatapathParams<M>,
    deadlineMs: number
  ): Promise<DatapathResult<M>> {
    const { datapaths, ports } = this.#record
    const client = this.#client(ports.datapath[datapathIndexOf(params.volume as VolumeKey, datapaths)]!)
    const schema = datapathApi[method].result
    return (await client.call<unknown>(method, params, schema, { deadlineMs })) as DatapathResult<M>
  }
}
