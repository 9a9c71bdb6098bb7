import { createServer, type Server, type Socket } from 'node:net'
import { reasonOf } from '../../core/errors.ts'
import { type Clock } from '../../core/ports/clock.ts'
import { UNNAMED_CALLER } from '../../trust/caller.ts'
import { type Attempt } from '../../trust/handshake-gate.ts'
import { type TrustedTransport } from '../../trust/trusted-transport.ts'
import { HandshakeStream } from '../nbd-socket/handshake-stream.ts'
import { type CloseReason, type ServerEvent } from './close-reason.ts'
import { Connection, type ServerContext } from './connection.ts'
import { type ConnectionInfo, type ExportResolver } from './export.ts'
import { InFlightBudget } from './in-flight-budget.ts'
import { ReadBuffers } from './read-buffers.ts'
import { DEFAULT_LIMITS, type NbdLimits } from './limits.ts'
import { listenOnAddress, listenOnLoopback, listenOnUnixSocket } from './listening.ts'
import { type Greeted, startTls } from './start-tls.ts'

export interface NbdServerOptions {
  /** Knows the exports of every listener and socket that brings no resolver of its own. */
  readonly exports: ExportResolver
  readonly clock: Clock
  readonly log: (event: ServerEvent) => void
  readonly limits?: Partial<NbdLimits>
}

/** One place where a server takes connections. */
export interface NbdListener {
  /** Path of the unix socket, or `address:port`. */
  readonly address: string
  /** Of TCP; 0 for a unix socket. */
  readonly port: number
  /**
   * Takes no more connections, and ends those that came this way: requests under way are answered first.
   * Resolves when all are gone.
   */
  close(): Promise<void>
}

/** A connection that the server is busy with, and where it came from. */
interface Busy {
  readonly connection: Connection
  readonly listener: string
  readonly done: Promise<void>
}

/**
 * An NBD server for any number of listeners, which share its limits: typically one unix socket for each attached
 * volume, and one port for peers.
 */
export class NbdServer {
  readonly #exports: ExportResolver
  readonly #context: ServerContext
  readonly #listeners = new Set<NbdListener>()
  readonly #busy = new Set<Busy>()
  #connectionCount = 0
  #closing = false

  constructor({ exports, clock, log, limits }: NbdServerOptions) {
    const all = { ...DEFAULT_LIMITS, ...limits }
    this.#exports = exports
    const budget = new InFlightBudget(all.serverBytesMax)
    this.#context = { clock, log, limits: all, budget, buffers: new ReadBuffers() }
  }

  /** Connections that are open or still have requests under way. */
  get connections(): number {
    return this.#busy.size
  }

  /** Bytes of requests and replies under way, for the metrics. */
  get bytesInFlight(): number {
    return this.#context.budget.used
  }

  /**
   * Serves a connection that was made elsewhere, in clear.
   * @param socket must have been made with `allowHalfOpen`, so that a client that ends first still gets its replies
   * @param exports what it may open, if not what the server's own resolver knows
   * @param listener where it came from, for the log and the resolver
   */
  serve(socket: Socket, exports: ExportResolver = this.#exports, listener = ''): void {
    this.#serve(socket, exports, { listener, caller: UNNAMED_CALLER })
  }

