import { type Socket } from 'node:net'
import { createServer, type SecureContextOptions, type Server, type TLSSocket } from 'node:tls'
import { type Attempt } from './handshake-gate.ts'
import { type RefusedConnection } from './shown-certificate.ts'

interface TlsAcceptorOptions {
  readonly context: SecureContextOptions
  /** Ask the client for a certificate. Who gets the connection judges it: here nobody is refused for it. */
  readonly requestCertificate: boolean
  /** Of which a client that asks for one is given the first that it knows (ALPN, RFC 7301); none: it is not answered. */
  readonly protocols?: readonly string[]
}

/** Does the server's part of TLS handshakes on connections that others have accepted and that wait at a gate. */
export class TlsAcceptor {
  /** Never listens: it is handed its connections. */
  readonly #server: Server
  /** Handshakes under way, by the connection's ends: Node does not tell which connection its events are about. */
  readonly #handshakes = new Map<string, (outcome: TLSSocket | Error) => void>()

  constructor({ context, requestCertificate, protocols }: TlsAcceptorOptions) {
    this.#server = createServer({
      ...context,
      requestCert: requestCertificate,
      ...(protocols === undefined ? {} : { ALPNProtocols: [...protocols] }),
      // Node would close the connection without saying whose it was.
      rejectUnauthorized: false,
    })
    this.#server.on('secureConnection', socket => this.#settle(socket, socket))
    this.#server.on('tlsClientError', (error, socket) => this.#settle(socket, error))
  }

  /** Uses other keys for new connections; those that exist stay. */
  use(context: SecureContextOptions): void {
    this.#server.setSecureContext(context)
  }

  /**
   * Shakes hands. The attempt stays at its gate, whose time limit covers this too.
   * @returns null when it failed; then the attempt has been refused. Never rejects
   */
  async accept(attempt: Attempt): Promise<TLSSocket | null> {
    const { socket } = attempt
    const ends = endsOf(socket)
    const outcome = await new Promise<TLSSocket | Error>(resolve => {
      this.#handshakes.set(ends, result => {
        // Noted before the connection goes: else it would just have left.
        if (result instanceof Error) attempt.refuse('no-tls', result.message)
        resolve(result)
      })
      socket.once('close', () => resolve(new Error('it left')))
      if (socket.destroyed) resolve(new Error('it left'))
      else this.#server.emit('connection', socket)
    })
    this.#handshakes.delete(ends)
    return outcome instanceof Error ? null : outcome
  }

  /**
   * Shakes hands, and lets pass whom `judge` does not refuse.
   * @returns null when it failed, was refused, or was given up meanwhile. Never rejects
   */
  async admit<Verdict extends object>(
    attempt: Attempt,
    judge: (socket: TLSSocket) => Verdict | RefusedConnection
  ): Promise<{ readonly socket: TLSSocket; readonly verdict: Verdict } | null> {
    const socket = await this.accept(attempt)
    if (socket === null) return null
    const verdict = judge(socket)
    if ('refused' in verdict) {
      attempt.refuse(verdict.refused, verdict.detail)
      return null
    }
    // It may have been given up in the same moment.
    if (socket.destroyed || attempt.socket.destroyed) return null
    attempt.pass()
    return { socket, verdict }
  }

  #settle(socket: TLSSocket, outcome: TLSSocket | Error): void {
    const settle = this.#handshakes.get(endsOf(socket))
    if (settle !== undefined) settle(outcome)
    else socket.destroy()
  }
}

/** Names a connection for as long as it exists. */
const endsOf = ({ remoteAddress, remotePort, localAddress, localPort }: Socket): string =>
  `${remoteAddress} ${remotePort} ${localAddress} ${localPort}`
