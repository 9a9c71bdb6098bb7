/** Shorter ones are cheap to make. */
const LENGTH_MIN = 64 * 1024
/** Kept for later, of one process; in bytes. */
const KEPT_MAX = 16 * 1024 * 1024

/**
 * Buffers that reads fill, used again once their reply has left: to make one of 1 MiB costs more than to fill it, because the
 * system hands out each of its pages, cleared, at the first touch.
 */
export class ReadBuffers {
  /** By length, a power of two. */
  readonly #free = new Map<number, Buffer[]>()
  #kept = 0

  /** @returns a buffer of this length, in bytes, with anything in it */
  take(length: number): Buffer {
    const whole = this.#free.get(wholeLength(length))?.pop()
    if (whole === undefined) {
      return length < LENGTH_MIN
        ? Buffer.allocUnsafe(length)
        : Buffer.allocUnsafeSlow(wholeLength(length)).subarray(0, length)
    }
    this.#kept -= whole.length
    return whole.subarray(0, length)
  }

  /** Takes back a buffer that nobody uses any more: neither the device nor the socket. */
  giveBack({ buffer, byteOffset, length }: Uint8Array): void {
    const whole = wholeLength(length)
    if (length < LENGTH_MIN || byteOffset !== 0 || buffer.byteLength !== whole) return
    if (this.#kept + whole > KEPT_MAX) return
    this.#kept += whole
    const free = this.#free.get(whole) ?? []
    this.#free.set(whole, free)
    free.push(Buffer.from(buffer))
  }
}

const wholeLength = (length: number): number => 2 ** Math.ceil(Math.log2(Math.max(length, 1)))
