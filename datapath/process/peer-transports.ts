import { datapathIndexOf } from '../../core/placement/datapath-index.ts'
import { type MirrorTiming } from '../../core/mirror/timing.ts'
import { type Clock } from '../../core/ports/clock.ts'
import { type HostId, type VolumeKey } from '../../core/units.ts'
import { type PeerDialer } from '../../trust/trusted-transport.ts'
import { type HostDirectory } from './host-directory.ts'
import { RpcPeerTransport } from './rpc-peer-transport.ts'

interface PeerTransportsOptions {
  readonly directory: HostDirectory
  readonly clock: Clock
  readonly timing: MirrorTiming
  /** How a host is called; undefined in clear. @throws XosanError NOT_IN_CLUSTER */
  readonly dialer: (host: HostId) => PeerDialer | undefined
}

/** One transport for each datapath process of another host, so that all volumes which two processes share have one pulse. */
export class PeerTransports {
  readonly #options: PeerTransportsOptions
  readonly #transports = new Map<string, RpcPeerTransport>()

  constructor(options: PeerTransportsOptions) {
    this.#options = options
  }

  /** The way to the process of another host that owns a volume there. */
  to(host: HostId, volume: VolumeKey): RpcPeerTransport {
    const record = this.#options.directory.known(host)
    // While nothing is known of the host the volume gets one to itself, which finds its way when it is first used.
    const process = record === undefined ? volume : datapathIndexOf(volume, record.datapaths)
    const key = `${host} ${process}`
    let transport = this.#transports.get(key)
    if (transport === undefined) {
      transport = new RpcPeerTransport({ host, volume, ...this.#options })
      this.#transports.set(key, transport)
    }
    return transport
  }
}
