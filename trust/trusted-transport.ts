import { constants, type X509Certificate } from 'node:crypto'
import { type Socket } from 'node:net'
import {
  connect,
  createSecureContext,
  type PeerCertificate,
  type SecureContext,
  type TLSSocket,
} from 'node:tls'
import { type EtcdTls } from '../cluster/etcd/member-link.ts'
import { XosanError } from '../core/errors.ts'
import { type Clock } from '../core/ports/clock.ts'
import { type HostId } from '../core/units.ts'
import { type Caller } from './caller.ts'
import { certificateFacts } from './certificate.ts'
import { type Attempt, DEFAULT_GATE_LIMITS, type GateLimits, HandshakeGate } from './handshake-gate.ts'
import { isSignedByOne } from './issued-certificate.ts'
import { type Member, type MemberList } from './members.ts'
import { type RefusalEvent, RefusalLog } from './refusal-log.ts'
import { type RefusedConnection, shownCertificate } from './shown-certificate.ts'
import { TlsAcceptor } from './tls-acceptor.ts'
import { type HostCredentials } from './trust-directory.ts'
import { verifyPeer } from './verify-peer.ts'

interface TrustedTransportOptions {
  readonly credentials: HostCredentials
  readonly members: MemberList
  readonly clock: Clock
  readonly log: (event: RefusalEvent) => void
  readonly limits?: Partial<GateLimits>
  /** Replaced in tests. */
  readonly timeOfDay?: () => Date
}

/** A connection that has been let in, and whose it is. */
export interface AdmittedConnection {
  readonly socket: TLSSocket
  readonly caller: Caller
}

/** Decides who comes in at a listener. */
export interface Doorkeeper {
  /** A gate for one listener. @param name for the log */
  gate(name: string): HandshakeGate
  /**
   * Does the server's part of a handshake on a connection that is at a gate.
   * @returns null when it was refused and closed; never rejects
   */
  admit(attempt: Attempt): Promise<AdmittedConnection | null>
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
  /** What was shown, and its serial number. */
  readonly certificate: X509Certificate | undefined
  readonly serial: string
}

/**
 * TLS between the hosts of one SR, for every protocol that they speak. Both ends show a certificate of the SR's own
 * authority, and both look it up on the list of members at each handshake; when a host leaves the list, its connections
 * end at once.
 *
 * Only TLS 1.3. Sessions are not resumed: a resumed one would not show its certificate again.
 */
export class TrustedTransport implements Doorkeeper {
  readonly #members: MemberList
  readonly #clock: Clock
  readonly #limits: GateLimits
  readonly #timeOfDay: () => Date
  readonly #refusals: RefusalLog
  readonly #unsubscribe: () => void
  readonly #peers = new Map<TLSSocket, Peer>()
  readonly #acceptor: TlsAcceptor
  #credentials: HostCredentials
  #context: SecureContext
  #etcdTls: EtcdTls

  constructor({ credentials, members, clock, log, limits, timeOfDay }: TrustedTransportOptions) {
    this.#credentials = credentials
    this.#members = members
    this.#clock = clock
    this.#limits = { ...DEFAULT_GATE_LIMITS, ...limits }
    this.#timeOfDay = timeOfDay ?? (() => new Date())
    this.#refusals = new RefusalLog(clock, log)
    this.#unsubscribe = members.onChange(() => this.#endStrangers())
    this.#context = createSecureContext(contextOptions(credentials))
    this.#etcdTls = this.#newEtcdTls()
    this.#acceptor = new TlsAcceptor({ context: contextOptions(credentials), requestCertificate: true })
  }

  /**
   * Uses another certificate for new connections; those that exist stay, unless none of the authorities that are trusted
   * from now on has signed the certificate that their other end has shown.
   */
  use(credentials: HostCredentials): void {
    const dropped = credentials.authoritiesPem !== this.#credentials.authoritiesPem
    this.#credentials = credentials
    if (dropped) {
      for (const socket of this.#peers.keys()) this.#endUntrusted(socket)
    }
    this.#context = createSecureContext(contextOptions(credentials))
    this.#etcdTls = this.#newEtcdTls()
    this.#acceptor.use(contextOptions(credentials))
  }

  gate(name: string): HandshakeGate {
    return new HandshakeGate(name, this.#clock, this.#refusals, this.#limits)
  }

  async admit(attempt: Attempt): Promise<AdmittedConnection | null> {
    const admitted = await this.#acceptor.admit(attempt, candidate => this.#judge(candidate))
    if (admitted === null) return null
    const { socket, verdict } = admitted
    this.#track(socket, verdict.member)
    return { socket, caller: { host: verdict.member.host } }
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

  /**
   * What a client of etcd is to use: this host's certificate, and the list of members for those who answer. The same
   * object until `use` is called; then the client is to be given the new one. An etcd that leaves the list is refused at
   * its next handshake; the connection that there is ends when it is taken from the client's members.
   */
  etcdTls(): EtcdTls {
    return this.#etcdTls
  }

  /** Ends every connection. Listeners are their owners' to close. */
  close(): void {
    this.#unsubscribe()
    for (const socket of this.#peers.keys()) socket.destroy()
    this.#refusals.close()
  }

  #judge(socket: TLSSocket): { readonly member: Member } | RefusedConnection {
    const shown = shownCertificate(socket)
    if ('refused' in shown) return shown
    return verifyPeer(shown.certificate.raw, { ...this.#expectations(), host: null })
  }

  #newEtcdTls(): EtcdTls {
    const { keyPem, certificatePem, authoritiesPem } = this.#credentials
    return {
      ca: Buffer.from(authoritiesPem),
      cert: Buffer.from(certificatePem),
      key: Buffer.from(keyPem),
      verify: certificate => {
        const verdict = verifyPeer(certificate, { ...this.#expectations(), host: null })
        return 'refused' in verdict
          ? new XosanError('PEER_NOT_TRUSTED', { host: 'the etcd member', reason: verdict.detail })
          : undefined
      },
    }
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

  #track(socket: TLSSocket, { host, admission }: Member): void {
    const certificate = socket.getPeerX509Certificate()
    const serial = certificateFacts(certificate?.raw ?? Buffer.alloc(0))?.serial ?? ''
    this.#peers.set(socket, { host, admission, serial, certificate })
    socket.once('close', () => this.#peers.delete(socket))
    this.#endUntrusted(socket)
  }

  /** An authority may be dropped during a handshake, and long after one. */
  #endUntrusted(socket: TLSSocket): void {
    const { host, certificate } = this.#peers.get(socket)!
    if (certificate !== undefined && isSignedByOne(certificate, this.#credentials.authoritiesPem)) return
    const reason = 'the authority of its certificate is not trusted any more'
    socket.destroy(new XosanError('PEER_NOT_TRUSTED', { host, reason }))
  }

  #endStrangers(): void {
    for (const [socket, { host, admission, serial }] of this.#peers) {
      const left = this.#members.get(host)?.admission !== admission
      if (left || this.#members.isRevoked(serial)) socket.destroy(notMember(host))
    }
  }
}

/** What both ends of TLS are made of. */
export const contextOptions = ({ keyPem, certificatePem, authoritiesPem }: HostCredentials) => ({
  key: keyPem,
  cert: certificatePem,
  ca: authoritiesPem,
  minVersion: 'TLSv1.3' as const,
  secureOptions: constants.SSL_OP_NO_TICKET,
})

const notMember = (host: HostId): XosanError =>
  new XosanError('PEER_NOT_TRUSTED', { host, reason: 'it is not on the list of members' })
