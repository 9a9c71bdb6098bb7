/**
 * The connection to one member of etcd: calls with a time limit, and watch streams.
 *
 * gRPC's own deadlines are not used: they are times of day, which jump. Nor are its retries: who may try again, and
 * where, depends on what the request would change.
 */
import { isIPv4, isIPv6 } from 'node:net'
import { checkServerIdentity, createSecureContext } from 'node:tls'
import {
  Client,
  type ClientDuplexStream,
  type ServiceError,
  ChannelCredentials,
  Metadata,
  connectivityState,
  credentials as grpcCredentials,
} from '@grpc/grpc-js'
import { type z } from 'zod'
import { XosanError, reasonOf } from '../../core/errors.ts'
import { type Clock } from '../../core/ports/clock.ts'
import { type Millis, millis } from '../../core/units.ts'
import { EtcdCallError } from './call-error.ts'
import { type Method, WATCH } from './protocol.ts'

/** Where a member listens for clients. */
export interface EtcdMember {
  /** IP address. */
  readonly address: string
  readonly port: number
  /** Name that the member's certificate must carry; absent: its address. */
  readonly tlsName?: string
}

/** For mutual TLS, each in PEM. */
export interface EtcdTls {
  readonly ca: Buffer
  readonly cert: Buffer
  readonly key: Buffer
  /**
   * Asked about a member's certificate (DER) at each handshake, when that chains to `ca` and carries the member's
   * address or name; an error refuses the member.
   */
  readonly verify?: (certificate: Uint8Array) => Error | undefined
}

/** The largest answer: as many values as a transaction or a page may name, each as long as a value may be, and keys. */
const ANSWER_BYTES_MAX = 160 * 1024 * 1024
/** A member that is started again is found soon; etcd takes about as long to start. */
const RECONNECT_MS_MIN = 100
const RECONNECT_MS_MAX = 1_000
/** A connection that is not made in this time may be one to a host that is no more; another one finds out. */
const DIAL_MS = 5_000
/**
 * Said in the handshake to a member that is known by its address. Else gRPC says the address itself, which RFC 6066 forbids
 * there and Node warns of (DEP0123); members do not look at it.
 */
const SERVER_NAME = 'etcd'

/** Asks a member to refuse when it knows no leader, and to end a watch when it loses it. */
function metadataOf(requireLeader: boolean): Metadata {
  const metadata = new Metadata()
  if (requireLeader) metadata.set('hasleader', 'true')
  return metadata
}

/** How the member is written in messages and dialled. */
export const nameOf = ({ address, port }: EtcdMember): string =>
  isIPv6(address) ? `[${address}]:${port}` : `${address}:${port}`

/**
 * What the channel to each member proves and asks for.
 * @param tls null: no encryption, which is for tests on the loopback only
 * @throws INVALID_ARGUMENT when a certificate or key cannot be used, or TLS is missing where it may not be
 */
export function channelCredentials(
  tls: EtcdTls | null,
  members: readonly EtcdMember[]
): (member: EtcdMember) => ChannelCredentials {
  const strange = members.find(({ address }) => !isIPv4(address) && !isIPv6(address))
  if (strange !== undefined) throw refused(`${strange.address} is no IP address`)
  if (tls === null) {
    const exposed = members.find(({ address }) => !isIPv4(address) || !address.startsWith('127.'))
    if (exposed !== undefined) throw refused(`${nameOf(exposed)} is not on the loopback and needs TLS`)
    return () => grpcCredentials.createInsecure()
  }
  try {
    const { ca, cert, key, verify } = tls
    const context = createSecureContext({ ca, cert, key, minVersion: 'TLSv1.3' })
    return ({ address, tlsName }) =>
      ChannelCredentials.createFromSecureContext(context, {
        // The name that gRPC passes is the one that it sent, which is never an address (`SERVER_NAME`).
        checkServerIdentity: (_, certificate) =>
          checkServerIdentity(tlsName ?? address, certificate) ?? verify?.(certificate.raw),
      })
  } catch (cause) {
    throw refused(`its certificates cannot be used: ${reasonOf(cause)}`, cause)
  }
}

const refused = (reason: string, cause?: unknown): XosanError =>
  new XosanError('INVALID_ARGUMENT', { what: 'the list of etcd members', reason }, { cause })

export type WatchStream = ClientDuplexStream<object, unknown>

