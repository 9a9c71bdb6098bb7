import { mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { XosanError } from '../../core/errors.ts'
import { type ByteLength, type ByteOffset, type VolumeKey } from '../../core/units.ts'
import { volumeKey } from '../../rpc/identifiers.ts'
import {
  type BlockDevice,
  type Extent,
  type TrimRequest,
  type WriteRequest,
  type ZeroRequest,
} from '../block-device.ts'
import { PassThroughDevice } from '../filters/pass-through.ts'
import { Mutex } from '../mirror/signal.ts'
import { type ExportResolver, type OpenedExport } from '../nbd-server/export.ts'
import { type NbdListener, type NbdServer } from '../nbd-server/nbd-server.ts'
import { type GuestDevice } from './guest-device.ts'

/** The socket of one attached volume, and who is connected to it. */
interface GuestSocket {
  readonly listener: NbdListener
  readonly connections: Set<GuestConnection>
}

/**
 * The unix sockets through which guests reach their volumes: one for each attached volume, named by its key. A socket
 * serves one volume only, so every export name is taken: each kind of client has its own idea of one.
 */
export class GuestSockets {
  readonly #server: NbdServer
  readonly #directory: string
  readonly #sockets = new Map<VolumeKey, GuestSocket>()
  readonly #turn = new Mutex()

  /** @param directory of the sockets; shared with the other datapath processes of the host */
  constructor(server: NbdServer, directory: string) {
    this.#server = server
    this.#directory = directory
  }

  /** Makes the directory and removes what dead processes left. @param isOurs which volumes' sockets are our care */
  async prepare(isOurs: (volume: VolumeKey) => boolean): Promise<void> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 })
    for (const name of await readdir(this.#directory)) {
      const key = volumeKey.safeParse(name)
      if (key.success && isOurs(key.data)) await rm(join(this.#directory, name), { force: true })
    }
  }

  /**
   * Serves a volume's device. Does nothing when it is served.
   * @returns path of the socket
   * @throws XosanError INVALID_ARGUMENT when the path is too long for a socket
   */
  async open(volume: VolumeKey, device: GuestDevice): Promise<string> {
    const path = join(this.#directory, volume)
    await this.#turn.run(async () => {
      if (this.#sockets.has(volume)) return
      const connections = new Set<GuestConnection>()
      const listener = await this.#server.listenUnix(path, resolverFor(volume, device, connections))
      this.#sockets.set(volume, { listener, connections })
    })
    return path
  }

  /** Breaks off all connections to a volume. Requests that still wait get no answer, which leaves open what became of them. */
  disconnect(volume: VolumeKey, reason: string): void {
    const socket = this.#sockets.get(volume)
    for (const connection of socket?.connections ?? []) connection.breakOff(reason)
  }

  /** Breaks off all connections to a volume and removes its socket. Idempotent. */
  async close(volume: VolumeKey): Promise<void> {
    await this.#turn.run(async () => {
      const socket = this.#sockets.get(volume)
      if (socket === undefined) return
      this.#sockets.delete(volume)
      for (const connection of socket.connections) connection.breakOff('the volume was detached')
      await socket.listener.close()
    })
  }

  /** Path of a volume's socket; null when it has none. */
  socketOf(volume: VolumeKey): string | null {
    return this.#sockets.get(volume)?.listener.address ?? null
  }

  connectionsTo(volume: VolumeKey): number {
    return this.#sockets.get(volume)?.connections.size ?? 0
  }
}

function resolverFor(
  volume: VolumeKey,
  device: GuestDevice,
  connections: Set<GuestConnection>
): ExportResolver {
  return {
    open: async (): Promise<OpenedExport> => {
      const connection = new GuestConnection(device)
      connections.add(connection)
      return Promise.resolve({
        device: connection,
        readOnly: false,
        durability: 'until-client-asks',
        revoked: connection.revoked,
        mayAnswer: () => device.mayAnswer(),
        closed: () => {
          connections.delete(connection)
        },
      })
    },
    info: async () =>
      Promise.resolve({ size: device.size, readOnly: false, capabilities: device.capabilities }),
    list: async () => Promise.resolve([volume]),
  }
}

/**
 * One connection's view of a volume. A request may wait at the device for hours, until this host is the primary
 * again; when the connection is broken off meanwhile, its requests end here, so that it can be forgotten.
 */
class GuestConnection extends PassThroughDevice {
  readonly revoked: Promise<string>
  readonly #waiting = new Set<(error: XosanError) => void>()
  #revoke!: (reason: string) => void

  constructor(device: BlockDevice) {
    super(device)
    this.revoked = new Promise(resolve => (this.#revoke = resolve))
  }

  /** Ends the connection first and its requests after it: none of them may be answered with an error. */
  breakOff(reason: string): void {
    this.#revoke(reason)
    const error = new XosanError('EXPORT_REFUSED', { host: 'This host', name: '', reason })
    for (const fail of this.#waiting) fail(error)
    this.#waiting.clear()
  }

  override read(offset: ByteOffset, into: Uint8Array): Promise<Uint8Array> {
    return this.#until(this.next.read(offset, into))
  }

  override write(request: WriteRequest): Promise<void> {
    return this.#until(this.next.write(request))
  }

  override zero(request: ZeroRequest): Promise<void> {
    return this.#until(this.next.zero(request))
  }

  override trim(request: TrimRequest): Promise<void> {
    return this.#until(this.next.trim(request))
  }

  override flush(): Promise<void> {
    return this.#until(this.next.flush())
  }

  override allocation(offset: ByteOffset, length: ByteLength): Promise<Extent[]> {
    return this.#until(this.next.allocation(offset, length))
  }

  #until<Result>(done: Promise<Result>): Promise<Result> {
    return new Promise((resolve, reject) => {
      this.#waiting.add(reject)
      done.then(
        result => {
          this.#waiting.delete(reject)
          resolve(result)
        },
        (error: unknown) => {
          this.#waiting.delete(reject)
          // What the device rejected with goes on as it is.
          // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors
          reject(error)
        }
      )
    })
  }
}
