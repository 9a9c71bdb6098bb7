import { connect as connectSocket, type Socket } from 'node:net'
import { reasonOf, XosanError } from '../../core/errors.ts'
import { Command, CommandFlag, TransmissionFlag } from '../../core/nbd-wire/constants.ts'
import { type Clock } from '../../core/ports/clock.ts'
import { byteLength, type ByteLength, type ByteOffset, type Millis } from '../../core/units.ts'
import {
  type BlockDevice,
  type BlockDeviceCapabilities,
  type Extent,
  type TrimRequest,
  type WriteRequest,
  type ZeroRequest,
} from '../block-device.ts'
import { type PeerDialer } from '../../trust/trusted-transport.ts'
import { HandshakeStream } from '../nbd-socket/handshake-stream.ts'
import { askForTls, clientHandshake, greetServer, type ServerAgreement } from './nbd-client-handshake.ts'
import { NbdPipeline } from './nbd-client-pipeline.ts'

export interface NbdClientOptions {
  readonly address: { readonly path: string } | { readonly host: string; readonly port: number }
  /** Speaks TLS with the host that is called, after STARTTLS; without it NBD is in clear, for this machine. */
  readonly dialer?: PeerDialer
  readonly exportName: string
  /** Name of the server in errors, for instance the host's. */
  readonly peer: string
  readonly clock: Clock
  /** How long each request may take; after the first that takes longer the connection is given up. */
  readonly requestDeadlineMs: Millis
  /** Bytes of requests under way; further ones wait in order. */
  readonly bytesInFlightMax: number
  /** Send the sequence of each change as its cookie: for sessions between primary and replica. */
  readonly sequenced: boolean
}

/** Longest range of one TRIM, WRITE_ZEROES or BLOCK_STATUS: the length has 32 bits, and blocks shall stay whole. */
const RANGE_BYTES_MAX = 2 ** 31
/** The longest range that a request can name: of a change that cannot be cut up because it has one place in the order. */
const WHOLE_RANGE_BYTES_MAX = 2 ** 32 - 1

/**
 * An export of an NBD server as a block device.
 *
 * Requests are pipelined. Whatever breaks the connection rejects every request under way with one error and
 * settles `closed`; the client does not reconnect, because only the mirror knows what has to happen before.
 *
 * Requests longer than the server takes are cut up, except changes of a sequenced session, each of which has one
 * place in the order. TRIM promises zeros afterwards only with a XOSAN server at the other end.
 */
export class NbdClient implements BlockDevice {
  readonly capabilities: BlockDeviceCapabilities
  readonly size: ByteLength
  /** Settles when the connection is over: with null after `close`, else with what broke it. Never rejects. */
  readonly closed: Promise<XosanError | null>
  readonly #pipeline: NbdPipeline
  readonly #agreement: ServerAgreement
  readonly #peer: string

  private constructor(agreement: ServerAgreement, pipeline: NbdPipeline, options: NbdClientOptions) {
    this.#agreement = agreement
    this.#pipeline = pipeline
    this.#peer = options.peer
    this.closed = pipeline.closed
    this.size = byteLength(agreement.size)
    this.capabilities = capabilitiesOf(agreement, options.sequenced)
  }

  /**
   * Connects and opens the export.
   * @param deadlineMs for both together
   * @throws XosanError PEER_UNREACHABLE when there is no connection in time; PEER_NOT_TRUSTED; EXPORT_REFUSED when the server says no
   * (parameter `reply`: type of the option reply); PROTOCOL_VIOLATION; UNSUPPORTED
   */
  static async connect(options: NbdClientOptions, deadlineMs: Millis): Promise<NbdClient> {
    const { clock, peer, address, dialer } = options
    let socket: Socket = connectSocket({ ...address, noDelay: true })
    const unreachable = (reason: string): XosanError =>
      new XosanError('PEER_UNREACHABLE', { host: peer, reason })
    const broken: { error: XosanError | null } = { error: null }
    const breakWith = (error: Error): void => {
      broken.error ??= error instanceof XosanError ? error : unreachable(error.message)
    }
    const timer = clock.after(deadlineMs, () => {
      broken.error ??= unreachable(`no session within ${deadlineMs} ms`)
      socket.destroy()
    })
    socket.on('error', breakWith)
    try {
      let stream = new HandshakeStream(socket)
      await greetServer(stream, peer)
      if (dialer !== undefined) {
        await askForTls(stream, peer)
        stream.release()
        socket = dialer.upgrade(socket)
        socket.on('error', breakWith)
        await new Promise<void>((resolve, reject) => {
          socket.once('secureConnect', resolve)
          socket.once('close', () => reject(unreachable('it left during the TLS handshake')))
        })
        stream = new HandshakeStream(socket)
      }
      const agreement = await clientHandshake(stream, options.exportName, peer)
      const queue = stream.release()
      return new NbdClient(agreement, new NbdPipeline(socket, queue, agreement, options), options)
    } catch (error) {
      socket.destroy()
      // What broke the socket tells more than that it broke.
      throw broken.error ?? (error instanceof XosanError ? error : unreachable(reasonOf(error)))
    } finally {
      timer.cancel()
    }
  }

