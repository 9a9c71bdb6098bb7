import { XosanError } from '../core/errors.ts'

const NEWLINE = 0x0a

/**
 * Cuts a stream of bytes into lines of UTF-8 text, the frames of this protocol.
 *
 * Chunks of an unfinished line are kept apart and joined once when its end comes, so that a long line that arrives
 * in small pieces costs no more than its length.
 */
export class LineReader {
  readonly #lineBytesMax: number
  #unfinished: Buffer[] = []
  #unfinishedBytes = 0

  constructor(lineBytesMax: number) {
    this.#lineBytesMax = lineBytesMax
  }

  /**
   * Takes the next bytes of the stream.
   *
   * @returns the lines that they complete, without their ends
   * @throws XosanError PROTOCOL_VIOLATION when a line is longer than allowed; the reader is of no use afterwards
   */
  push(chunk: Buffer): string[] {
    const lines: string[] = []
    let start = 0
    for (;;) {
      const end = chunk.indexOf(NEWLINE, start)
      const piece = chunk.subarray(start, end === -1 ? chunk.length : end)
      if (this.#unfinishedBytes + piece.length > this.#lineBytesMax) {
        throw new XosanError('PROTOCOL_VIOLATION', { reason: `a line exceeds ${this.#lineBytesMax} bytes` })
      }
      if (end === -1) {
        if (piece.length > 0) {
          this.#unfinished.push(piece)
          this.#unfinishedBytes += piece.length
        }
        return lines
      }
      lines.push(this.#finish(piece))
      start = end + 1
    }
  }

  #finish(piece: Buffer): string {
    if (this.#unfinishedBytes === 0) return piece.toString('utf8')
    const line = Buffer.concat([...this.#unfinished, piece]).toString('utf8')
    this.#unfinished = []
    this.#unfinishedBytes = 0
    return line
  }
}
