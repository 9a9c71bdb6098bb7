import { XosanError } from '../../core/errors.ts'
import { type SessionName } from '../../core/mirror/messages.ts'
import { type Clock } from '../../core/ports/clock.ts'
import { type Millis } from '../../core/units.ts'
import { type PeerDialer } from '../../trust/trusted-transport.ts'
import { PassThroughDevice } from '../filters/pass-through.ts'
import { SILENCE } from '../mirror/replica-link.ts'
import { type ReplicaSession } from '../mirror/replica-peer.ts'
import { errorInText } from '../nbd-socket/error-numbers.ts'
import { NbdClient } from './nbd-client.ts'
import { sessionExportName } from './session-export.ts'

/**
 * Bytes of one session under way: more than any link between two hosts holds (10 Gbit/s for 50 ms), and little enough
 * that a disk of 50 MB/s answers the last of them in time.
 */
const BYTES_IN_FLIGHT_MAX = 64 * 1024 * 1024

interface RemoteSessionOptions {
  readonly address: { readonly host: string; readonly port: number }
  /** Name of the other host, for messages. */
  readonly peer: string
  /** Speaks TLS with the host that is called; without it the connection is in clear, for loopback. */
  readonly dialer?: PeerDialer
  readonly clock: Clock
  /** For connecting, and for what the other side does before it answers: it drains the session before. */
  readonly connectMs: Millis
  /** After this long without an answer to a request the session ends with SILENCE. */
  readonly requestMs: Millis
}

/**
 * A session with a replica on another host, over a connection of its own: the session ends with the connection and the
 * connection with the session. Changes leave in the order of the calls, as the replica demands.
 */
export class RemoteSession extends PassThroughDevice implements ReplicaSession {
  readonly closed: Promise<string>
  readonly #client: NbdClient
  readonly #peer: string
  #abort: { readonly error: XosanError; readonly reason: string } | null = null

  private constructor(client: NbdClient, peer: string) {
    super(client)
    this.#client = client
    this.#peer = peer
    this.closed = client.closed.then(error => {
      if (error === null) return 'the session was closed'
      if (error === this.#abort?.error) return this.#abort.reason
      return error.parameters['silent'] === true ? SILENCE : error.message
    })
  }

  /**
   * Opens a session.
   * @throws XosanError what the replica's host answered: EPOCH_STALE, SESSION_STALE, REPLICA_GONE, DISK_FAILED, ...;
   * PEER_UNREACHABLE, PROTOCOL_VIOLATION
   */
  static async open(name: SessionName, options: RemoteSessionOptions): Promise<RemoteSession> {
    const { address, dialer, peer, clock, connectMs, requestMs } = options
    const client = await NbdClient.connect(
      {
        address,
        ...(dialer === undefined ? {} : { dialer }),
        exportName: sessionExportName(name),
        peer,
        clock,
        requestDeadlineMs: requestMs,
        bytesInFlightMax: BYTES_IN_FLIGHT_MAX,
        sequenced: true,
      },
      connectMs
    ).catch((error: unknown) => {
      throw refusalIn(error) ?? error
    })
    if (client.size >= name.address.size && client.capabilities.writable)
      return new RemoteSession(client, peer)
    const violation = new XosanError('PROTOCOL_VIOLATION', {
      reason: `${peer} serves ${client.size} bytes of a volume of ${name.address.size}`,
    })
    client.abort(violation)
    throw violation
  }

  abort(reason: string): void {
    const error = new XosanError('PEER_UNREACHABLE', { host: this.#peer, reason })
    this.#abort ??= { error, reason }
    this.#client.abort(this.#abort.error)
  }
}

/** The error of the replica's host that is inside a refusal of the export. */
function refusalIn(error: unknown): XosanError | null {
  if (!(error instanceof XosanError) || error.code !== 'EXPORT_REFUSED') return null
  return errorInText(String(error.parameters['reason']))
}
