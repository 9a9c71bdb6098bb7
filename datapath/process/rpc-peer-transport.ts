import { promisify } from 'node:util'
import { inflateRaw } from 'node:zlib'
import { type HostRecord } from '../../cluster/records.ts'
import { XosanError } from '../../core/errors.ts'
import {
  type AcceptAnswer,
  type AcceptRequest,
  type ClearRequest,
  type ConfirmRequest,
  type EpochAnswer,
  type FinishRequest,
  type Heartbeat,
  type HeartbeatAnswer,
  type RaiseRequest,
  type ReplicaAddress,
  type SessionName,
} from '../../core/mirror/messages.ts'
import { RegionSet } from '../../core/mirror/region-set.ts'
import { type MirrorTiming } from '../../core/mirror/timing.ts'
import { datapathIndexOf } from '../../core/placement/datapath-index.ts'
import { type Clock } from '../../core/ports/clock.ts'
import {
  type HostId,
  REGION_BYTES,
  type RegionIndex,
  type ReplicaId,
  type VolumeKey,
} from '../../core/units.ts'
import { RpcClient } from '../../rpc/client.ts'
import { mirrorApi, type MirrorMethod, type MirrorParams, type MirrorResult } from '../../rpc/mirror-api.ts'
import { type PeerDialer } from '../../trust/trusted-transport.ts'
import { type ReplicaSession, type CreatedReplica } from '../mirror/replica-peer.ts'
import { RemoteSession } from '../replica-remote/remote-session.ts'
import { type HostDirectory } from './host-directory.ts'
import { type PeerTransport } from './peer-process.ts'

const inflate = promisify(inflateRaw)

/** Making a replica reserves space for its maps, which a busy disk may take long over; nobody's I/O waits for it. */
const CREATE_MS = 30_000

interface RpcPeerTransportOptions {
  readonly host: HostId
  /** Any volume of those that the other process owns; it says which of its host's processes that is. */
  readonly volume: VolumeKey
  readonly directory: HostDirectory
  readonly clock: Clock
  readonly timing: MirrorTiming
  /** How a host is called; undefined in clear. @throws XosanError NOT_IN_CLUSTER */
  readonly dialer: (host: HostId) => PeerDialer | undefined
}

/**
 * Messages to one datapath process of another host. Heartbeats have a connection of their own, so that no long answer
 * delays one, and every session has its own too. A process that does not answer may have moved: then its host's
 * record is read again.
 */
export class RpcPeerTransport implements PeerTransport {
  readonly #options: RpcPeerTransportOptions
  readonly #calls = new Connection()
  readonly #heartbeats = new Connection()

  constructor(options: RpcPeerTransportOptions) {
    this.#options = options
  }

  async heartbeat(heartbeat: Heartbeat): Promise<HeartbeatAnswer> {
    return this.#call('mirror.heartbeat', heartbeat, this.#heartbeats)
  }

  async accept(request: AcceptRequest): Promise<AcceptAnswer> {
    return this.#call('mirror.accept', request)
  }

  async confirm(request: ConfirmRequest): Promise<EpochAnswer> {
    return this.#call('mirror.confirm', request)
  }

  async raise(request: RaiseRequest): Promise<EpochAnswer> {
    return this.#call('mirror.raise', request)
  }

  async intents(name: SessionName): Promise<RegionSet> {
    const regions = Math.ceil(name.address.size / REGION_BYTES)
    const all = new Uint8Array(Math.ceil(regions / 8))
    for (let at = 0; at < all.length;) {
      const part = await this.#call('mirror.intents', { name, fromByte: at })
      const bits = await inflatePart(part, all.length - at)
      if (part.regions !== regions || bits.length === 0) {
        throw violation(`write intents of ${part.regions} regions for a volume of ${regions}`)
      }
      all.set(bits, at)
      at += bits.length
    }
    try {
      return RegionSet.fromBytes(regions, all)
    } catch (error) {
      throw error instanceof RangeError ? violation(error.message) : error
    }
  }

