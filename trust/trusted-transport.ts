import { constants } from 'node:crypto'
import { type Socket } from 'node:net'
import {
  connect,
  createSecureContext,
  createServer,
  type PeerCertificate,
  type SecureContext,
  type Server,
  type TLSSocket,
} from 'node:tls'
import { XosanError } from '../core/errors.ts'
import { type Clock } from '../core/ports/clock.ts'
import { type HostId } from '../core/units.ts'
import { certificateFacts } from './certificate.ts'
import { type Attempt, DEFAULT_GATE_LIMITS, type GateLimits, HandshakeGate } from './handshake-gate.ts'
import { identityUri } from './identity.ts'
import { type MemberList } from './members.ts'
import { type RefusalEvent, RefusalLog } from './refusal-log.ts'
import { type HostCredentials } from './trust-directory.ts'
import { type PeerVerdict, verifyPeer } from './verify-peer.ts'

interface TrustedTransportOptions {
  readonly credentials: HostCredentials
  readonly members: MemberList
  readonly clock: Clock
  readonly log: (event: RefusalEvent) => void
  readonly limits?: Partial<GateLimits>
  /** Replaced in tests. */
  readonly timeOfDay?: () => Date
}

/** A connection whose other end has shown to be a member. */
export interface AdmittedConnection {
  readonly socket: TLSSocket
  readonly host: HostId
}

/** How one host is called; all that a client of any protocol needs to know of trust. */
export interface PeerDialer {
  /** Connects; 'secureConnect' tells that the other end is that host, 'error' that it is not or cannot be reached. */
  connect(address: { readonly host: string; readonly port: number }): TLSSocket
  /** The same over a connection that spoke in clear until now and has nothing unread. */
  upgrade(socket: Socket): TLSSocket
}

interface Peer {
  readonly host: HostId
  readonly admission: string
}

/**
 * TLS between the hosts of one SR, for every protocol that they speak. Both ends show a certificate of the SR's own
 * authority, and both look it up on the list of members at each handshake; when a host leaves the list, its connections
 * end at once.
 *
 * Only TLS 1.3. Sessions are not resumed: a resumed one would not show its certificate again.
 */
export class TrustedTransport {
  readonly #members: MemberList
  readonly #clock: Clock
  readonly #limits: GateLimits
  readonly #timeOfDay: () => Date
  readonly #refusals: RefusalLog
  readonly #unsubscribe: () => void
  readonly #peers = new Map<TLSSocket, Peer>()
  /** Handshakes under way at our listeners, by the connection's ends. */
  readonly #handshakes = new Map<string, (outcome: TLSSocket | Error) => void>()
  /** Never listens: it is handed connections that a gate has let through. */
  readonly #tls: Server
  #credentials: HostCredentials
  #context: SecureContext

