import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect } from 'node:net'
import { createInterface, type Interface } from 'node:readline'
import fc from 'fast-check'
import { encodeClientFlags } from '../../../../core/nbd-wire/greeting.ts'
import {
  encodeInfoRequest,
  encodeMetaContextRequest,
  encodeOption,
} from '../../../../core/nbd-wire/option-request.ts'
import type { ServerFigures, ServerPaths } from '../../../support/nbd-server-process.ts'
import { requestBytes } from '../../../support/nbd-raw.ts'
import { TapdiskClient } from '../../../support/tapdisk-client.ts'

const DISK_BYTES = 32 * 1024 * 1024
const STREAMS = 1000
/** Streams at once; the rest of the machine has work too. */
const PARALLEL = 8
const HANDSHAKE_MS = 1_000

type Generated<A> = A extends fc.Arbitrary<infer T> ? T : never

/** A conversation as a client could have it, in pieces that mutations take apart. */
const honest: fc.Arbitrary<Buffer[]> = fc
  .record({
    flags: fc.constantFrom(0, 1, 2, 3, 4, 0xffff_ffff),
    options: fc.array(
      fc.oneof(
        fc.constant(encodeOption(8, Buffer.alloc(0))),
        fc.constant(encodeOption(3, Buffer.alloc(0))),
        fc.constant(encodeOption(5, Buffer.alloc(0))),
        fc.constant(
          encodeOption(10, encodeMetaContextRequest({ name: 'volume', queries: ['base:allocation'] }))
        ),
        fc.constant(encodeOption(9, encodeMetaContextRequest({ name: 'volume', queries: [] }))),
        fc.constant(encodeOption(6, encodeInfoRequest({ name: 'volume', wanted: [0, 3, 1] }))),
        fc
          .record({ option: fc.nat(0xffff_ffff), data: fc.uint8Array({ maxLength: 300 }) })
          .map(({ option, data }) => encodeOption(option, data))
      ),
      { maxLength: 5 }
    ),
    choice: fc.constantFrom(
      encodeOption(7, encodeInfoRequest({ name: 'volume', wanted: [3] })),
      encodeOption(1, Buffer.from('volume')),
      Buffer.alloc(0)
    ),
    requests: fc.array(
      fc
        .record({
          flags: fc.oneof(fc.constant(0), fc.nat(0xffff)),
          command: fc.oneof(fc.nat(8), fc.nat(0xffff)),
          cookieHigh: fc.nat(0xffff_ffff),
          cookieLow: fc.nat(0xffff_ffff),
          offset: fc.oneof(fc.nat(DISK_BYTES), fc.maxSafeNat()),
          length: fc.oneof(fc.nat(70_000), fc.nat(DISK_BYTES), fc.nat(0xffff_ffff)),
          payload: fc.nat(70_000),
          matching: fc.boolean(),
        })
        .map(({ payload, matching, ...header }) =>
          Buffer.concat([
            requestBytes(header),
            header.command === 1
              ? Buffer.alloc(matching ? Math.min(header.length, 200_000) : payload, 0x25)
              : Buffer.alloc(0),
          ])
        ),
      { maxLength: 12 }
    ),
  })
  .map(({ flags, options, choice, requests }) => [encodeClientFlags(flags), ...options, choice, ...requests])

const mutation = fc.oneof(
  fc.record({ kind: fc.constant('none' as const) }),
  fc.record({ kind: fc.constant('flip' as const), at: fc.nat(), bits: fc.integer({ min: 1, max: 255 }) }),
  fc.record({ kind: fc.constant('cut' as const), at: fc.nat() }),
  fc.record({ kind: fc.constant('drop' as const), at: fc.nat(), count: fc.integer({ min: 1, max: 20 }) }),
  fc.record({
    kind: fc.constant('insert' as const),
    at: fc.nat(),
    bytes: fc.uint8Array({ minLength: 1, maxLength: 40 }),
  }),
  fc.record({ kind: fc.constant('huge' as const), at: fc.nat() })
)

function mutate(bytes: Buffer, change: Generated<typeof mutation>): Buffer {
  if (change.kind === 'none' || bytes.length < 8) return bytes
  const at = change.at % bytes.length
  switch (change.kind) {
    case 'flip': {
      const copy = Buffer.from(bytes)
      copy[at] = copy[at]! ^ change.bits
      return copy
    }
    case 'cut':
      return bytes.subarray(0, at)
    case 'drop':
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + change.count)])
    case 'insert':
      return Buffer.concat([bytes.subarray(0, at), change.bytes, bytes.subarray(at)])
    case 'huge': {
      const copy = Buffer.from(bytes)
      copy.writeUInt32BE(0xffff_ffff, Math.min(at, bytes.length - 4))
      return copy
    }
  }
}

