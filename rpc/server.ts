import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import { isJSONRPCRequest, JSONRPCServer, type JSONRPCRequest, type JSONRPCResponse } from 'json-rpc-2.0'
import { type z } from 'zod'
import { reasonOf, XosanError } from '../core/errors.ts'
import { type Caller, UNNAMED_CALLER } from '../trust/caller.ts'
import { type Attempt, type HandshakeGate } from '../trust/handshake-gate.ts'
import { type Doorkeeper } from '../trust/trusted-transport.ts'
import { LineReader } from './lines.ts'
import { listenOnAddress, listenOnLoopback, listenOnPrivateSocket } from './listen.ts'
import { errorResponse, issuesOf, LINE_BYTES_MAX, type Json } from './wire.ts'

/** Something that the operator may want to know of one connection or call. */
export interface RpcServerEvent {
  readonly event: 'connection-closed' | 'call-failed' | 'accept-failed'
  readonly method?: string
  readonly reason: string
}

interface RpcServerOptions {
  /** Told of connections that broke the protocol, and of calls that failed with INTERNAL. */
  readonly log: (event: RpcServerEvent) => void
  /** Longest request in bytes. */
  readonly lineBytesMax?: number
  /**
   * Requests of one connection that may be unanswered, or answered but unread by the client; beyond that the
   * connection is not read. Enough for xapi's concurrent calls of a whole host; twice as many would only queue.
   */
  readonly inFlightMax?: number
  /** Connections at one time; further ones are refused. */
  readonly connectionsMax?: number
}

/** A peer that lost power never says goodbye; without a question now and then its connection would stay for good. */
const KEEP_ALIVE_MS = 60_000

/**
 * Serves JSON-RPC 2.0 over newline-delimited JSON on unix sockets, loopback TCP, and TLS between hosts.
 *
 * Requests of one connection run at the same time and are answered as they finish. A line that is not a JSON-RPC
 * request closes its connection, and nothing else.
 */
export class RpcServer {
  readonly #methods = new JSONRPCServer<Caller>({ errorListener: () => undefined })
  readonly #options: Required<RpcServerOptions>
  readonly #servers: Server[] = []
  readonly #gates: HandshakeGate[] = []
  readonly #connections = new Set<Socket>()
  readonly #underWay = new Set<Promise<void>>()
  #closing = false

  constructor(options: RpcServerOptions) {
    this.#options = { lineBytesMax: LINE_BYTES_MAX, inFlightMax: 64, connectionsMax: 512, ...options }
    this.#methods.mapErrorToJSONRPCErrorResponse = errorResponse
  }

