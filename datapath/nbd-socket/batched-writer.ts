import { type Socket } from 'node:net'

/** Room for the headers of one batch; more headers simply take a further one. 1,024 simple replies. */
const SLAB_BYTES = 16 * 1024
/** Room where data are put between the headers: a few dozen small messages. */
const DATA_SLAB_BYTES = 256 * 1024
/** Who asks for more than this puts data into a slab. */
const HEADER_BYTES_MAX = 1024
/** A batch leaves in the turn in which it began. One that is older was held up with its process, in milliseconds. */
const HELD_UP_MS = 10
/** How often one that may not leave yet is looked at again, in milliseconds. */
const LOOK_MS = 50

/** Slabs that are kept for later: more were needed at once, and would be again. */
const SPARE_SLABS = 4

/** Where headers, and data beside them, are put together. */
interface Slab {
  readonly bytes: Buffer
  /** Batches, the one that is being collected among them, that have parts here which the kernel has not taken. */
  batches: number
}

const newSlab = (size: number): Slab => ({ bytes: Buffer.allocUnsafeSlow(size), batches: 0 })

/**
 * Collects the messages of one turn of the event loop and hands them to the kernel in one `writev`: with 32 requests
 * in flight a system call for each reply would cost more than the replies. Headers are written side by side into a
 * slab, data are passed as they are; nothing is copied together.
 *
 * Each message has a cost, by which its sender limits what is under way. Costs come back when the kernel has
 * taken the batch: a reader that does not read keeps them, and so stops the sender instead of filling the memory.
 *
 * Between the decision to answer and the end of the turn the process may be stopped for minutes, and what was right then
 * may be nobody's to say any more. So a batch that was held up asks once more, and waits for as long as the answer is no.
 */
export class BatchedWriter {
  readonly #socket: Socket
  readonly #written: (cost: number, messages: number) => void
  readonly #mayLeave: () => boolean
  #slab = newSlab(SLAB_BYTES)
  /** Large ones that nobody uses now: to make one costs more than to fill it. */
  readonly #spare: Slab[] = []
  /** Those that this batch has parts in. */
  #slabs: Slab[] = []
  /** Bytes of the slab that are in use; those from `#run` on are not yet among the parts. */
  #used = 0
  #run = 0
  #parts: Uint8Array[] = []
  #cost = 0
  #messages = 0
  #scheduled = false
  /** Called when the kernel has taken this batch. */
  #onTaken: (() => void)[] = []
  /** When the first message of the batch came, in milliseconds of a clock that runs on while the process is stopped. */
  #begunAt = 0

  /**
   * @param written called with the sum of costs and the number of messages of each batch the kernel has taken, or
   * that was lost with the connection
   * @param mayLeave asked of a batch that was held up, until it may, or the connection is over
   */
  constructor(
    socket: Socket,
    written: (cost: number, messages: number) => void,
    mayLeave: () => boolean = () => true
  ) {
    this.#socket = socket
    this.#written = written
    this.#mayLeave = mayLeave
  }

  /** Where `reserve` has made room. */
  get slab(): Buffer {
    return this.#slab.bytes
  }

  /**
   * Makes room for a header, or for one and its data, which the caller writes into `slab` at once.
   * @param count bytes, at most a quarter of `DATA_SLAB_BYTES`
   * @returns where in the slab
   */
  reserve(count: number): number {
    if (this.#used + count > this.#slab.bytes.length) {
      this.#closeRun()
      const isForData = count > HEADER_BYTES_MAX || this.#slab.bytes.length === DATA_SLAB_BYTES
      this.#slab = isForData ? (this.#spare.pop() ?? newSlab(DATA_SLAB_BYTES)) : newSlab(SLAB_BYTES)
      this.#used = 0
      this.#run = 0
    }
    if (this.#slabs.at(-1) !== this.#slab) {
      this.#slabs.push(this.#slab)
      this.#slab.batches++
    }
    const at = this.#used
    this.#used += count
    return at
  }

  /** Gives back what was reserved last. @param at where it begins */
  giveBack(at: number): void {
    this.#used = at
  }

  /**
   * Adds data after what was reserved so far.
   * @param taken called when they may change again: the kernel has them, or they are lost with the connection
   */
  append(data: Uint8Array, taken?: () => void): void {
    this.#closeRun()
    this.#parts.push(data)
    if (taken !== undefined) this.#onTaken.push(taken)
  }

  /** Ends a message. @param cost in the sender's own measure */
  message(cost: number): void {
    this.#cost += cost
    this.#messages++
    if (this.#scheduled) return
    this.#scheduled = true
    this.#begunAt = performance.now()
    // After the poll phase: every reply of this turn is then in the batch.
    setImmediate(this.flush)
  }

  /** Hands over what was collected, without waiting for the end of the turn. */
  readonly flush = (): void => {
    if (!this.#scheduled) return
    const isOver = this.#socket.destroyed || this.#socket.writableEnded
    if (!isOver && performance.now() - this.#begunAt > HELD_UP_MS && !this.#mayLeave()) {
      setTimeout(this.flush, LOOK_MS)
      return
    }
    this.#closeRun()
    const parts = this.#parts
    const cost = this.#cost
    const messages = this.#messages
    this.#parts = []
    this.#cost = 0
    this.#messages = 0
    this.#scheduled = false
    const slabs = this.#slabs
    this.#slabs = []
    const onTaken = this.#onTaken
    this.#onTaken = []
    const done = (): void => {
      this.#leave(slabs)
      for (const taken of onTaken) taken()
      this.#written(cost, messages)
    }
    const last = parts.length - 1
    if (isOver) {
      done()
      return
    }
    this.#socket.cork()
    for (let index = 0; index < last; index++) this.#socket.write(parts[index]!)
    this.#socket.write(parts[last]!, done)
    this.#socket.uncork()
  }

  /** The kernel has taken a batch, or it is lost. */
  #leave(slabs: readonly Slab[]): void {
    for (const slab of slabs) {
      slab.batches--
      if (slab.batches > 0) continue
      if (slab === this.#slab) {
        this.#used = 0
        this.#run = 0
      } else if (slab.bytes.length === DATA_SLAB_BYTES && this.#spare.length < SPARE_SLABS) {
        this.#spare.push(slab)
      }
    }
  }

  #closeRun(): void {
    if (this.#used > this.#run) this.#parts.push(this.#slab.bytes.subarray(this.#run, this.#used))
    this.#run = this.#used
  }
}
