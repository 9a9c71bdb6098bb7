import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { ByteQueue } from '../../core/nbd-wire/byte-queue.ts'
import { Command, Option } from '../../core/nbd-wire/constants.ts'
import { encodeClientFlags } from '../../core/nbd-wire/greeting.ts'
import { encodeOption } from '../../core/nbd-wire/option-request.ts'
import { requestBytes } from './nbd-raw.ts'

const SECTOR = 512
/** `MAX_NBD_REQS` of tapdisk: 32 requests of 11 segments each. */
const DEPTH = 352
const REQUEST_BYTES_MAX = 2 * 1024 * 1024
/** Of tapdisk's constant; the NUL is sent too. */
const EXPORT_NAME = 'tapdisk_client\0'

interface Under {
  readonly write: boolean
  readonly offset: number
  readonly length: number
}

export interface TapdiskReport {
  readonly reads: number
  readonly writes: number
  readonly bytes: number
  readonly deepest: number
}

/**
 * Speaks NBD exactly as tapdisk's block-nbd driver does (blktap, `drivers/block-nbd.c`): each part of the greeting
 * has to be there whole when it is received; EXPORT_NAME with a constant name; READ, WRITE and DISC only; simple
 * replies; up to 352 requests in flight. One error or a lost connection kills the disk for good.
 *
 * Its guest writes and reads sectors at random and compares each byte that it reads.
 */
export class TapdiskClient {
  readonly #socket: Socket
  readonly #queue = new ByteQueue()
  readonly #under = new Map<number, Under>()
  readonly #expected: Buffer
  readonly #busy: Uint8Array
  #dead: Error | null = null
  #wake: () => void = () => undefined
  #cookie = 0
  #state = 1

  private constructor(socket: Socket, size: number) {
    this.#socket = socket
    this.#expected = Buffer.alloc(size)
    this.#busy = new Uint8Array(size / SECTOR)
    socket.on('data', (chunk: Buffer) => {
      this.#queue.push(chunk)
      this.#receive()
    })
    socket.on('close', () => this.#die(new Error('the connection was lost')))
    socket.on('error', error => this.#die(error))
  }

  /** Connects; the disk must hold zeros. @param size of the disk in bytes, which the server must confirm */
  static async connect(path: string, size: number): Promise<TapdiskClient> {
    const socket = connect(path)
    const part = async (length: number): Promise<Buffer> => {
      const [chunk] = (await once(socket, 'data')) as [Buffer]
      assert.equal(chunk.length, length, 'a part that does not come whole fails tapdisk')
      return chunk
    }
    const greeting = await part(18)
    assert.equal(greeting.toString('latin1', 0, 16), 'NBDMAGICIHAVEOPT')
    socket.write(encodeClientFlags(3))
    // Two sends, as there: the header tells the length of the name that follows.
    const option = encodeOption(Option.exportName, Buffer.from(EXPORT_NAME))
    socket.write(option.subarray(0, 16))
    socket.write(option.subarray(16))
    const finish = await part(10)
    assert.equal(Number(finish.readBigUInt64BE(0)), size)
    return new TapdiskClient(socket, size)
  }

  /**
   * Keeps as many requests in flight as tapdisk does, until so many have been made, or until told to stop.
   * @returns what was done; every byte that was read has been compared
   * @throws Error when the disk is dead, or holds what it should not
   */
  async load(requests: number, stop: () => boolean = () => false): Promise<TapdiskReport> {
    const report = { reads: 0, writes: 0, bytes: 0, deepest: 0 }
    let made = 0
    while (made < requests && !stop()) {
      while (made < requests && this.#under.size < DEPTH) {
        const request = this.#choose()
        if (request === null) break
        this.#send(request)
        made++
        report.bytes += request.length
        if (request.write) report.writes++
        else report.reads++
      }
      report.deepest = Math.max(report.deepest, this.#under.size)
      await this.#next()
    }
    while (this.#under.size > 0) await this.#next()
    return report
  }

  /** Says goodbye as tapdisk does, and does not wait for anything. */
  close(): void {
    this.#dead ??= new Error('this client was closed')
    this.#socket.write(requestBytes({ command: Command.disconnect }))
    this.#socket.destroySoon()
  }

  /** A range of 512 B to 2 MiB that no request in flight touches; small ones are the rule. Null: none was found. */
  #choose(): Under | null {
    for (let attempt = 0; attempt < 8; attempt++) {
      const longest = this.#random(16) === 0 ? REQUEST_BYTES_MAX / SECTOR : 32
      const sectors = 1 + this.#random(longest)
      const first = this.#random(this.#busy.length - sectors)
      if (this.#busy.subarray(first, first + sectors).includes(1)) continue
      return { write: this.#random(2) === 0, offset: first * SECTOR, length: sectors * SECTOR }
    }
    return null
  }

  #send(request: Under): void {
    const { write, offset, length } = request
    const cookie = ++this.#cookie
    this.#under.set(cookie, request)
    this.#busy.fill(1, offset / SECTOR, (offset + length) / SECTOR)
    const command = write ? Command.write : Command.read
    this.#socket.write(requestBytes({ command, offset, length, cookieLow: cookie }))
    if (!write) return
    const data = this.#expected.subarray(offset, offset + length)
    for (let at = 0; at < length; at += SECTOR) data.fill(`${cookie}:${offset + at};`, at, at + SECTOR)
    // A copy: the next write here may come before the socket has taken this one.
    this.#socket.write(Buffer.from(data))
  }

  #receive(): void {
    while (this.#queue.contiguous(16)) {
      const { head, position } = this.#queue
      if (head.readUInt32BE(position) !== 0x67446698) {
        this.#die(new Error('a reply without its magic'))
        return
      }
      const error = head.readUInt32BE(position + 4)
      const cookie = head.readUInt32BE(position + 12)
      const request = this.#under.get(cookie)
      if (error !== 0) {
        this.#die(new Error(`error ${error}: the guest's disk is dead`))
        return
      }
      if (request === undefined) {
        this.#die(new Error(`a reply to nothing, ${cookie}`))
        return
      }
      if (!request.write) {
        if (this.#queue.length < 16 + request.length) return
        this.#queue.skip(16)
        const expected = this.#expected.subarray(request.offset, request.offset + request.length)
        if (!this.#queue.take(request.length).equals(expected)) {
          this.#die(new Error(`wrong data at ${request.offset}, ${request.length} bytes`))
          return
        }
      } else {
        this.#queue.skip(16)
      }
      this.#under.delete(cookie)
      this.#busy.fill(0, request.offset / SECTOR, (request.offset + request.length) / SECTOR)
    }
    this.#wake()
  }

  async #next(): Promise<void> {
    if (this.#dead !== null) throw this.#dead
    await new Promise<void>(resolve => (this.#wake = resolve))
    // Set while waiting.
    const dead = this.#dead as Error | null
    if (dead !== null) throw dead
  }

  #die(error: Error): void {
    this.#dead ??= error
    this.#wake()
  }

  #random(below: number): number {
    this.#state = (Math.imul(this.#state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((this.#state / 2 ** 32) * below)
  }
}