  async digests(name: SessionName, region: RegionIndex): Promise<Uint8Array | null> {
    const { digests } = await this.#call('mirror.digests', { name, region })
    return digests === null ? null : Buffer.from(digests, 'base64')
  }

  async clear(request: ClearRequest): Promise<void> {
    await this.#call('mirror.clear', { ...request, regions: [...request.regions] })
  }

  async finish(request: FinishRequest): Promise<void> {
    await this.#call('mirror.finish', request)
  }

  async create(
    address: Omit<ReplicaAddress, 'store'>,
    blank: boolean,
    lost: ReplicaId
  ): Promise<CreatedReplica> {
    const { sr, volume, replica, layers, size } = address
    const params = { address: { sr, volume, replica, layers: [...layers], size }, blank, lost }
    return this.#call('mirror.create', params, this.#calls, CREATE_MS)
  }

  async openSession(name: SessionName): Promise<ReplicaSession> {
    const { host, directory, clock, timing } = this.#options
    const record = await directory.find(host)
    const dialer = this.#options.dialer(host)
    try {
      return await RemoteSession.open(name, {
        ...(dialer === undefined ? {} : { dialer }),
        address: { host: record.address, port: record.ports.nbd[this.#indexAt(record)]! },
        peer: record.name,
        clock,
        connectMs: timing.callTimeoutMs,
        requestMs: timing.requestTimeMs,
      })
    } catch (error) {
      directory.doubt()
      throw error
    }
  }

  /** Ends the connections for calls; sessions end by themselves. */
  close(): void {
    this.#calls.close()
    this.#heartbeats.close()
  }

  async #call<M extends MirrorMethod>(
    method: M,
    params: Readonly<Record<keyof MirrorParams<M>, unknown>>,
    connection = this.#calls,
    deadlineMs: number = this.#options.timing.callTimeoutMs
  ): Promise<MirrorResult<M>> {
    const { host, directory } = this.#options
    const record = await directory.find(host)
    const client = connection.to(record, record.ports.datapath[this.#indexAt(record)]!, this.#options)
    try {
      // The schema is the one of this method; TypeScript does not follow the index type through.
      return (await client.call<unknown>(method, params, mirrorApi[method].result, {
        deadlineMs,
      })) as MirrorResult<M>
    } catch (error) {
      directory.doubt()
      throw error
    }
  }

  #indexAt(record: HostRecord): number {
    return datapathIndexOf(this.#options.volume, record.datapaths)
  }
}

/** A connection that follows its host to another address. */
class Connection {
  #client: RpcClient | null = null
  #address = ''

  to(
    { host, address, name }: HostRecord,
    port: number,
    { clock, dialer }: Pick<RpcPeerTransportOptions, 'clock' | 'dialer'>
  ): RpcClient {
    const key = `${address} ${port}`
    if (this.#client === null || this.#address !== key) {
      const secured = dialer(host)
      this.#client?.close()
      this.#address = key
      this.#client = new RpcClient({
        address: { host: address, port },
        ...(secured === undefined ? {} : { dialer: secured }),
        clock,
        unreachable: reason => new XosanError('PEER_UNREACHABLE', { host: name, reason }),
      })
    }
    return this.#client
  }

  close(): void {
    this.#client?.close()
  }
}

/** @param bytesMax more than that is not unpacked, however much it claims to hold */
async function inflatePart(part: MirrorResult<'mirror.intents'>, bytesMax: number): Promise<Buffer> {
  try {
    const bits = await inflate(Buffer.from(part.bits, 'base64'), { maxOutputLength: Math.max(bytesMax, 1) })
    if (bits.length === part.bytes) return bits
  } catch (error) {
    throw violation(`write intents that cannot be unpacked: ${String(error)}`)
  }
  throw violation('write intents of another length than said')
}

const violation = (reason: string): XosanError => new XosanError('PROTOCOL_VIOLATION', { reason })
