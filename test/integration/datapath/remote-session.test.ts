import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { XosanError } from '../../../core/errors.ts'
import { type SessionName } from '../../../core/mirror/messages.ts'
import {
  byteLength,
  type ByteOffset,
  epoch,
  type Millis,
  millis,
  type Sequence,
  sessionNumber,
} from '../../../core/units.ts'
import { type BlockDevice, type WriteRequest } from '../../../datapath/block-device.ts'
import { PassThroughDevice } from '../../../datapath/filters/pass-through.ts'
import { SILENCE } from '../../../datapath/mirror/replica-link.ts'
import { type OpenedExport } from '../../../datapath/nbd-server/export.ts'
import { NbdServer } from '../../../datapath/nbd-server/nbd-server.ts'
import { ReplicaSessionDevice } from '../../../datapath/replica-local/replica-session.ts'
import { RemoteSession } from '../../../datapath/replica-remote/remote-session.ts'
import { parseSessionExportName, sessionExportName } from '../../../datapath/replica-remote/session-export.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { MemoryDevice } from '../../support/memory-device.ts'

const clock = createNodeClock()
const SIZE = 4 * 1024 * 1024
const at = (offset: number) => offset as ByteOffset
const id = () => randomUUID() as never

const NAME: SessionName = {
  address: {
    sr: id(),
    volume: id(),
    replica: id(),
    store: id(),
    layers: [id(), id()],
    size: byteLength(SIZE),
  },
  epoch: epoch(12),
  session: sessionNumber(3),
}

/** A device whose requests wait for a word, for a time, or for ever. */
class SlowDevice extends PassThroughDevice {
  readonly #before: () => Promise<void>

  constructor(next: BlockDevice, before: () => Promise<void>) {
    super(next)
    this.#before = before
  }

  override async write(request: WriteRequest): Promise<void> {
    await this.#before()
    await super.write(request)
  }
}

