const NOTHING = Buffer.alloc(0)

/**
 * Bytes that have arrived and are not yet consumed, in the chunks in which the socket gave them. Every byte is
 * copied at most once, however small the chunks: growing one buffer by concatenation would cost the square.
 *
 * The front is open to the decoders: after `contiguous(n)` they read `head` from `position` in place.
 */
export class ByteQueue {
  /** The chunk at the front. */
  head: Buffer = NOTHING
  /** First unconsumed byte of `head`. */
  position = 0
  #length = 0
  /** What follows `head`, from `#first` on. */
  #rest: Buffer[] = []
  #first = 0

  /** Bytes that are there. */
  get length(): number {
    return this.#length
  }

  push(chunk: Buffer): void {
    if (chunk.length === 0) return
    if (this.#length === 0) {
      this.head = chunk
      this.position = 0
    } else {
      this.#rest.push(chunk)
    }
    this.#length += chunk.length
  }

  /**
   * Makes the first `count` bytes lie side by side in `head`.
   * @returns false when fewer bytes are there
   */
  contiguous(count: number): boolean {
    if (this.#length < count) return false
    if (this.head.length - this.position < count) {
      // Only messages that straddle chunks come here: a few bytes each.
      const joined = Buffer.allocUnsafe(count)
      this.drain(joined, 0)
      this.#unshift(joined)
    }
    return true
  }

  /** Drops bytes from the front. @param count at most `length` */
  skip(count: number): void {
    let left = count
    while (left > 0) {
      const step = Math.min(left, this.head.length - this.position)
      this.#advance(step)
      left -= step
    }
  }

  /** Takes bytes off the front: in place when one chunk holds them, else as a copy. @param count at most `length` */
  take(count: number): Buffer {
    if (this.head.length - this.position >= count) {
      const taken = this.head.subarray(this.position, this.position + count)
      this.#advance(count)
      return taken
    }
    const joined = Buffer.allocUnsafe(count)
    this.drain(joined, 0)
    return joined
  }

  /**
   * Moves what is there into a buffer, as far as it has room.
   * @param at where in the buffer to begin
   * @returns the number of bytes moved
   */
  drain(into: Uint8Array, at: number): number {
    let moved = 0
    while (this.#length > 0 && at + moved < into.length) {
      const step = Math.min(into.length - at - moved, this.head.length - this.position)
      into.set(this.head.subarray(this.position, this.position + step), at + moved)
      this.#advance(step)
      moved += step
    }
    return moved
  }

  /** Forgets everything. */
  clear(): void {
    this.head = NOTHING
    this.position = 0
    this.#length = 0
    this.#rest = []
    this.#first = 0
  }

  #advance(count: number): void {
    this.position += count
    this.#length -= count
    if (this.position < this.head.length) return
    this.position = 0
    const following = this.#rest[this.#first]
    if (following === undefined) {
      this.head = NOTHING
      return
    }
    this.head = following
    this.#rest[this.#first] = NOTHING
    this.#first++
    // Dropping the consumed places only when they are the greater part keeps each push and pop constant on average.
    if (this.#first * 2 > this.#rest.length) {
      this.#rest.splice(0, this.#first)
      this.#first = 0
    }
  }

  #unshift(chunk: Buffer): void {
    if (this.#length > 0) {
      const remainder = this.position === 0 ? this.head : this.head.subarray(this.position)
      if (this.#first > 0) this.#rest[--this.#first] = remainder
      else this.#rest.unshift(remainder)
    }
    this.head = chunk
    this.position = 0
    this.#length += chunk.length
  }
}