  constructor({ credentials, members, clock, log, limits, timeOfDay }: TrustedTransportOptions) {
    this.#credentials = credentials
    this.#members = members
    this.#clock = clock
    this.#limits = { ...DEFAULT_GATE_LIMITS, ...limits }
    this.#timeOfDay = timeOfDay ?? (() => new Date())
    this.#refusals = new RefusalLog(clock, log)
    this.#unsubscribe = members.onChange(() => this.#endStrangers())
    this.#context = createSecureContext(contextOptions(credentials))
    this.#tls = createServer({
      ...contextOptions(credentials),
      requestCert: true,
      // Judged in #admit, where it is still known who it was; Node would close the connection without a word.
      rejectUnauthorized: false,
      // The gate's is shorter, and the one that counts.
      handshakeTimeout: 2 * this.#limits.handshakeMs,
    })
    this.#tls.on('secureConnection', socket => this.#settle(endsOf(socket), socket))
    this.#tls.on('tlsClientError', (error, socket) => this.#settle(endsOf(socket), error))
  }

  /** Uses another certificate for new connections; those that exist stay. */
  use(credentials: HostCredentials): void {
    this.#credentials = credentials
    this.#context = createSecureContext(contextOptions(credentials))
    this.#tls.setSecureContext(contextOptions(credentials))
  }

  /** A gate for one listener. @param name for the log */
  gate(name: string): HandshakeGate {
    return new HandshakeGate(name, this.#clock, this.#refusals, this.#limits)
  }

  /**
   * Does the server's part of a handshake on a connection that is at a gate.
   * @returns null when it was refused and closed; never rejects
   */
  async admit(attempt: Attempt): Promise<AdmittedConnection | null> {
    const { socket } = attempt
    const ends = endsOf(socket)
    const outcome = await new Promise<TLSSocket | Error>(resolve => {
      // An error is noted before the connection goes: then it would only have left.
      this.#handshakes.set(ends, result => {
        if (result instanceof Error) attempt.refuse('no-tls', result.message)
        resolve(result)
      })
      socket.once('close', () => resolve(new Error('it left')))
      if (socket.destroyed) resolve(new Error('it left'))
      else this.#tls.emit('connection', socket)
    })
    this.#handshakes.delete(ends)
    if (outcome instanceof Error) return null
    const verdict = this.#judge(outcome)
    if ('refused' in verdict) {
      attempt.refuse(verdict.refused, verdict.detail)
      outcome.destroy()
      return null
    }
    // It may have been given up in the same moment.
    if (socket.destroyed || outcome.destroyed) return null
    attempt.pass()
    this.#track(outcome, verdict.member)
    return { socket: outcome, host: verdict.member.host }
  }

  /** How a host is called. */
  to(host: HostId): PeerDialer {
    const dial = (where: { readonly host: string; readonly port: number } | { readonly socket: Socket }) => {
      const socket = connect({
        ...where,
        secureContext: this.#context,
        rejectUnauthorized: true,
        checkServerIdentity: (_, certificate) => this.#distrust(host, certificate),
      })
      socket.once('secureConnect', () => {
        const member = this.#members.get(host)
        if (member === undefined) socket.destroy(notMember(host))
        else this.#track(socket, member)
      })
      return socket
    }
    return {
      connect: ({ host: address, port }) => dial({ host: address, port }),
      upgrade: socket => dial({ socket }),
    }
  }

  /** Ends every connection. Listeners are their owners' to close. */
  close(): void {
    this.#unsubscribe()
    for (const socket of this.#peers.keys()) socket.destroy()
    this.#refusals.close()
  }

  #settle(ends: string, outcome: TLSSocket | Error): void {
    const settle = this.#handshakes.get(ends)
    if (settle !== undefined) settle(outcome)
    else if (!(outcome instanceof Error)) outcome.destroy()
  }

  #judge(socket: TLSSocket): PeerVerdict | { readonly refused: string; readonly detail: string } {
    const certificate = socket.getPeerX509Certificate()
    if (certificate === undefined) return { refused: 'no-certificate', detail: 'it showed no certificate' }
    if (socket.isSessionReused()) return { refused: 'resumed', detail: 'it resumed an earlier session' }
    if (!socket.authorized) return refusalByTls(String(socket.authorizationError), certificate.raw)
    return verifyPeer(certificate.raw, { ...this.#expectations(), host: null })
  }

  /** What `checkServerIdentity` is to return: why this is not the host that was called. */
  #distrust(host: HostId, certificate: PeerCertificate): Error | undefined {
    const verdict = verifyPeer(certificate.raw, { ...this.#expectations(), host })
    return 'refused' in verdict
      ? new XosanError('PEER_NOT_TRUSTED', { host, reason: verdict.detail })
      : undefined
  }

  #expectations() {
    return { scope: this.#credentials.identity, members: this.#members, now: this.#timeOfDay() }
  }

  #track(socket: TLSSocket, { host, admission }: Peer): void {
    this.#peers.set(socket, { host, admission })
    socket.once('close', () => this.#peers.delete(socket))
  }

  #endStrangers(): void {
    for (const [socket, { host, admission }] of this.#peers) {
      if (this.#members.get(host)?.admission !== admission) socket.destroy(notMember(host))
    }
  }
}

const contextOptions = ({ keyPem, certificatePem, authoritiesPem }: HostCredentials) => ({
  key: keyPem,
  cert: certificatePem,
  ca: authoritiesPem,
  minVersion: 'TLSv1.3' as const,
  secureOptions: constants.SSL_OP_NO_TICKET,
})

const TLS_CAUSES: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: 'expired',
  CERT_NOT_YET_VALID: 'not-yet-valid',
}

/** @param code of OpenSSL; @param certificate of which nothing is proven: what it says helps to find whose it is */
function refusalByTls(code: string, certificate: Uint8Array): { refused: string; detail: string } {
  const identity = certificateFacts(certificate)?.identity
  const claim = identity == null ? 'names no host' : `says it is ${identityUri(identity)}`
  return { refused: TLS_CAUSES[code] ?? 'other-authority', detail: `${code}; the certificate ${claim}` }
}

const notMember = (host: HostId): XosanError =>
  new XosanError('PEER_NOT_TRUSTED', { host, reason: 'it is not on the list of members' })

/** Names a connection for as long as it exists. */
const endsOf = ({ remoteAddress, remotePort, localAddress, localPort }: Socket): string =>
  `${remoteAddress} ${remotePort} ${localAddress} ${localPort}`