  /** @param greeted what was said before TLS */
  #serve(
    socket: Socket,
    exports: ExportResolver,
    origin: Omit<ConnectionInfo, 'id'>,
    greeted: Greeted | null = null
  ): void {
    const info = { id: ++this.#connectionCount, ...origin }
    if (this.#closing || this.#busy.size >= this.#context.limits.connectionsMax) {
      socket.on('error', () => undefined)
      socket.destroy()
      const reason: CloseReason = this.#closing
        ? SERVER_CLOSING
        : { code: 'too-many-connections', detail: `${this.#busy.size} connections are open` }
      this.#context.log({ kind: 'closed', connection: info, reason })
      return
    }
    const connection = new Connection(socket, info, exports, this.#context, greeted)
    const busy: Busy = { connection, listener: info.listener, done: connection.serve() }
    this.#busy.add(busy)
    void busy.done.then(() => this.#busy.delete(busy))
  }

  /**
   * Listens on a unix socket that only this user can open. A socket that is there already is replaced.
   * @throws XosanError INVALID_ARGUMENT when the path is too long, or names something that is no socket
   */
  async listenUnix(path: string, exports: ExportResolver = this.#exports): Promise<NbdListener> {
    const server = this.#newServer(exports, () => path)
    const remove = await listenOnUnixSocket(server, path)
    return this.#register(server, path, 0, remove)
  }

  /**
   * Listens on a TCP port.
   * @param port 0 for any free one
   * @throws XosanError UNSUPPORTED unless the address is one of loopback: beyond it there is `listenTls`
   */
  async listenTcp(host: string, port: number, exports: ExportResolver = this.#exports): Promise<NbdListener> {
    const name = (): string => addressOf(server, host).address
    const server = this.#newServer(exports, name)
    await listenOnLoopback(server, host, port)
    const bound = addressOf(server, host)
    return this.#register(server, bound.address, bound.port)
  }

  /**
   * Listens on a TCP port for members of the SR and nobody else: in clear there is STARTTLS and nothing more.
   * @param port 0 for any free one
   * @throws XosanError INVALID_ARGUMENT for what is no address
   */
  async listenTls(
    host: string,
    port: number,
    transport: TrustedTransport,
    exports: ExportResolver = this.#exports
  ): Promise<NbdListener> {
    const gate = transport.gate(`nbd ${host}:${port}`)
    const server = createServer({ allowHalfOpen: true }, socket => {
      void this.#admit(transport, gate.enter(socket), exports, addressOf(server, host).address)
    })
    await listenOnAddress(server, host, port)
    const bound = addressOf(server, host)
    return this.#register(server, bound.address, bound.port, async () => {
      gate.close()
    })
  }

  /** Takes no more connections, ends all that there are after their requests under way, and resolves when all are gone. */
  async close(): Promise<void> {
    this.#closing = true
    await Promise.all([...this.#listeners].map(listener => listener.close()))
    await this.#endConnections(() => true)
  }

  /** Takes a connection from its first byte to its authentication. Never rejects. */
  async #admit(
    transport: TrustedTransport,
    attempt: Attempt,
    exports: ExportResolver,
    listener: string
  ): Promise<void> {
    const { socket } = attempt
    const stream = new HandshakeStream(socket)
    try {
      const greeted = await startTls(stream)
      stream.release()
      if (greeted === null) {
        attempt.refuse('left', 'it left before TLS')
        return
      }
      const admitted = await transport.admit(attempt)
      if (admitted === null) return
      this.#serve(admitted.socket, exports, { listener, caller: admitted.caller }, greeted)
    } catch (error) {
      attempt.refuse('no-tls', reasonOf(error))
    }
  }

  #newServer(exports: ExportResolver, listener: () => string): Server {
    return createServer({ allowHalfOpen: true }, socket => this.serve(socket, exports, listener()))
  }

  #register(server: Server, address: string, port: number, closing?: () => Promise<void>): NbdListener {
    // Without a listener for it, running out of file descriptors would end the process.
    server.on('error', error => this.#context.log({ kind: 'accept-failed', listener: address, error }))
    const listener: NbdListener = {
      address,
      port,
      close: async () => {
        this.#listeners.delete(listener)
        await closing?.()
        const closed = new Promise<void>(resolve => server.close(() => resolve()))
        await this.#endConnections(busy => busy.listener === address)
        await closed
      },
    }
    this.#listeners.add(listener)
    return listener
  }

  async #endConnections(which: (busy: Busy) => boolean): Promise<void> {
    const ending = [...this.#busy].filter(which)
    for (const { connection } of ending) connection.close(SERVER_CLOSING)
    await Promise.all(ending.map(({ done }) => done))
  }
}

const SERVER_CLOSING: CloseReason = { code: 'server-closing', detail: 'the server is closing' }

function addressOf(server: Server, host: string): { readonly address: string; readonly port: number } {
  const bound = server.address()
  const port = bound !== null && typeof bound === 'object' ? bound.port : 0
  return { address: `${host}:${port}`, port }
}
