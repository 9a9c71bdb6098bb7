import { type Socket } from 'node:net'

/** Room for the headers of one batch; more headers simply take a further one. 1,024 simple replies. */
const SLAB_BYTES = 16 * 1024

/**
 * Collects the messages of one turn of the event loop and hands them to the kernel in one `writev`: with 32 requests
 * in flight a system call for each reply would cost more than the replies. Headers are written side by side into a
 * slab, data are passed as they are; nothing is copied together.
 *
 * Each message has a cost, by which its sender limits what is under way. Costs come back when the kernel has
 * taken the batch: a reader that does not read keeps them, and so stops the sender instead of filling the memory.
 */
export class BatchedWriter {
  readonly #socket: Socket
  readonly #written: (cost: number, messages: number) => void
  #slab = Buffer.allocUnsafeSlow(SLAB_BYTES)
  /** Bytes of the slab that are in use; those from `#run` on are not yet among the parts. */
  #used = 0
  #run = 0
  #parts: Uint8Array[] = []
  #cost = 0
  #messages = 0
  #scheduled = false

  /** @param written called with the sum of costs and the number of messages of each batch the kernel has taken, or
   * that was lost with the connection */
  constructor(socket: Socket, written: (cost: number, messages: number) => void) {
    this.#socket = socket
    this.#written = written
  }

  /** Where `reserve` has made room. */
  get slab(): Buffer {
    return this.#slab
  }

  /**
   * Makes room for a header, which the caller writes into `slab` at once.
   * @param count bytes, far below the size of a slab
   * @returns where in the slab
   */
  reserve(count: number): number {
    if (this.#used + count > SLAB_BYTES) {
      this.#closeRun()
      this.#slab = Buffer.allocUnsafeSlow(SLAB_BYTES)
      this.#used = 0
      this.#run = 0
    }
    const at = this.#used
    this.#used += count
    return at
  }

  /** Adds data after what was reserved so far. They must not change until they are written. */
  append(data: Uint8Array): void {
    this.#closeRun()
    this.#parts.push(data)
  }

  /** Ends a message. @param cost in the sender's own measure */
  message(cost: number): void {
    this.#cost += cost
    this.#messages++
    if (this.#scheduled) return
    this.#scheduled = true
    // After the poll phase: every reply of this turn is then in the batch.
    setImmediate(this.flush)
  }

  /** Hands over what was collected, without waiting for the end of the turn. */
  readonly flush = (): void => {
    if (!this.#scheduled) return
    this.#closeRun()
    const parts = this.#parts
    const cost = this.#cost
    const messages = this.#messages
    this.#parts = []
    this.#cost = 0
    this.#messages = 0
    this.#scheduled = false
    const done = (): void => this.#written(cost, messages)
    const last = parts.length - 1
    if (this.#socket.destroyed || this.#socket.writableEnded) {
      done()
      return
    }
    this.#socket.cork()
    for (let index = 0; index < last; index++) this.#socket.write(parts[index]!)
    this.#socket.write(parts[last]!, done)
    this.#socket.uncork()
  }

  #closeRun(): void {
    if (this.#used > this.#run) this.#parts.push(this.#slab.subarray(this.#run, this.#used))
    this.#run = this.#used
  }
}
