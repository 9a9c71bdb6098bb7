import { connect, type Socket } from 'node:net'
import { isJSONRPCResponse, JSONRPCClient } from 'json-rpc-2.0'
import { type z } from 'zod'
import { reasonOf, XosanError } from '../core/errors.ts'
import { type Clock, type Timer } from '../core/ports/clock.ts'
import { type Millis, millis } from '../core/units.ts'
import { type PeerDialer } from '../trust/trusted-transport.ts'
import { LineReader } from './lines.ts'
import { errorOfResponse, issuesOf, LINE_BYTES_MAX } from './wire.ts'

interface RpcClientOptions {
  /** Path of a unix socket, or a TCP address. */
  readonly address: string | { readonly host: string; readonly port: number }
  /** Speaks TLS with the host that is called; without it TCP is in clear, for loopback. */
  readonly dialer?: Pick<PeerDialer, 'connect'>
  readonly clock: Clock
  /** The error for a server that does not answer; by default PEER_UNREACHABLE with the address. */
  readonly unreachable?: (reason: string) => XosanError
}

/** Calls methods of one other process. */
export interface RpcCaller {
  /** @throws XosanError as `RpcClient.call` */
  call<R>(
    method: string,
    params: Readonly<Record<string, unknown>>,
    schema: z.ZodType<R>,
    options: { readonly deadlineMs: number }
  ): Promise<R>
  close(): void
}

/** One connection, made or in the making, and the calls that wait on it. */
interface Connection {
  readonly socket: Socket
  readonly calls: JSONRPCClient
  readonly made: Promise<void>
  /** Rejects when the connection ends. */
  readonly ended: Promise<never>
  /** When bytes last arrived; null before the first. */
  heardAt: Millis | null
  /** Calls that have not ended. */
  waiting: number
}

/**
 * Calls methods of an RpcServer. Connects at the first call, and again at the next call after the connection was
 * lost; calls of one client share a connection and run at the same time.
 */
export class RpcClient implements RpcCaller {
  readonly #options: RpcClientOptions
  readonly #unreachable: (reason: string) => XosanError
  #connection: Connection | null = null
  #nextId = 1
  #closed = false

  constructor(options: RpcClientOptions) {
    const { address } = options
    const host = typeof address === 'string' ? address : `${address.host}:${address.port}`
    this.#options = options
    this.#unreachable =
      options.unreachable ?? (reason => new XosanError('PEER_UNREACHABLE', { host, reason }))
  }

  /**
   * Calls a method. The time includes connecting. When it rejects with anything but an error of the callee the
   * method may have run, or may still run.
   *
   * @param schema of the result
   * @throws XosanError the callee's; DEADLINE_EXCEEDED; PEER_UNREACHABLE (or what `unreachable` makes) when there
   *   is no connection or it ended; PROTOCOL_VIOLATION when the result does not fit the schema
   */
  async call<R>(
    method: string,
    params: Readonly<Record<string, unknown>>,
    schema: z.ZodType<R>,
    { deadlineMs }: { readonly deadlineMs: number }
  ): Promise<R> {
    const { clock } = this.#options
    if (this.#closed) throw this.#unreachable('this client is closed')
    const connection = (this.#connection ??= this.#connect())
    connection.waiting += 1
    const startedAt = clock.now()
    let timer: Timer | undefined
    const expired = new Promise<never>((_, reject) => {
      timer = clock.after(millis(deadlineMs), () => {
        // A connection on which nothing at all came back may be dead (the peer lost power, a cable was pulled), which
        // TCP would notice only after minutes. The next call makes a new one; calls that still wait may go on.
        if (connection.heardAt === null || connection.heardAt < startedAt) this.#forget(connection)
        reject(new XosanError('DEADLINE_EXCEEDED', { what: method, deadlineMs }))
      })
    })
    try {
      const result = await Promise.race([this.#send(connection, method, params), connection.ended, expired])
      const parsed = schema.safeParse(result)
      if (parsed.success) return parsed.data
      throw new XosanError('PROTOCOL_VIOLATION', {
        reason: `the result of ${method}: ${issuesOf(parsed.error)}`,
      })
    } finally {
      timer?.cancel()
      connection.waiting -= 1
      if (connection.waiting === 0 && this.#connection !== connection) connection.socket.destroy()
    }
  }

  /** Ends the connection; calls that wait reject, and so does every later one. */
  close(): void {
    this.#closed = true
    this.#connection?.socket.destroy()
  }

  #forget(connection: Connection): void {
    if (this.#connection === connection) this.#connection = null
  }

  async #send(
    connection: Connection,
    method: string,
    params: Readonly<Record<string, unknown>>
  ): Promise<unknown> {
    await connection.made
    const id = this.#nextId++
    const response = await connection.calls.requestAdvanced({ jsonrpc: '2.0', id, method, params })
    if (response.error !== undefined) throw errorOfResponse(response.error)
    return response.result
  }

  #connect(): Connection {
    const { address, clock, dialer } = this.#options
    const secured = dialer !== undefined && typeof address !== 'string'
    const socket: Socket = secured ? dialer.connect(address) : connectInClear(address)
    socket.setNoDelay(true)
    const ended = new Promise<never>((_, reject) => {
      socket.on('error', error =>
        reject(error instanceof XosanError ? error : this.#unreachable(error.message))
      )
      socket.on('close', () => {
        this.#forget(connection)
        reject(this.#unreachable('it closed the connection'))
      })
    })
    // Whoever calls next sees a new connection; this one may end while nobody waits.
    ended.catch(() => undefined)
    const calls = new JSONRPCClient(message => {
      socket.write(`${JSON.stringify(message)}\n`)
    })
    const made = new Promise<void>(resolve => {
      socket.once(secured ? 'secureConnect' : 'connect', () => resolve())
    })
    const connection: Connection = { socket, calls, made, ended, heardAt: null, waiting: 0 }
    const reader = new LineReader(LINE_BYTES_MAX)
    socket.on('data', (chunk: Buffer) => {
      connection.heardAt = clock.now()
      try {
        for (const line of reader.push(chunk)) receive(calls, line)
      } catch (error) {
        const violation = new XosanError('PROTOCOL_VIOLATION', { reason: reasonOf(error) })
        socket.destroy(error instanceof XosanError ? error : violation)
      }
    })
    return connection
  }
}

const connectInClear = (address: RpcClientOptions['address']): Socket =>
  typeof address === 'string' ? connect(address) : connect(address.port, address.host)

function receive(calls: JSONRPCClient, line: string): void {
  const message: unknown = JSON.parse(line)
  if (!isJSONRPCResponse(message))
    throw new XosanError('PROTOCOL_VIOLATION', { reason: 'an answer is no JSON-RPC 2.0 response' })
  calls.receive(message)
}
