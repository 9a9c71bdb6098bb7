import { Command } from '../../core/nbd-wire/constants.ts'
import { type ByteQueue } from '../../core/nbd-wire/byte-queue.ts'
import {
  decodeRequest,
  newRequestHeader,
  REQUEST_BYTES,
  type RequestHeader,
} from '../../core/nbd-wire/request.ts'
import { type Refusal } from './request-rules.ts'

/** What becomes of a request whose header has been read. */
export interface RequestSink {
  /** @returns why the request is refused, or null. Comes before anything is allocated for the request. */
  refusal(header: RequestHeader): Refusal | null
  /** Takes room for a request. @returns false when there is none now; the reader then stops until `read` is called */
  admit(header: RequestHeader): boolean
  /** @param payload of a WRITE, else empty */
  serve(header: RequestHeader, payload: Buffer): void
  /**
   * The request is refused, and its payload has been read and dropped.
   * @returns false when there is no room for one more reply now; the reader stops as for `admit`
   */
  refuse(header: RequestHeader, refusal: Refusal): boolean
}

/** How far a round of reading came. */
export type Progress =
  /** All that has arrived is consumed as far as possible. */
  | 'hungry'
  /** There is no room for the next request. */
  | 'full'
  /** What follows is no request. */
  | 'malformed'
  /** The client said goodbye. */
  | 'disconnect'

const EMPTY = Buffer.alloc(0)

/**
 * Cuts the bytes of a connection into requests. It can stop anywhere, within a header, within a payload, or before a
 * request for which there is no room, and goes on from there.
 *
 * A payload that has arrived in one chunk is passed on as it lies there. A larger one gets a buffer of its length
 * and is moved there as it comes in. The payload of a refused write is dropped piece by piece: however long the client
 * says it is, it takes no memory, and the session stays usable.
 */
export class RequestReader {
  readonly #queue: ByteQueue
  readonly #sink: RequestSink
  /** One header for all requests: the sink copies what it keeps. */
  readonly #header = newRequestHeader()
  #phase: 'header' | 'admission' | 'payload' | 'discard' = 'header'
  #payload: Buffer = EMPTY
  #filled = 0
  #discard = 0
  #refusal: Refusal | null = null

  constructor(queue: ByteQueue, sink: RequestSink) {
    this.#queue = queue
    this.#sink = sink
  }

  /** True between two requests: a client that leaves here has left nothing half-said. */
  get atBoundary(): boolean {
    return this.#phase === 'header' && this.#queue.length === 0
  }

  push(chunk: Buffer): void {
    this.#queue.push(chunk)
  }

  /** Serves what can be served. */
  read(): Progress {
    for (;;) {
      switch (this.#phase) {
        case 'header': {
          if (!this.#queue.contiguous(REQUEST_BYTES)) return 'hungry'
          if (!decodeRequest(this.#queue.head, this.#queue.position, this.#header)) return 'malformed'
          this.#queue.skip(REQUEST_BYTES)
          if (this.#header.command === Command.disconnect) return 'disconnect'
          this.#refusal = this.#sink.refusal(this.#header)
          if (this.#refusal === null) {
            this.#phase = 'admission'
          } else {
            this.#discard = this.#header.command === Command.write ? this.#header.length : 0
            this.#phase = 'discard'
          }
          break
        }
        case 'admission':
          if (!this.#sink.admit(this.#header)) return 'full'
          if (this.#header.command !== Command.write) {
            this.#phase = 'header'
            this.#sink.serve(this.#header, EMPTY)
          } else if (this.#queue.length >= this.#header.length) {
            this.#phase = 'header'
            this.#sink.serve(this.#header, this.#queue.take(this.#header.length))
          } else {
            this.#payload = Buffer.allocUnsafe(this.#header.length)
            this.#filled = 0
            this.#phase = 'payload'
          }
          break
        case 'payload': {
          this.#filled += this.#queue.drain(this.#payload, this.#filled)
          if (this.#filled < this.#payload.length) return 'hungry'
          const payload = this.#payload
          this.#payload = EMPTY
          this.#phase = 'header'
          this.#sink.serve(this.#header, payload)
          break
        }
        case 'discard': {
          const step = Math.min(this.#discard, this.#queue.length)
          this.#queue.skip(step)
          this.#discard -= step
          if (this.#discard > 0) return 'hungry'
          if (!this.#sink.refuse(this.#header, this.#refusal!)) return 'full'
          this.#phase = 'header'
          break
        }
      }
    }
  }

  /**
   * Forgets what has arrived and was not served.
   * @returns the request that was admitted and whose payload was still coming in, or null
   */
  drop(): RequestHeader | null {
    this.#queue.clear()
    this.#payload = EMPTY
    return this.#phase === 'payload' ? this.#header : null
  }
}