describe('a session with a replica on another host', () => {
  let server: NbdServer
  let session: RemoteSession
  let replica: ReplicaSessionDevice
  const ended: string[] = []
  /** What a disk that hangs waits for. */
  let hang: { readonly promise: Promise<void>; readonly end: () => void }

  async function open(
    device: BlockDevice = new MemoryDevice(SIZE),
    { requestMs = 20_000, refusal = null as XosanError | null } = {}
  ): Promise<RemoteSession> {
    replica = new ReplicaSessionDevice(
      Object.assign(device, { failure: undefined }),
      NAME.session,
      NAME.epoch
    )
    const opened: OpenedExport = {
      device: replica,
      readOnly: false,
      durability: 'as-asked',
      revoked: replica.closed,
      closed: ({ detail }) => void ended.push(detail),
    }
    server = new NbdServer({
      clock,
      log: () => undefined,
      limits: { requestsInFlightMax: 4 },
      exports: {
        open: async ({ name }) => {
          const { address, ...rest } = parseSessionExportName(name)!
          assert.deepEqual(
            { ...rest, address },
            { ...NAME, address: { ...NAME.address, layers: [NAME.address.layers[1]] } }
          )
          return refusal === null ? Promise.resolve(opened) : Promise.reject(refusal)
        },
        info: async () =>
          Promise.resolve({ size: SIZE, readOnly: false, capabilities: replica.capabilities }),
        list: async () => Promise.resolve([]),
      },
    })
    const { port } = await server.listenTcp('127.0.0.1', 0)
    const connectMs: Millis = millis(20_000)
    session = await RemoteSession.open(NAME, {
      address: { host: '127.0.0.1', port },
      peer: 'the other host',
      clock,
      connectMs,
      requestMs: millis(requestMs),
    })
    return session
  }
  const write = (sequence: number, length = 4096) =>
    session.write({
      offset: at((sequence * 4096) % (SIZE / 2)),
      data: Buffer.alloc(length, sequence),
      durable: false,
      sequence: sequence as Sequence,
    })

  beforeEach(() => {
    let end!: () => void
    const promise = new Promise<void>(resolve => (end = resolve))
    hang = { promise, end }
  })
  afterEach(async () => {
    hang.end()
    replica.abort('the test is over')
    await server.close()
    ended.length = 0
  })

  it('carries changes in the order of the calls, whatever their size and however slow the replica', async () => {
    // ReplicaSessionDevice ends the session at the first change that is not the next one.
    let n = 0
    const turns = () => new Promise<void>(resolve => setTimeout(resolve, n++ % 3))
    await open(new SlowDevice(new MemoryDevice(SIZE), turns))
    // More than the session takes under way at one time: some wait while small ones would still find room.
    const lengths = Array.from({ length: 120 }, (_, index) => (index % 3 === 0 ? 2 * 1024 * 1024 : 512))
    await Promise.all(lengths.map((length, index) => write(index + 1, length)))
    await session.zero({
      offset: at(0),
      length: byteLength(SIZE),
      keepAllocated: false,
      durable: true,
      sequence: 121 as Sequence,
    })
    await session.flush()
    session.abort('enough')
    assert.equal(await session.closed, 'enough')
  })

  it('ends with the word for silence when a request is not answered in time', async () => {
    await open(new SlowDevice(new MemoryDevice(SIZE), () => hang.promise), { requestMs: 100 })
    const failure = write(1).catch((error: unknown) => session.abort(String(error)))
    assert.equal(await session.closed, SILENCE)
    await failure
  })

  it('ends with another word when the connection is lost', async () => {
    await open()
    await write(1)
    replica.abort('another epoch was accepted')
    assert.match(await session.closed, /closed the connection|ECONNRESET/)
    await assert.rejects(write(2), { code: 'PEER_UNREACHABLE' })
  })

  it('is over at the replica when the primary breaks it off', async () => {
    await open()
    session.abort('it was taken out')
    assert.equal(await session.closed, 'it was taken out')
    await server.close()
    assert.equal(ended.length, 1)
  })

  it('tells what the replica answered: a stale epoch, a lost replica, a full or failed disk', async () => {
    const refusals = [
      new XosanError('EPOCH_STALE', { epoch: 12, accepted: 13 }),
      new XosanError('REPLICA_GONE', { replica: 'r', volume: 'v', reason: 'it was deleted' }),
      new XosanError('DISK_FAILED', { path: '/x', reason: 'EIO' }),
    ]
    for (const refusal of refusals) {
      await assert.rejects(open(undefined, { refusal }), { code: refusal.code, message: refusal.message })
      await server.close()
    }
    for (const code of ['NO_SPACE', 'DISK_FAILED'] as const) {
      const failure = new XosanError(code, { path: '/x', reason: 'r', needed: 1, free: 0 })
      await open(new SlowDevice(new MemoryDevice(SIZE), () => Promise.reject(failure)))
      await assert.rejects(write(1), { code })
      session.abort('next')
      await server.close()
    }
  })

  it('takes a trim of a whole large volume as one change', async () => {
    const large = { ...NAME, address: { ...NAME.address, size: byteLength(2 ** 32 - 4096) } }
    assert.equal(parseSessionExportName(sessionExportName(large))!.address.size, 2 ** 32 - 4096)
    const device = new MemoryDevice(2 ** 32 - 4096)
    await open(device)
    await session.trim({
      offset: at(0),
      length: byteLength(2 ** 32 - 4096),
      durable: false,
      sequence: 1 as Sequence,
    })
    await write(2)
    session.abort('enough')
  })
})

describe('the export name of a session', () => {
  it('is refused when a part of it is wrong', () => {
    const name = sessionExportName(NAME)
    assert.ok(Buffer.byteLength(name) < 4096)
    for (const wrong of [
      name.replace('/12/', '/-1/'),
      name.replace('/12/', '/012/'),
      name.replace('/12/', '/9007199254740993/'),
      `${name}/x`,
      name.slice(0, -2),
      name.toUpperCase().replace('SESSION', 'session'),
      'session/',
    ]) {
      assert.throws(() => parseSessionExportName(wrong), { code: 'INVALID_ARGUMENT' }, wrong)
    }
    assert.equal(parseSessionExportName('check/a/b'), null)
  })
})
