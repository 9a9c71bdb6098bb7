import { type Server, type Socket, connect, createServer } from 'node:net'

/** Passes bytes on between a client and a server until told to lose them. */
export class TcpProxy {
  readonly #server: Server
  readonly #pairs = new Set<{ readonly client: Socket; readonly server: Socket }>()
  #mode: 'pass' | 'lose-answers' | 'lose-all' = 'pass'

  private constructor(server: Server) {
    this.#server = server
  }

  /** @param target port on the loopback */
  static async start(target: number): Promise<TcpProxy> {
    const server = createServer({ noDelay: true })
    const proxy = new TcpProxy(server)
    server.on('connection', client => proxy.#join(client, target))
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    return proxy
  }

  get port(): number {
    return (this.#server.address() as { port: number }).port
  }

  /** From now on what the server says is lost; the client sees a connection on which nothing comes. */
  loseAnswers(): void {
    this.#mode = 'lose-answers'
  }

  /** From now on nothing passes either way, and connections stay open. */
  loseAll(): void {
    this.#mode = 'lose-all'
  }

  /** Cuts all connections. */
  cut(): void {
    for (const pair of [...this.#pairs]) this.#cut(pair)
  }

  /** Passes bytes on again. Connections that have lost some are cut, as TCP would not go on either. */
  heal(): void {
    this.#mode = 'pass'
    this.cut()
  }

  async end(): Promise<void> {
    const closed = new Promise(resolve => this.#server.close(resolve))
    this.cut()
    await closed
  }

  #join(client: Socket, target: number): void {
    const server = connect({ port: target, host: '127.0.0.1', noDelay: true })
    const pair = { client, server }
    this.#pairs.add(pair)
    client.on('data', (bytes: Buffer) => {
      if (this.#mode !== 'lose-all') server.write(bytes)
    })
    server.on('data', (bytes: Buffer) => {
      if (this.#mode === 'pass') client.write(bytes)
    })
    for (const socket of [client, server]) {
      socket.on('error', () => undefined)
      socket.on('close', () => this.#cut(pair))
    }
  }

  #cut(pair: { readonly client: Socket; readonly server: Socket }): void {
    this.#pairs.delete(pair)
    pair.client.destroy()
    pair.server.destroy()
  }
}
