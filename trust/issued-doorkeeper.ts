import { type TLSSocket } from 'node:tls'
import { type Clock } from '../core/ports/clock.ts'
import { type Attempt, DEFAULT_GATE_LIMITS, type GateLimits, HandshakeGate } from './handshake-gate.ts'
import { isSignedByOne } from './issued-certificate.ts'
import { type RefusalEvent, RefusalLog } from './refusal-log.ts'
import { type RefusedConnection, shownCertificate } from './shown-certificate.ts'
import { TlsAcceptor } from './tls-acceptor.ts'
import { type HostCredentials } from './trust-directory.ts'
import { type AdmittedConnection, contextOptions, type Doorkeeper } from './trusted-transport.ts'
import { type IssuedFacts, verifyIssued } from './verify-peer.ts'

interface IssuedDoorkeeperOptions {
  readonly credentials: HostCredentials
  /** Serial numbers of the certificates that are revoked, in lower-case hexadecimal. */
  readonly revoked: readonly string[]
  /** Of which a client may choose one (ALPN); none: it is not answered. */
  readonly protocols?: readonly string[]
  readonly clock: Clock
  readonly log: (event: RefusalEvent) => void
  readonly limits?: Partial<GateLimits>
}

/**
 * Lets in who shows a certificate that the SR's authority has issued and not revoked. It does not ask the list of members:
 * that list is kept by those who are behind this door, so who may ask them for it cannot depend on having it.
 */
export class IssuedDoorkeeper implements Doorkeeper {
  readonly #clock: Clock
  readonly #limits: GateLimits
  readonly #refusals: RefusalLog
  readonly #acceptor: TlsAcceptor
  /** Serial number of what each has shown. */
  readonly #admitted = new Map<TLSSocket, string>()
  #credentials: HostCredentials
  #revoked: ReadonlySet<string>

  constructor({ credentials, revoked, protocols, clock, log, limits }: IssuedDoorkeeperOptions) {
    this.#clock = clock
    this.#limits = { ...DEFAULT_GATE_LIMITS, ...limits }
    this.#refusals = new RefusalLog(clock, log)
    this.#credentials = credentials
    this.#revoked = new Set(revoked)
    this.#acceptor = new TlsAcceptor({
      context: contextOptions(credentials),
      requestCertificate: true,
      ...(protocols === undefined ? {} : { protocols }),
    })
  }

  /**
   * Uses another certificate and other authorities for new connections, and takes more certificates for revoked; none ever
   * becomes good again. Connections whose certificate is revoked, or signed by no authority that is still trusted, end.
   */
  use(credentials: HostCredentials, revoked: readonly string[]): void {
    this.#credentials = credentials
    this.#revoked = new Set([...this.#revoked, ...revoked])
    this.#acceptor.use(contextOptions(credentials))
    for (const socket of this.#admitted.keys()) this.#endUntrusted(socket)
  }

  gate(name: string): HandshakeGate {
    return new HandshakeGate(name, this.#clock, this.#refusals, this.#limits)
  }

  async admit(attempt: Attempt): Promise<AdmittedConnection | null> {
    const admitted = await this.#acceptor.admit(attempt, candidate => this.#judge(candidate))
    if (admitted === null) return null
    const { socket, verdict } = admitted
    this.#admitted.set(socket, verdict.serial)
    socket.once('close', () => this.#admitted.delete(socket))
    // An authority may be dropped during a handshake.
    this.#endUntrusted(socket)
    return { socket, caller: { host: verdict.host } }
  }

  /** Ends every connection. Listeners are their owners' to close. */
  close(): void {
    for (const socket of this.#admitted.keys()) socket.destroy()
    this.#refusals.close()
  }

  #judge(socket: TLSSocket): IssuedFacts | RefusedConnection {
    const shown = shownCertificate(socket)
    if ('refused' in shown) return shown
    return verifyIssued(shown.certificate.raw, {
      scope: this.#credentials.identity,
      isRevoked: serial => this.#revoked.has(serial),
      host: null,
      now: new Date(),
    })
  }

  #endUntrusted(socket: TLSSocket): void {
    const certificate = socket.getPeerX509Certificate()
    const trusted = certificate !== undefined && isSignedByOne(certificate, this.#credentials.authoritiesPem)
    if (!trusted || this.#revoked.has(this.#admitted.get(socket)!)) socket.destroy()
  }
}
