import { mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { type VolumeKey } from '../../core/units.ts'
import { volumeKey } from '../../rpc/identifiers.ts'
import { Mutex } from '../mirror/signal.ts'
import { type ExportResolver, type OpenedExport } from '../nbd-server/export.ts'
import { type NbdListener, type NbdServer } from '../nbd-server/nbd-server.ts'
import { GuestConnection } from './guest-connection.ts'
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