  async read(offset: ByteOffset, into: Uint8Array): Promise<Uint8Array> {
    this.#checkRange(offset, into.length)
    const max = this.#agreement.payloadMax
    if (into.length <= max) {
      if (into.length > 0) await this.#pipeline.read(offset, into)
      return into
    }
    await eachPiece(into.length, max, (at, length) =>
      this.#pipeline.read(offset + at, into.subarray(at, at + length))
    )
    return into
  }

  async write(request: WriteRequest): Promise<void> {
    const { offset, data, durable, sequence } = request
    this.#checkRange(offset, data.length)
    await this.#change(durable, data.length, this.#agreement.payloadMax, sequence, (at, length, flags) =>
      this.#pipeline.write(
        offset + at,
        length === data.length ? data : data.subarray(at, at + length),
        flags,
        sequence ?? 0
      )
    )
  }

  async zero(request: ZeroRequest): Promise<void> {
    const { offset, length, durable, keepAllocated, sequence } = request
    this.#checkRange(offset, length)
    if (!this.capabilities.zero) throw this.#unsupported('WRITE_ZEROES')
    const noHole = keepAllocated ? CommandFlag.noHole : 0
    await this.#change(durable, length, this.#rangeMax(), sequence, (at, piece, flags) =>
      this.#pipeline.range(Command.writeZeroes, offset + at, piece, flags | noHole, sequence ?? 0)
    )
  }

  async trim(request: TrimRequest): Promise<void> {
    const { offset, length, durable, sequence } = request
    this.#checkRange(offset, length)
    if (!this.capabilities.trim) throw this.#unsupported('TRIM')
    await this.#change(durable, length, this.#rangeMax(), sequence, (at, piece, flags) =>
      this.#pipeline.range(Command.trim, offset + at, piece, flags, sequence ?? 0)
    )
  }

  async flush(): Promise<void> {
    if (!this.capabilities.flush) throw this.#unsupported('FLUSH')
    await this.#pipeline.flush()
  }

  async allocation(offset: ByteOffset, length: ByteLength): Promise<Extent[]> {
    this.#checkRange(offset, length)
    if (this.#agreement.allocationId === null) {
      return length === 0 ? [] : [{ length, hole: false, zero: false }]
    }
    const extents: Extent[] = []
    // A server may answer for less than was asked, and its last extent may reach beyond.
    for (let at = 0; at < length;) {
      const asked = Math.min(length - at, RANGE_BYTES_MAX)
      for (const extent of await this.#pipeline.status(offset + at, asked)) {
        const clipped = byteLength(Math.min(extent.length, length - at))
        if (clipped > 0) extents.push({ ...extent, length: clipped })
        at += clipped
      }
    }
    return extents
  }

  /** Waits for the requests under way, says goodbye and closes the connection. */
  async close(): Promise<void> {
    await this.#pipeline.close()
  }

  /** Breaks the connection off at once; requests under way reject with this error. */
  abort(error: XosanError): void {
    this.#pipeline.fail(error)
  }

  async #change(
    durable: boolean,
    length: number,
    max: number,
    sequence: number | undefined,
    send: (at: number, length: number, flags: number) => Promise<void>
  ): Promise<void> {
    if (!this.capabilities.writable) throw new XosanError('READ_ONLY')
    if (this.capabilities.sequenced && (sequence === undefined || length > max || length === 0)) {
      const reason = sequence === undefined ? 'it has no sequence' : `${length} bytes do not fit one request`
      throw new XosanError('INVALID_ARGUMENT', { what: 'a change of a session', reason })
    }
    const { fua, flush } = this.capabilities
    if (durable && !fua && !flush) throw this.#unsupported('FUA and FLUSH')
    const flags = durable && fua ? CommandFlag.fua : 0
    if (length > max) await eachPiece(length, max, (at, piece) => send(at, piece, flags))
    else if (length > 0) await send(0, length, flags)
    if (durable && !fua) await this.#pipeline.flush()
  }

  #rangeMax(): number {
    return this.capabilities.sequenced ? WHOLE_RANGE_BYTES_MAX : RANGE_BYTES_MAX
  }

  #checkRange(offset: number, length: number): void {
    if (offset <= this.size && length <= this.size - offset) return
    throw new XosanError('OUT_OF_RANGE', { offset, end: offset + length, size: this.size })
  }

  #unsupported(what: string): XosanError {
    return new XosanError('UNSUPPORTED', { what, reason: `${this.#peer} does not offer it` })
  }
}

/** Runs a long request in pieces, all at once: the limit on bytes under way spaces them. */
async function eachPiece(
  length: number,
  max: number,
  send: (at: number, length: number) => Promise<void>
): Promise<void> {
  const pieces: Promise<void>[] = []
  for (let at = 0; at < length; at += max) pieces.push(send(at, Math.min(max, length - at)))
  await Promise.all(pieces)
}

function capabilitiesOf(agreement: ServerAgreement, sequenced: boolean): BlockDeviceCapabilities {
  const has = (flag: number): boolean => (agreement.flags & flag) !== 0
  return {
    writable: !has(TransmissionFlag.readOnly),
    flush: has(TransmissionFlag.sendFlush),
    fua: has(TransmissionFlag.sendFua),
    trim: has(TransmissionFlag.sendTrim),
    zero: has(TransmissionFlag.sendWriteZeroes),
    fastZero: has(TransmissionFlag.sendFastZero),
    allocation: agreement.allocationId !== null,
    multiConnection: has(TransmissionFlag.canMultiConnection),
    sequenced,
  }
}
