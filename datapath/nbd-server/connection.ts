import { type Socket } from 'node:net'
import { hasCode, reasonOf } from '../../core/errors.ts'
import { type Clock } from '../../core/ports/clock.ts'
import { HandshakeStream } from '../nbd-socket/handshake-stream.ts'
import { type CloseReason, type ServerEvent } from './close-reason.ts'
import { type ConnectionInfo, type ExportResolver, type OpenedExport } from './export.ts'
import { type Agreement, ServerHandshake } from './handshake.ts'
import { type NbdLimits } from './limits.ts'
import { type Greeted } from './start-tls.ts'
import { type SharedByConnections, Transmission } from './transmission.ts'

/** What all connections of a server share. */
export interface ServerContext extends SharedByConnections {
  readonly clock: Clock
  readonly limits: NbdLimits
  readonly log: (event: ServerEvent) => void
}

/**
 * One client from its first byte to its last: handshake, requests, end. Whatever goes wrong ends this connection, with one
 * reason in the log, and touches no other.
 */
export class Connection {
  readonly #socket: Socket
  readonly #info: ConnectionInfo
  readonly #exports: ExportResolver
  readonly #context: ServerContext
  readonly #greeted: Greeted | null
  #transmission: Transmission | null = null
  /** Why the connection ends; the first reason stays. */
  #reason: CloseReason | null = null

  /** @param greeted what the client said in clear before TLS; null when it has said nothing yet */
  constructor(
    socket: Socket,
    info: ConnectionInfo,
    exports: ExportResolver,
    context: ServerContext,
    greeted: Greeted | null = null
  ) {
    this.#greeted = greeted
    this.#socket = socket
    this.#info = info
    this.#exports = exports
    this.#context = context
  }

  /** Serves the client; resolves when the socket is closed and the export has been given back. Never rejects. */
  async serve(): Promise<void> {
    const closed = new Promise<void>(resolve => this.#socket.once('close', () => resolve()))
    this.#socket.on('error', error => this.#endWith({ code: 'socket-error', detail: error.message }))
    this.#socket.setNoDelay(true)
    const stream = new HandshakeStream(this.#socket)
    const outcome = await this.#negotiate(stream)
    const queue = stream.release()
    let opened: OpenedExport | null = null
    if ('code' in outcome) {
      this.#reason ??= outcome
    } else {
      opened = outcome.opened
      void opened.revoked?.then(detail => {
        this.#endWith({ code: 'session-over', detail })
        this.#socket.destroy()
      })
      if (this.#reason === null && !this.#socket.destroyed) await this.#transmit(queue, outcome)
      this.#reason ??= { code: 'ended', detail: 'the client left while its export was being opened' }
    }
    const reason = this.#reason
    // Nobody reads the socket any more, but its end must be noticed.
    this.#socket.resume()
    this.#socket.destroySoon()
    const linger = this.#context.clock.after(this.#context.limits.lingerMs, () => this.#socket.destroy())
    await Promise.all([closed, this.#giveBack(opened, reason)])
    linger.cancel()
    this.#context.log({ kind: 'closed', connection: this.#info, reason })
  }

  /** Ends the connection: no further request is read, those under way are answered. */
  close(reason: CloseReason): void {
    this.#endWith(reason)
  }

  async #negotiate(stream: HandshakeStream): Promise<Agreement | CloseReason> {
    const { clock, limits } = this.#context
    const deadline = clock.after(limits.handshakeMs, () =>
      this.#endWith({ code: 'handshake-timeout', detail: `no export chosen within ${limits.handshakeMs} ms` })
    )
    try {
      // From the choice of an export on the time is ours, not the client's.
      const opening = () => deadline.cancel()
      return await new ServerHandshake(stream, this.#exports, this.#info, opening, this.#greeted).run()
    } catch (error) {
      if (hasCode(error, 'PROTOCOL_VIOLATION')) return { code: 'malformed', detail: error.message }
      this.#context.log({ kind: 'request-failed', connection: this.#info, error })
      return { code: 'internal', detail: reasonOf(error) }
    } finally {
      deadline.cancel()
    }
  }

  /** Resolves when no request is under way any more and none will come. */
  #transmit(queue: ReturnType<HandshakeStream['release']>, agreement: Agreement): Promise<void> {
    const { limits, log } = this.#context
    return new Promise(resolve => {
      let failureLogged = false
      const transmission = new Transmission(this.#socket, queue, agreement, limits, this.#context, {
        ending: reason => (this.#reason ??= reason),
        drained: () => {
          transmission.flushReplies()
          resolve()
        },
        failed: error => {
          // One line tells the story; a failed disk under load would tell it ten thousand times a second.
          if (failureLogged) return
          failureLogged = true
          log({ kind: 'request-failed', connection: this.#info, error })
        },
      })
      this.#transmission = transmission
      this.#socket.once('close', () =>
        transmission.end({ code: 'ended', detail: 'the connection was closed' })
      )
      transmission.start()
    })
  }

  #endWith(reason: CloseReason): void {
    this.#reason ??= reason
    if (this.#transmission !== null) this.#transmission.end(reason)
    else this.#socket.destroy()
  }

  async #giveBack(opened: OpenedExport | null, reason: CloseReason): Promise<void> {
    try {
      await opened?.closed(reason)
    } catch (error) {
      this.#context.log({ kind: 'request-failed', connection: this.#info, error })
    }
  }
}
