import { type Socket } from 'node:net'
import { ByteQueue } from '../../core/nbd-wire/byte-queue.ts'
import { violation } from '../../core/nbd-wire/violation.ts'

/** Unread bytes beyond which the socket is not read on: a handshake is a few hundred. */
const QUEUE_BYTES_MAX = 64 * 1024

interface Waiter {
  readonly count: number
  resolve(bytes: Buffer | null): void
  reject(error: Error): void
}

/**
 * A socket during a handshake: messages are read one after another with plain awaits. For the requests that follow
 * this would be too slow, so the socket then goes over to an event handler (`release`).
 */
export class HandshakeStream {
  readonly #socket: Socket
  readonly #queue = new ByteQueue()
  #waiter: Waiter | null = null
  #ended = false

  constructor(socket: Socket) {
    this.#socket = socket
    socket.on('data', this.#onData)
    socket.on('end', this.#onEnd)
    socket.on('close', this.#onEnd)
  }

  /**
   * Waits for so many bytes.
   * @returns null when the other side ended between two messages
   * @throws XosanError PROTOCOL_VIOLATION when it ended in the middle of one
   */
  read(count: number): Promise<Buffer | null> {
    return new Promise((resolve, reject) => {
      this.#waiter = { count, resolve, reject }
      this.#serve()
    })
  }

  /** Sends bytes in one write; waits while the other side does not read what it was sent before. */
  async write(bytes: Uint8Array): Promise<void> {
    if (this.#ended || this.#socket.destroyed || this.#socket.write(bytes)) return
    await new Promise<void>(resolve => {
      const done = (): void => {
        this.#socket.off('drain', done)
        this.#socket.off('close', done)
        resolve()
      }
      this.#socket.on('drain', done)
      this.#socket.on('close', done)
    })
  }

  /** Bytes that have arrived and were not asked for yet. */
  get buffered(): number {
    return this.#queue.length + this.#socket.readableLength
  }

  /**
   * Ends the handshake: nobody reads the socket until somebody else listens and resumes it.
   * @returns what had arrived already
   */
  release(): ByteQueue {
    this.#socket.pause()
    this.#socket.off('data', this.#onData)
    this.#socket.off('end', this.#onEnd)
    this.#socket.off('close', this.#onEnd)
    return this.#queue
  }

  readonly #onData = (chunk: Buffer): void => {
    this.#queue.push(chunk)
    if (this.#queue.length > QUEUE_BYTES_MAX) this.#socket.pause()
    this.#serve()
  }

  readonly #onEnd = (): void => {
    this.#ended = true
    this.#serve()
  }

  #serve(): void {
    const waiter = this.#waiter
    if (waiter === null) return
    if (this.#queue.length >= waiter.count) {
      this.#waiter = null
      waiter.resolve(this.#queue.take(waiter.count))
    } else if (this.#ended) {
      this.#waiter = null
      if (this.#queue.length === 0) waiter.resolve(null)
      else
        waiter.reject(violation(`the connection ended in the middle of a message of ${waiter.count} bytes`))
    } else {
      this.#socket.resume()
    }
  }
}
