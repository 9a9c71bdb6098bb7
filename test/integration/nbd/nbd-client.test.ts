import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { type ErrorCode, hasCode, XosanError } from '../../../core/errors.ts'
import { Chunk, Command } from '../../../core/nbd-wire/constants.ts'
import { encodeGreeting } from '../../../core/nbd-wire/greeting.ts'
import {
  encodeExportInfo,
  encodeMetaContextReply,
  encodeOptionReply,
} from '../../../core/nbd-wire/option-reply.ts'
import { decodeOptionHeader } from '../../../core/nbd-wire/option-request.ts'
import { decodeRequest, newRequestHeader, type RequestHeader } from '../../../core/nbd-wire/request.ts'
import { encodeSimpleReply } from '../../../core/nbd-wire/simple-reply.ts'
import {
  encodeBlockStatusPayload,
  encodeChunkHeader,
  encodeErrorPayload,
} from '../../../core/nbd-wire/structured-reply.ts'
import { byteLength, byteOffset, millis, sequence } from '../../../core/units.ts'
import { ByteQueue } from '../../../core/nbd-wire/byte-queue.ts'
import { NbdClient, type NbdClientOptions } from '../../../datapath/replica-remote/nbd-client.ts'
import { type DeviceCall, MemoryDevice } from '../../support/memory-device.ts'
import { CLIENT_OPTIONS, NbdRig } from '../../support/nbd-rig.ts'
import { ManualClock } from '../../unit/cluster/manual-clock.ts'

const MIB = 1024 * 1024
const at = byteOffset

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await turn()
}

describe('the NBD client, with our server', () => {
  let rig: NbdRig
  let calls: DeviceCall[]
  let before: (call: DeviceCall) => Promise<void> | void

  async function start(capabilities: Partial<MemoryDevice['capabilities']> = {}): Promise<void> {
    calls = []
    before = () => undefined
    const device = new MemoryDevice(64 * MIB, {
      capabilities,
      before: call => {
        calls.push(call)
        return before(call)
      },
    })
    rig = await NbdRig.start({ device, durability: 'as-asked' })
  }

  afterEach(() => rig.stop())

  it('offers what the device behind the server can do', async () => {
    for (const capabilities of [
      {},
      { trim: false, fastZero: false },
      { writable: false, multiConnection: false },
    ]) {
      await start(capabilities)
      const client = await rig.connect()
      const { fua, trim, zero, fastZero, ...rest } = rig.device.capabilities
      const writable = rest.writable
      assert.deepEqual(client.capabilities, {
        ...rest,
        fua: fua && writable,
        trim: trim && writable,
        zero: zero && writable,
        fastZero: fastZero && writable,
      })
      await client.close()
      await rig.stop()
    }
  })

  it('sends sequence, durability and NO_HOLE as they are', async () => {
    await start({ sequenced: true })
    const client = await rig.connect({ sequenced: true })
    const data = new Uint8Array(10)
    await Promise.all([
      client.write({ offset: at(0), data, durable: false, sequence: sequence(1) }),
      client.zero({
        offset: at(0),
        length: byteLength(9),
        durable: true,
        keepAllocated: true,
        sequence: sequence(2),
      }),
      client.trim({ offset: at(0), length: byteLength(8), durable: false, sequence: sequence(2 ** 40) }),
      client.read(at(0), data),
      client.flush(),
    ])
    assert.deepEqual(
      calls.map(({ kind, sequence: number, durable, keepAllocated }) => [
        kind,
        number,
        durable,
        keepAllocated,
      ]),
      [
        ['write', 1, false, false],
        ['zero', 2, true, true],
        ['trim', 2 ** 40, false, false],
        ['read', undefined, false, false],
        ['flush', undefined, false, false],
      ]
    )
    const refused = client.write({ offset: at(0), data, durable: false })
    await assert.rejects(refused, error => hasCode(error, 'INVALID_ARGUMENT'))
    await client.close()
  })

  it('cuts up what is longer than one request may be', async () => {
    await start()
    const client = await rig.connect()
    const data = Buffer.alloc(40 * MIB, 'longer than 32 MiB')
    await client.write({ offset: at(100), data, durable: false })
    const back = Buffer.alloc(40 * MIB)
    await client.read(at(100), back)
    assert.equal(Buffer.compare(back, data), 0)
    assert.deepEqual(
      calls.map(call => [call.kind, call.length]),
      [
        ['write', 32 * MIB],
        ['write', 8 * MIB],
        ['read', 32 * MIB],
        ['read', 8 * MIB],
      ]
    )
    await client.close()
  })

  it('knows the very error that the device at the other end gave', async () => {
    await start()
    const client = await rig.connect()
    for (const code of ['EPOCH_STALE', 'NO_SPACE', 'DISK_FAILED', 'REPLICA_GONE'] as ErrorCode[]) {
      const given = new XosanError(code, { reason: 'a "quoted" [bracket]', epoch: 3 })
      before = () => {
        throw given
      }
      await assert.rejects(client.flush(), (error: unknown) => {
        assert.ok(error instanceof XosanError)
        assert.deepEqual([error.code, error.parameters], [given.code, given.parameters])
        return true
      })
    }
    await client.close()
  })

  it('keeps the order of the calls when there is no room for all of them', async () => {
    await start()
    const client = await rig.connect({ bytesInFlightMax: 10_000 })
    const data = new Uint8Array(6000)
    const writes = Array.from({ length: 30 }, (_, index) =>
      client.write({ offset: at(index), data: index % 3 === 0 ? data : new Uint8Array(1), durable: false })
    )
    await Promise.all(writes)
    assert.deepEqual(
      calls.map(call => call.offset),
      Array.from({ length: 30 }, (_, index) => index)
    )
    await client.close()
  })

  it('is told why it may not have an export', async () => {
    await start()
    const refusing = await NbdRig.start({ name: 'volume' })
    const refused = refusing.connect({ exportName: 'another' })
    await assert.rejects(
      refused,
      error => hasCode(error, 'EXPORT_REFUSED') && /no export named/.test(error.message)
    )
    await refusing.stop()
  })

  it('rejects everything under way when the server goes, and says so', async () => {
    await start()
    const held: (() => void)[] = []
    before = () => new Promise<void>(resolve => held.push(resolve))
    const client = await rig.connect()
    const reads = [1, 2, 3].map(() => client.read(at(0), new Uint8Array(5)))
    const outcomes = Promise.allSettled(reads)
    await until(() => calls.length === 3)
    client.abort(new XosanError('PEER_UNREACHABLE', { host: 'h', reason: 'the heart stopped' }))
    for (const outcome of await outcomes) assert.equal(outcome.status, 'rejected')
    assert.ok(hasCode(await client.closed, 'PEER_UNREACHABLE'))
    await assert.rejects(client.flush(), error => hasCode(error, 'PEER_UNREACHABLE'))
    await client.close()
    // Calls that never end would keep the server from closing.
    for (const release of held) release()
  })

  it('says goodbye when it is closed, after what is under way', async () => {
    await start()
    // Room for one request: the others are still waiting to be sent.
    const client = await rig.connect({ bytesInFlightMax: 1 })
    const flushed = [client.flush(), client.flush(), client.flush()]
    await client.close()
    await Promise.all(flushed)
    assert.equal(await client.closed, null)
    assert.equal((await rig.closedConnections(1))[0]?.code, 'disconnected')
    await assert.rejects(client.flush(), error => hasCode(error, 'PEER_UNREACHABLE'))
  })
})