export class MemberLink {
  readonly member: EtcdMember
  readonly name: string
  readonly #credentials: ChannelCredentials
  readonly #clock: Clock
  readonly #requireLeader: boolean
  readonly #open = new Set<{ cancel(): void }>()
  #client: Client
  #dialledAt: Millis = millis(0)
  #answeredAt: Millis | null = null
  #failedAt: Millis | null = null

  /** @param requireLeader false: the member shall answer also while it knows no leader */
  constructor(member: EtcdMember, credentials: ChannelCredentials, clock: Clock, requireLeader = true) {
    this.member = member
    this.name = nameOf(member)
    this.#credentials = credentials
    this.#clock = clock
    this.#requireLeader = requireLeader
    this.#client = this.#dial()
  }

  /** How long ago it last answered a call well, if nothing has failed since; in milliseconds. */
  get answeredAgoMs(): number {
    const { failedAgoMs } = this
    const ago = this.#answeredAt === null ? Infinity : this.#clock.now() - this.#answeredAt
    return ago < failedAgoMs ? ago : Infinity
  }

  /** How long ago a call to it last failed; in milliseconds. */
  get failedAgoMs(): number {
    return this.#failedAt === null ? Infinity : this.#clock.now() - this.#failedAt
  }

  /** It has failed somebody: ask before relying on it again. */
  doubt(): void {
    this.#failedAt = this.#clock.now()
  }

  /**
   * One call, tried once.
   * @param schema of the answer
   * @param timeMs after which it is given up
   * @throws EtcdCallError
   */
  async call<Schema extends z.ZodType>(
    method: Method,
    schema: Schema,
    request: object,
    timeMs: number
  ): Promise<z.output<Schema>> {
    const raw = await new Promise<unknown>((resolve, reject) => {
      let late = false
      const call = this.#client.makeUnaryRequest<object, unknown>(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        request,
        metadataOf(this.#requireLeader),
        (error: ServiceError | null, answer) => {
          timer.cancel()
          this.#open.delete(call)
          if (error === null) {
            this.#answeredAt = this.#clock.now()
            resolve(answer)
            return
          }
          this.doubt()
          if (late) this.#redial()
          const details = late ? `no answer within ${Math.round(timeMs)} ms` : error.details
          reject(new EtcdCallError(this.name, details, { cause: error }))
        }
      )
      this.#open.add(call)
      const timer = this.#clock.after(timeMs as Millis, () => {
        late = true
        call.cancel()
      })
    })
    const parsed = schema.safeParse(raw)
    if (parsed.success) return parsed.data
    throw new EtcdCallError(this.name, `an answer that is not etcd's: ${parsed.error.message}`)
  }

  /** A stream of watch requests and replies; it ends with the link. */
  watch(): WatchStream {
    const stream = this.#client.makeBidiStreamRequest<object, unknown>(
      WATCH.path,
      WATCH.requestSerialize,
      WATCH.responseDeserialize,
      metadataOf(this.#requireLeader)
    )
    this.#open.add(stream)
    stream.on('status', () => this.#open.delete(stream))
    return stream
  }

  /** Ends everything that is under way. */
  close(): void {
    for (const one of [...this.#open]) one.cancel()
    this.#client.close()
  }

  /**
   * What did not answer in time may be a connection whose other end is gone: TCP would go on sending for minutes, and
   * ever less often. Calls that are under way on it may still end.
   */
  #redial(): void {
    const { CONNECTING } = connectivityState
    const dialling = this.#client.getChannel().getConnectivityState(false) === CONNECTING
    // A member that stands still takes connections and shakes no hands; all that were begun would come to life at once.
    if (dialling && this.#clock.now() - this.#dialledAt < DIAL_MS) return
    this.#client.close()
    this.#client = this.#dial()
  }

  #dial(): Client {
    this.#dialledAt = this.#clock.now()
    const { tlsName } = this.member
    return new Client(this.name, this.#credentials, {
      'grpc.enable_retries': 0,
      // The environment of a daemon must not send this somewhere else.
      'grpc.enable_http_proxy': 0,
      'grpc.service_config_disable_resolution': 1,
      // Else a new channel would take over the connection that a closed one was stuck with.
      'grpc.use_local_subchannel_pool': 1,
      'grpc.initial_reconnect_backoff_ms': RECONNECT_MS_MIN,
      'grpc.max_reconnect_backoff_ms': RECONNECT_MS_MAX,
      'grpc.max_receive_message_length': ANSWER_BYTES_MAX,
      'grpc.ssl_target_name_override': tlsName ?? SERVER_NAME,
    })
  }
}
