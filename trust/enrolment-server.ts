import { randomUUID } from 'node:crypto'
import { type Clock } from '../core/ports/clock.ts'
import { millis } from '../core/units.ts'
import { RpcServer, type RpcServerEvent } from '../rpc/server.ts'
import { UNNAMED_CALLER } from './caller.ts'
import { fingerprintOf } from './certificate.ts'
import { type CertificateAuthority } from './certificate-authority.ts'
import { type Enrolment } from './enrolment.ts'
import { enrolmentApi } from './enrolment-api.ts'
import { DEFAULT_GATE_LIMITS, HandshakeGate } from './handshake-gate.ts'
import { type Member } from './members.ts'
import { type RefusalEvent, RefusalLog } from './refusal-log.ts'
import { TlsAcceptor } from './tls-acceptor.ts'
import { type HostCredentials } from './trust-directory.ts'

/** How long a connection may last: it asks one question. */
const CONNECTION_MS = millis(15_000)
/** Connections at one time. More keep others waiting, not members: this listener has no others. */
const CONNECTIONS_MAX = 64
/** Longest line in bytes; a request has about a thousand. */
const LINE_BYTES_MAX = 16 * 1024

interface EnrolmentServerOptions {
  readonly authority: Pick<CertificateAuthority, 'issue'>
  /** Of this host, by which who joins knows it. */
  readonly credentials: HostCredentials
  readonly enrolment: Enrolment
  /** Makes a host a member, durably, and tells who the members are then. */
  readonly admit: (member: Member) => Promise<readonly Member[]>
  readonly clock: Clock
  readonly log: (event: RpcServerEvent | RefusalEvent) => void
}

/**
 * Lets in hosts that carry a ticket. Clients have no certificate yet, so this is a listener of its own with one method,
 * on the host that holds the authority's key.
 */
export function createEnrolmentServer(options: EnrolmentServerOptions): {
  /** @param port 0 takes any free one @returns the port */
  listen(host: string, port: number): Promise<number>
  close(): Promise<void>
} {
  const { authority, credentials, enrolment, admit, clock, log } = options
  const server = new RpcServer({
    log,
    lineBytesMax: LINE_BYTES_MAX,
    inFlightMax: 1,
    connectionsMax: CONNECTIONS_MAX,
  })
  const { params } = enrolmentApi['trust.enrol']
  server.register('trust.enrol', params, async ({ id, secret, csrPem }) => {
    const { host, addresses } = enrolment.redeem(id, secret)
    const certificatePem = await authority.issue({ csrPem, host, addresses, now: new Date() })
    const certificates = [fingerprintOf(certificatePem)]
    // First the list, then the certificate: one that is not on the list is worth nothing anywhere.
    const members = await admit({ host, admission: randomUUID(), certificates })
    return {
      certificatePem,
      authoritiesPem: credentials.authoritiesPem,
      members: members.map(member => ({ ...member, certificates: [...member.certificates] })),
    }
  })
  const refusals = new RefusalLog(clock, log)
  const acceptor = new TlsAcceptor({
    context: { key: credentials.keyPem, cert: credentials.certificatePem, minVersion: 'TLSv1.3' },
    requestCertificate: false,
  })
  return {
    listen: async (host, port) =>
      server.listenTls(host, port, {
        gate: name => new HandshakeGate(name, clock, refusals, DEFAULT_GATE_LIMITS),
        admit: async attempt => {
          const socket = await acceptor.accept(attempt)
          if (socket === null) return null
          attempt.pass()
          const timer = clock.after(CONNECTION_MS, () => socket.destroy())
          socket.once('close', () => timer.cancel())
          return { socket, caller: UNNAMED_CALLER }
        },
      }),
    close: async () => {
      await server.close()
      refusals.close()
    },
  }
}