/** What a lying server does with a request. */
type Lie = (socket: Socket, request: RequestHeader) => void

describe('the NBD client, with a server that lies', () => {
  let directory: string
  let server: Server
  let sockets: Socket[]

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'xosan-nbd-'))
    sockets = []
  })

  afterEach(async () => {
    for (const socket of sockets) socket.destroy()
    server.close()
    await rm(directory, { recursive: true, force: true })
  })

  async function listen(serve: (socket: Socket) => void): Promise<NbdClientOptions['address']> {
    server = createServer(socket => {
      sockets.push(socket)
      socket.on('error', () => undefined)
      serve(socket)
    })
    const path = join(directory, 'liar.sock')
    await once(server.listen(path), 'listening')
    return { path }
  }

  /** A server that shakes hands honestly (structured replies and base:allocation), and then lies. */
  async function liar(lie: Lie, options: Partial<NbdClientOptions> = {}): Promise<NbdClient> {
    const address = await listen(socket => {
      const queue = new ByteQueue()
      let greeted = false
      let transmitting = false
      const header = newRequestHeader()
      socket.write(encodeGreeting(3))
      socket.on('data', (chunk: Buffer) => {
        queue.push(chunk)
        if (!greeted && queue.length >= 4) {
          greeted = true
          queue.skip(4)
        }
        while (greeted && !transmitting && queue.contiguous(16)) {
          const { option, length } = decodeOptionHeader(queue.take(16))
          queue.skip(length)
          if (option === 10) socket.write(encodeMetaContextReply(option, 1, 'base:allocation'))
          if (option === 7) socket.write(encodeExportInfo(option, { size: 1_000_000, flags: 0x5 }))
          socket.write(encodeOptionReply(option, 1))
          transmitting = option === 7
        }
        while (transmitting && queue.contiguous(28)) {
          decodeRequest(queue.take(28), 0, header)
          lie(socket, header)
        }
      })
    })
    return NbdClient.connect({ ...CLIENT_OPTIONS, address, ...options }, millis(10_000))
  }

  const chunk = (request: RequestHeader, type: number, payload: Uint8Array, flags = 1): Buffer => {
    const bytes = Buffer.alloc(20 + payload.length)
    encodeChunkHeader(bytes, 0, {
      flags,
      type,
      cookieHigh: request.cookieHigh,
      cookieLow: request.cookieLow,
      length: payload.length,
    })
    bytes.set(payload, 20)
    return bytes
  }
  const simple = (request: RequestHeader, error: number): Buffer => {
    const bytes = Buffer.alloc(16)
    encodeSimpleReply(bytes, 0, error, request.cookieHigh, request.cookieLow)
    return bytes
  }
  const dataChunk = (request: RequestHeader, offset: number, length: number, flags = 1): Buffer => {
    const payload = Buffer.alloc(8 + length, 0x11)
    payload.writeBigUInt64BE(BigInt(offset))
    return chunk(request, Chunk.offsetData, payload, flags)
  }
  const hole = (request: RequestHeader, offset: number, length: number, flags = 1): Buffer => {
    const payload = Buffer.alloc(12)
    payload.writeBigUInt64BE(BigInt(offset))
    payload.writeUInt32BE(length, 8)
    return chunk(request, Chunk.offsetHole, payload, flags)
  }

  const lies: [string, Lie][] = [
    [
      'a reply with another cookie',
      (socket, request) => socket.write(simple({ ...request, cookieLow: 77 }, 0)),
    ],
    ['no magic number', socket => socket.write(Buffer.alloc(16))],
    ['a simple reply to READ', (socket, request) => socket.write(simple(request, 0))],
    ['too little data', (socket, request) => socket.write(dataChunk(request, 1000, 99))],
    ['too much data', (socket, request) => socket.write(dataChunk(request, 1000, 101))],
    ['data from before the range', (socket, request) => socket.write(dataChunk(request, 999, 100))],
    ['data from nowhere', (socket, request) => socket.write(dataChunk(request, 2 ** 52, 100))],
    ['a hole too long', (socket, request) => socket.write(hole(request, 1000, 0xffff_ffff))],
    ['no data at all', (socket, request) => socket.write(chunk(request, Chunk.none, Buffer.alloc(0)))],
    [
      'one part twice instead of the other',
      (socket, request) =>
        socket.write(Buffer.concat([dataChunk(request, 1050, 50, 0), dataChunk(request, 1050, 50)])),
    ],
    ['a status', (socket, request) => socket.write(chunk(request, Chunk.blockStatus, Buffer.alloc(12)))],
    ['an unknown chunk', (socket, request) => socket.write(chunk(request, 77, Buffer.alloc(0)))],
    [
      'an error of a megabyte',
      (socket, request) => socket.write(chunk(request, Chunk.error, Buffer.alloc(MIB))),
    ],
    [
      'the beginning of a chunk of a gigabyte, before waiting for the rest',
      (socket, request) => {
        const bytes = chunk(request, Chunk.error, Buffer.alloc(0))
        bytes.writeUInt32BE(2 ** 30, 16)
        socket.write(bytes)
      },
    ],
    [
      'an error that is none',
      (socket, request) => socket.write(chunk(request, Chunk.error, Buffer.alloc(6))),
    ],
    [
      'a chunk after the last one',
      (socket, request) =>
        socket.write(
          Buffer.concat([
            dataChunk(request, 1000, 100, 0),
            chunk(request, Chunk.none, Buffer.alloc(0)),
            hole(request, 1000, 1),
          ])
        ),
    ],
  ]
  for (const [what, lie] of lies) {
    it(`closes the connection on ${what}`, async () => {
      const client = await liar(lie)
      const into = new Uint8Array(100)
      await Promise.allSettled([client.read(at(1000), into)])
      assert.ok(hasCode(await client.closed, 'PROTOCOL_VIOLATION'), String(await client.closed))
    })
  }

  it('closes the connection on a status that says nothing, or not what was asked', async () => {
    const payloads = [
      Buffer.alloc(4),
      encodeBlockStatusPayload(1, [{ length: 0, hole: false, zero: false }]),
      encodeBlockStatusPayload(2, [{ length: 1, hole: false, zero: false }]),
    ]
    for (const payload of payloads) {
      const client = await liar((socket, request) => socket.write(chunk(request, Chunk.blockStatus, payload)))
      const asked = client.allocation(at(0), byteLength(100))
      await assert.rejects(asked, error => hasCode(error, 'PROTOCOL_VIOLATION'))
      server.close()
    }
  })

  it('puts a reply together from parts in any order, holes among them', async () => {
    const client = await liar((socket, request) => {
      socket.write(dataChunk(request, 1050, 50, 0))
      socket.write(hole(request, 1000, 50, 0))
      socket.write(chunk(request, Chunk.none, Buffer.alloc(0)))
    })
    const into = new Uint8Array(100).fill(0xff)
    await client.read(at(1000), into)
    assert.deepEqual([into[0], into[49], into[50], into[99]], [0, 0, 0x11, 0x11])
    await client.close()
  })

  it('fails a READ whose last part is an error, and only that READ', async () => {
    const client = await liar((socket, request) => {
      if (request.command === Command.flush) socket.write(simple(request, 0))
      else {
        socket.write(dataChunk(request, request.offset, 10, 0))
        socket.write(chunk(request, Chunk.error, encodeErrorPayload(5, 'a bad sector')))
      }
    })
    await assert.rejects(client.read(at(0), new Uint8Array(100)), /a bad sector/)
    await client.flush()
    await client.close()
  })

  it('does not take an error code from a server that no device could give', async () => {
    const text = 'no [ACTIVATED_ON_ANOTHER_HOST {"volume":"v","host":"h"}]'
    const client = await liar((socket, request) =>
      socket.write(chunk(request, Chunk.error, encodeErrorPayload(5, text)))
    )
    await assert.rejects(client.flush(), error => hasCode(error, 'DISK_FAILED'))
    await client.close()
  })

  it('takes a status that reaches further, or less far, than was asked', async () => {
    const client = await liar((socket, request) => {
      const extents =
        request.offset === 0
          ? [{ length: 1000, hole: true, zero: true }]
          : [{ length: 500_000, hole: false, zero: false }]
      socket.write(chunk(request, Chunk.blockStatus, encodeBlockStatusPayload(1, extents)))
    })
    assert.deepEqual(await client.allocation(at(0), byteLength(5000)), [
      { length: 1000, hole: true, zero: true },
      { length: 4000, hole: false, zero: false },
    ])
    await client.close()
  })

  it('gives the connection up when a request is not answered in time, with everything under way', async () => {
    const clock = new ManualClock()
    const asked: number[] = []
    const client = await liar(
      (socket, request) => {
        asked.push(request.command)
        if (request.command === Command.flush) socket.write(simple(request, 0))
      },
      { clock, requestDeadlineMs: millis(5_000) }
    )
    await client.flush()
    const first = assert.rejects(client.read(at(0), new Uint8Array(9)), /no answer within 5000 ms/)
    await clock.advance(3_000)
    const second = assert.rejects(client.read(at(0), new Uint8Array(9)), /no answer within 5000 ms/)
    await client.flush()
    await clock.advance(1_999)
    await client.flush()
    await clock.advance(1)
    await Promise.all([first, second])
    assert.ok(hasCode(await client.closed, 'PEER_UNREACHABLE'))
  })

  it('gives up on a server that does not shake hands in time, or does not exist', async () => {
    const clock = new ManualClock()
    const address = await listen(socket => socket.write(encodeGreeting(3)))
    const connecting = NbdClient.connect({ ...CLIENT_OPTIONS, clock, address }, millis(2_000))
    const refused = assert.rejects(
      connecting,
      error => hasCode(error, 'PEER_UNREACHABLE') && /2000 ms/.test(error.message)
    )
    await until(() => sockets.length === 1)
    await clock.advance(2_000)
    await refused
    const nowhere = { path: join(directory, 'nowhere') }
    const missing = NbdClient.connect({ ...CLIENT_OPTIONS, address: nowhere }, millis(2_000))
    await assert.rejects(missing, error => hasCode(error, 'PEER_UNREACHABLE') && /ENOENT/.test(error.message))
  })

  it('closes on a handshake that is none', async () => {
    const openings = [
      Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'),
      encodeGreeting(0),
      Buffer.concat([encodeGreeting(3), encodeOptionReply(99, 1)]),
      Buffer.concat([encodeGreeting(3), encodeOptionReply(8, 3, Buffer.alloc(70_000))]),
      Buffer.concat([encodeGreeting(3), ...Array.from({ length: 70 }, () => encodeOptionReply(8, 3))]),
    ]
    for (const opening of openings) {
      const address = await listen(socket => socket.write(opening))
      const connecting = NbdClient.connect({ ...CLIENT_OPTIONS, address }, millis(10_000))
      await assert.rejects(connecting, error => hasCode(error, 'PROTOCOL_VIOLATION'))
      server.close()
    }
  })
})