/** How a stream ends: closing one's end, vanishing, or standing there without reading what is sent. */
const stream = fc.record({
  bytes: fc.oneof(
    {
      weight: 9,
      arbitrary: fc.tuple(honest, mutation).map(([parts, change]) => mutate(Buffer.concat(parts), change)),
    },
    { weight: 1, arbitrary: fc.uint8Array({ maxLength: 500 }).map(bytes => Buffer.from(bytes)) }
  ),
  pieces: fc.array(fc.integer({ min: 1, max: 3000 }), { maxLength: 6 }),
  end: fc.constantFrom('end' as const, 'vanish' as const, 'deaf' as const),
})

/** Sends a stream; resolves when the connection is over on both sides. */
function send(path: string, { bytes, pieces, end }: Generated<typeof stream>): Promise<void> {
  return new Promise(resolve => {
    const socket = connect({ path, allowHalfOpen: true })
    socket.on('error', () => undefined)
    socket.on('close', () => resolve())
    // The server is done with us: nothing it could still do is awaited.
    socket.on('end', () => socket.destroy())
    if (end !== 'deaf') socket.resume()
    let at = 0
    for (const piece of pieces) {
      socket.write(bytes.subarray(at, at + piece))
      at += piece
    }
    socket.write(bytes.subarray(at), () => {
      if (end === 'vanish') socket.destroy()
      else if (end === 'end') socket.end()
      else setImmediate(() => socket.destroy())
    })
  })
}

class ServerProcess {
  readonly paths: ServerPaths
  readonly #child: ChildProcess
  readonly #lines: Interface

  private constructor(child: ChildProcess, lines: Interface, paths: ServerPaths) {
    this.#child = child
    this.#lines = lines
    this.paths = paths
  }

  static async start(): Promise<ServerProcess> {
    const script = new URL('../../../support/nbd-server-process.ts', import.meta.url).pathname
    const args = ['--expose-gc', '--import', 'tsx', script, String(DISK_BYTES), String(HANDSHAKE_MS)]
    const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] })
    const lines = createInterface({ input: child.stdout })
    const [line] = (await once(lines, 'line')) as [string]
    return new ServerProcess(child, lines, JSON.parse(line) as ServerPaths)
  }

  async figures(): Promise<ServerFigures> {
    const line = once(this.#lines, 'line')
    this.#child.stdin!.write('figures\n')
    return JSON.parse(((await line) as [string])[0]) as ServerFigures
  }

  async stop(): Promise<number | null> {
    const closed = once(this.#child, 'close')
    this.#child.stdin!.end()
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), 10_000)
    const [code] = (await closed) as [number | null]
    clearTimeout(timer)
    return code
  }
}

describe('the NBD server, under hostile streams', function () {
  this.timeout(120_000)

  it(`stays up, keeps its memory, and serves another client through twice ${STREAMS} of them`, async () => {
    const server = await ServerProcess.start()
    // The streams write to a disk of their own: some of them are well-formed.
    const good = await TapdiskClient.connect(server.paths.second, DISK_BYTES)
    let over = false
    const load = good.load(Number.MAX_SAFE_INTEGER, () => over)
    load.catch(() => undefined)
    const streams = fc.sample(stream, { numRuns: 2 * STREAMS, seed: 1_000 })
    const resident: number[] = []
    let next = 0
    const worker = async (limit: number): Promise<void> => {
      while (next < limit) await send(server.paths.first, streams[next++]!)
    }
    for (const limit of [STREAMS, 2 * STREAMS]) {
      await Promise.all(Array.from({ length: PARALLEL }, () => worker(limit)))
      resident.push((await server.figures()).residentBytes)
    }
    over = true
    const report = await load
    good.close()
    let figures = await server.figures()
    while (figures.connections > 0) figures = await server.figures()
    const ended = Object.values(figures.ends).reduce((sum, count) => sum + count, 0)
    assert.equal(ended, 2 * STREAMS + 1, `each connection ends with one reason: ${JSON.stringify(figures)}`)
    assert.equal(figures.bytesInFlight, 0)
    assert.equal(figures.ends['internal'] ?? 0, 0)
    assert.equal(figures.others, 0, 'no device call failed')
    assert.ok(report.reads > 1000 && report.writes > 1000, JSON.stringify(report))
    const [first, second] = resident as [number, number]
    assert.ok(
      second <= first * 1.05,
      `resident ${first} bytes after the first half, ${second} after the second`
    )
    assert.equal(await server.stop(), 0)
  })
})