  /**
   * Adds a method.
   *
   * @param schema of its parameters, an object by name; anything else is answered INVALID_ARGUMENT
   * @param handler told who calls; its result is sent as JSON; a XosanError that it throws reaches the caller as it is,
   *   any other error as INTERNAL
   */
  register<P>(
    name: string,
    schema: z.ZodType<P>,
    handler: (params: P, caller: Caller) => Promise<Json> | Json
  ): void {
    this.#methods.addMethod(name, async (params: unknown, caller) => {
      const parsed = schema.safeParse(params)
      if (!parsed.success) {
        throw new XosanError('INVALID_ARGUMENT', {
          what: `A parameter of ${name}`,
          reason: issuesOf(parsed.error),
        })
      }
      try {
        return await handler(parsed.data, caller)
      } catch (error) {
        if (!(error instanceof XosanError) || error.code === 'INTERNAL') {
          const reason = error instanceof Error ? (error.stack ?? error.message) : reasonOf(error)
          this.#options.log({ event: 'call-failed', method: name, reason })
        }
        throw error
      }
    })
  }

  /** Listens on a unix socket of mode 0600. @throws XosanError INVALID_ARGUMENT when the path cannot be taken */
  async listenUnix(path: string): Promise<void> {
    await listenOnPrivateSocket(this.#newPlainServer(), path)
  }

  /** Listens on TCP. @returns the port @throws XosanError UNSUPPORTED when the address is not a loopback one */
  async listenTcp(host: string, port: number): Promise<number> {
    return listenOnLoopback(this.#newPlainServer(), host, port)
  }

  /**
   * Listens on TCP for those whom a transport lets in and nobody else.
   * @param port 0 takes any free one @returns the port
   */
  async listenTls(host: string, port: number, transport: Doorkeeper): Promise<number> {
    const gate = transport.gate(`rpc ${host}:${port}`)
    this.#gates.push(gate)
    const server = this.#newServer(socket => {
      this.#admitted(transport, gate.enter(socket)).catch((error: unknown) => {
        this.#options.log({ event: 'connection-closed', reason: reasonOf(error) })
        socket.destroy()
      })
    })
    const bound = await listenOnAddress(server, host, port)
    // Anybody can connect; without a listener for it, running out of file descriptors would end the process.
    server.on('error', error => this.#options.log({ event: 'accept-failed', reason: error.message }))
    return bound
  }

  /** Takes no further requests, waits until those under way have been answered, and closes all connections. */
  async close(): Promise<void> {
    this.#closing = true
    const closed = this.#servers.filter(server => server.listening).map(server => once(server, 'close'))
    for (const server of this.#servers) server.close()
    for (const gate of this.#gates) gate.close()
    for (const connection of this.#connections) connection.pause()
    while (this.#underWay.size > 0) await Promise.all(this.#underWay)
    for (const connection of this.#connections) connection.destroy()
    await Promise.all(closed)
  }

  #newPlainServer(): Server {
    const server = this.#newServer(socket => this.#serve(socket, UNNAMED_CALLER))
    server.maxConnections = this.#options.connectionsMax
    return server
  }

  #newServer(connected: (socket: Socket) => void): Server {
    const server = createServer(
      { noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS },
      connected
    )
    this.#servers.push(server)
    return server
  }

  /** Those that are not authenticated take no member's place: the gate has limits of its own for them. */
  async #admitted(transport: Doorkeeper, attempt: Attempt): Promise<void> {
    const admitted = await transport.admit(attempt)
    if (admitted === null) return
    const { socket, caller } = admitted
    if (this.#closing) socket.destroy()
    else if (this.#connections.size < this.#options.connectionsMax) this.#serve(socket, caller)
    else {
      const reason = `${this.#connections.size} connections are open`
      this.#options.log({ event: 'connection-closed', reason })
      socket.destroy()
    }
  }

  #serve(socket: Socket, caller: Caller): void {
    const { lineBytesMax, inFlightMax } = this.#options
    const reader = new LineReader(lineBytesMax)
    const waiting: string[] = []
    let inFlight = 0

    const closeBecause = (reason: string) => {
      if (!socket.destroyed) this.#options.log({ event: 'connection-closed', reason })
      socket.destroy()
    }
    const finished = () => {
      inFlight -= 1
      dispatch()
    }
    const dispatch = () => {
      while (inFlight < inFlightMax && waiting.length > 0 && !socket.destroyed && !this.#closing) {
        const request = parseRequest(waiting.shift()!)
        if (request === null) {
          closeBecause('a line is not a JSON-RPC 2.0 request')
          return
        }
        inFlight += 1
        this.#answer(socket, request, caller, finished)
      }
      if (socket.destroyed || this.#closing) return
      if (waiting.length > 0 || inFlight >= inFlightMax) socket.pause()
      else socket.resume()
    }

    this.#connections.add(socket)
    socket.on('data', (chunk: Buffer) => {
      try {
        waiting.push(...reader.push(chunk))
      } catch (error) {
        closeBecause(reasonOf(error))
        return
      }
      dispatch()
    })
    socket.on('error', error => closeBecause(error.message))
    socket.on('close', () => this.#connections.delete(socket))
  }

  /** @param finished called when the answer has left for the kernel, or needs to go nowhere */
  #answer(socket: Socket, request: JSONRPCRequest, caller: Caller, finished: () => void): void {
    const call = Promise.resolve(this.#methods.receive(request, caller))
      .then(response => {
        if (response === null || socket.destroyed) {
          finished()
          return
        }
        return new Promise<void>(resolve => {
          socket.write(this.#encode(response), () => {
            finished()
            resolve()
          })
        })
      })
      .finally(() => this.#underWay.delete(call))
    this.#underWay.add(call)
  }

  #encode(response: JSONRPCResponse): Buffer {
    const line = Buffer.from(`${JSON.stringify(response)}\n`)
    if (line.length <= this.#options.lineBytesMax + 1) return line
    const tooLong = new XosanError('INTERNAL', {
      reason: `the answer exceeds ${this.#options.lineBytesMax} bytes`,
    })
    return Buffer.from(`${JSON.stringify(errorResponse(response.id, tooLong))}\n`)
  }
}

/** @returns null when the line is no request; batches are not taken, since one line could hold any number of calls */
function parseRequest(line: string): JSONRPCRequest | null {
  try {
    const message: unknown = JSON.parse(line)
    return isJSONRPCRequest(message) ? message : null
  } catch {
    return null
  }
}
