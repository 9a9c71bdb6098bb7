/**
 * The gate before this host's member of etcd. It has the ports on which clients and other members call, does TLS with those
 * who do, and hands what they say to etcd, which listens on unix sockets alone. So etcd's ports have what all ports of
 * XOSAN have: a time limit before somebody has shown who he is, limits for how many may be waiting, one line in the log
 * for what happens ten thousand times; and the connections of a removed host end at once.
 *
 * Why it is a process of its own, and why it asks no list of members: docs/decisions/etcd-gate.md.
 */
import { connect, createServer, isIPv6, type Server, type Socket } from 'node:net'
import { type TLSSocket } from 'node:tls'
import { type Clock } from '../../core/ports/clock.ts'
import { millis } from '../../core/units.ts'
import { reasonOf } from '../../core/errors.ts'
import { listenOnAddress } from '../../rpc/listen.ts'
import { type GateLimits, type HandshakeGate } from '../../trust/handshake-gate.ts'
import { IssuedDoorkeeper } from '../../trust/issued-doorkeeper.ts'
import { type HostCredentials } from '../../trust/trust-directory.ts'
import { type Log } from '../log.ts'
import { SOCKETS } from './member-arguments.ts'

/** A peer that is gone without a word is found out; etcd itself asks for it at 30 seconds. */
const KEEP_ALIVE_MS = 30_000
/** What one end has said last shall still reach the other. */
const LINGER_MS = millis(5_000)
/** Who takes nothing for so long, while there is something to take, has stopped or is gone: etcd's own limit is as long. */
const STALLED_MS = 30_000
/**
 * Fewer than at other ports: a host has some ten connections to a member, and what they carry are votes, which wait while
 * hands are shaken with strangers.
 */
const LIMITS = { pendingMax: 128, pendingOfAddressMax: 32 }

/** What a gate shows and whom it refuses. */
export interface GateTrust {
  readonly credentials: HostCredentials
  /** Serial numbers of revoked certificates, in lower-case hexadecimal. */
  readonly revoked: readonly string[]
}

export interface EtcdGateOptions {
  /** IP address of this host. */
  readonly address: string
  /** 0 takes any free one. */
  readonly ports: { readonly client: number; readonly peer: number }
  /** Path of the unix socket that etcd has for each, relative ones included. */
  readonly socketOf: (name: SocketName) => string
  readonly trust: GateTrust
  readonly clock: Clock
  readonly log: Log
  readonly limits?: Partial<GateLimits>
  /** In milliseconds; replaced in tests. */
  readonly stalledMs?: number
}

type SocketName = (typeof SOCKETS)[keyof typeof SOCKETS]

/** One port and what belongs to it. */
interface Way {
  readonly port: number
  readonly doorkeeper: IssuedDoorkeeper
  readonly gate: HandshakeGate
  readonly server: Server
}

export class EtcdGate {
  readonly #options: EtcdGateOptions
  readonly #ways: readonly Way[]

  constructor(options: EtcdGateOptions) {
    const { ports } = options
    this.#options = options
    this.#ways = [
      // What gRPC asks for, and what people with curl do.
      this.#newWay('client', ports.client, SOCKETS.client, ['h2', 'http/1.1']),
      // Members ask for nothing, and speak HTTP/1.1.
      this.#newWay('peer', ports.peer, SOCKETS.peer),
    ]
  }

  /** @returns the ports @throws an error of the system when a port cannot be had */
  async listen(): Promise<{ readonly client: number; readonly peer: number }> {
    const { address, log } = this.#options
    const [client, peer] = await Promise.all(
      this.#ways.map(async ({ server, port }) => {
        const bound = await listenOnAddress(server, address, port)
        // Anybody can connect; without a listener for it, running out of file descriptors would end the process.
        server.on('error', error => log.warn('accept-failed', { reason: error.message }))
        return bound
      })
    )
    return { client: client!, peer: peer! }
  }

  /** From now on. Connections with a certificate that is revoked, or of an authority that is not trusted any more, end. */
  use({ credentials, revoked }: GateTrust): void {
    for (const { doorkeeper } of this.#ways) doorkeeper.use(credentials, revoked)
  }

  close(): void {
    for (const { server, gate, doorkeeper } of this.#ways) {
      server.close()
      gate.close()
      doorkeeper.close()
    }
  }

  #newWay(name: string, port: number, socket: SocketName, protocols?: string[]): Way {
    const { address, socketOf, trust, clock, log, limits } = this.#options
    const doorkeeper = new IssuedDoorkeeper({
      ...trust,
      ...(protocols === undefined ? {} : { protocols }),
      limits: { ...LIMITS, ...limits },
      clock,
      log: event => log.warn('a connection was refused', { ...event }),
    })
    const gate = doorkeeper.gate(`etcd ${name} ${isIPv6(address) ? `[${address}]` : address}:${port}`)
    const server = createServer(
      { noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS },
      caller => {
        doorkeeper
          .admit(gate.enter(caller))
          .then(admitted => {
            if (admitted !== null) this.#join(admitted.socket, connect(socketOf(socket)))
          })
          .catch((error: unknown) => {
            log.warn('connection-closed', { reason: reasonOf(error) })
            caller.destroy()
          })
      }
    )
    return { port, doorkeeper, gate, server }
  }

  /** Lets two connections be one. When etcd is down, its end closes at once, and so does the caller's. */
  #join(caller: TLSSocket, etcd: Socket): void {
    for (const [from, to] of [
      [caller, etcd],
      [etcd, caller],
    ] as const) {
      from.pipe(to)
      // That it closes says all that is to be known.
      from.on('error', () => undefined)
      // While one is not read from, its end is not noticed either. A write that moves on counts as activity.
      from.setTimeout(this.#options.stalledMs ?? STALLED_MS, () => {
        if (from.writableLength > 0) for (const end of [from, to]) end.destroy()
      })
      from.once('close', () => {
        if (to.destroyed) return
        to.destroySoon()
        const timer = this.#options.clock.after(LINGER_MS, () => to.destroy())
        to.once('close', () => timer.cancel())
      })
    }
  }
}
