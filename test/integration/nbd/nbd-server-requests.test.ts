import assert from 'node:assert/strict'
import { setImmediate as turn } from 'node:timers/promises'
import { type ErrorCode, XosanError } from '../../../core/errors.ts'
import { Command, CommandFlag } from '../../../core/nbd-wire/constants.ts'
import { type RequestHeader } from '../../../core/nbd-wire/request.ts'
import { decodeBlockStatusPayload, decodeErrorPayload } from '../../../core/nbd-wire/structured-reply.ts'
import { type ByteOffset } from '../../../core/units.ts'
import { type DeviceCall, MemoryDevice } from '../../support/memory-device.ts'
import { NbdRig, type NbdRigOptions } from '../../support/nbd-rig.ts'
import { RawClient, requestBytes } from '../../support/nbd-raw.ts'

const MIB = 1024 * 1024
const SIZE = 8 * MIB
const EPERM = 1
const EIO = 5
const EINVAL = 22
const ENOSPC = 28
const ESHUTDOWN = 108

/** Waits until something is so; the test's own time limit ends a wait in vain. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await turn()
}

describe('the NBD server, serving requests', () => {
  let rig: NbdRig
  let calls: DeviceCall[]
  /** What the device does before each call. */
  let before: (call: DeviceCall) => Promise<void> | void

  async function start(
    options: NbdRigOptions = {},
    capabilities: Partial<MemoryDevice['capabilities']> = {}
  ): Promise<void> {
    calls = []
    before = () => undefined
    const device = new MemoryDevice(SIZE, {
      capabilities,
      before: call => {
        calls.push(call)
        return before(call)
      },
    })
    rig = await NbdRig.start({ device, ...options })
  }

  afterEach(() => rig.stop())

  it('answers in simple replies when nothing else was agreed on', async () => {
    await start()
    const client = await RawClient.transmitting(rig.path)
    const data = Buffer.from('some bytes of a guest')
    client.request({ command: Command.write, offset: 5000, length: data.length, cookieLow: 1 }, data)
    assert.deepEqual(await client.simpleReply(), { error: 0, cookie: 1 })
    client.request({
      command: Command.read,
      offset: 5000,
      length: data.length,
      cookieHigh: 0xffff,
      cookieLow: 2,
    })
    assert.deepEqual(await client.simpleReply(), { error: 0, cookie: 0xffff * 2 ** 32 + 2 })
    assert.deepEqual(await client.read(data.length), data)
    client.close()
  })

  it('answers READ in one chunk, which keeps DF, and errors with their text', async () => {
    await start()
    const client = await RawClient.transmitting(rig.path, { structured: true })
    client.request({ command: Command.read, flags: CommandFlag.dontFragment, offset: 4096, length: 70_000 })
    const { flags, type, payload } = await client.chunk()
    assert.deepEqual([flags, type, payload.length], [1, 1, 8 + 70_000])
    assert.equal(Number(payload.readBigUInt64BE(0)), 4096)
    client.request({ command: Command.read, length: 0 })
    assert.deepEqual((await client.chunk()).type, 0)
    client.request({ command: Command.read, offset: SIZE - 1, length: 2, cookieLow: 7 })
    const refused = await client.chunk()
    assert.deepEqual([refused.flags, refused.type, refused.cookie], [1, 0x8001, 7])
    assert.match(decodeErrorPayload(refused.payload).message, /run off the end/)
    client.close()
  })

  it('refuses what it must with the right error, and the session goes on', async () => {
    await start()
    const client = await RawClient.transmitting(rig.path, { allocation: true })
    const cases: [Partial<RequestHeader>, number][] = [
      [{ command: Command.read, offset: SIZE, length: 1 }, EINVAL],
      [{ command: Command.read, offset: 2 ** 53 - 1, length: 0xffff_ffff }, EINVAL],
      [{ command: Command.read, length: 32 * MIB + 1 }, EINVAL],
      [{ command: Command.read, flags: CommandFlag.noHole, length: 1 }, EINVAL],
      [{ command: Command.write, offset: SIZE - 1, length: 2 }, ENOSPC],
      [{ command: Command.write, length: 32 * MIB + 1 }, EINVAL],
      [{ command: Command.write, flags: 0x8000, length: 3 }, EINVAL],
      [{ command: Command.trim, offset: SIZE, length: 1 }, EINVAL],
      [{ command: Command.writeZeroes, offset: 1, length: SIZE }, ENOSPC],
      [{ command: Command.cache, offset: SIZE, length: 4096 }, EINVAL],
      [{ command: Command.blockStatus, length: 0 }, EINVAL],
      [{ command: Command.blockStatus, length: SIZE + 1 }, EINVAL],
      [{ command: 8 }, EINVAL],
      [{ command: 0xffff, length: 0xffff_ffff }, EINVAL],
    ]
    for (const [index, [fields, expected]] of cases.entries()) {
      const payload = fields.command === Command.write ? Buffer.alloc(fields.length!) : undefined
      client.request({ ...fields, cookieLow: index }, payload)
      const { cookie, payload: chunk } = await client.chunk()
      assert.equal(cookie, index)
      assert.equal(decodeErrorPayload(chunk).error, expected, JSON.stringify(fields))
    }
    assert.deepEqual(calls, [], 'no refused request reaches the device')
    client.request({ command: Command.flush, cookieLow: 99 })
    assert.deepEqual(await client.simpleReply(), { error: 0, cookie: 99 })
    client.close()
  })

  it('refuses every change of a read-only export, and of a device that takes none', async () => {
    for (const readOnly of [true, false]) {
      await start({ readOnly }, { writable: readOnly })
      const client = await RawClient.transmitting(rig.path)
      client.request({ command: Command.write, length: 3 }, Buffer.from('abc'))
      client.request({ command: Command.trim, length: 3 })
      client.request({ command: Command.writeZeroes, length: 3 })
      for (let count = 0; count < 3; count++) assert.equal((await client.simpleReply()).error, EPERM)
      client.close()
      await rig.stop()
    }
  })

  it('says EINVAL to commands that it does not offer for a device', async () => {
    await start({}, { trim: false, zero: false, flush: false, fua: false })
    const client = await RawClient.transmitting(rig.path)
    const unoffered = [Command.trim, Command.writeZeroes, Command.flush, Command.blockStatus]
    for (const command of unoffered) {
      client.request({ command, length: 1 })
      assert.equal((await client.simpleReply()).error, EINVAL)
    }
    client.request({ command: Command.write, flags: CommandFlag.fua, length: 1 }, Buffer.alloc(1))
    assert.equal((await client.simpleReply()).error, EINVAL)
    client.close()
  })

  it('passes NO_HOLE on, and tells the allocation afterwards', async () => {
    await start()
    const client = await RawClient.transmitting(rig.path, { allocation: true })
    client.request({ command: Command.writeZeroes, flags: CommandFlag.noHole, offset: 8192, length: 8192 })
    await client.simpleReply()
    const status = async (flags: number): Promise<unknown> => {
      client.request({ command: Command.blockStatus, flags, offset: 4096, length: 40_960 })
      const { type, payload } = await client.chunk()
      assert.equal(type, 5)
      return decodeBlockStatusPayload(payload).extents.map(({ length, hole }) => [length, hole])
    }
    assert.deepEqual(await status(0), [
      [4096, true],
      [8192, false],
      [28_672, true],
    ])
    assert.deepEqual(await status(CommandFlag.requestOne), [[4096, true]])
    client.close()
  })

  it('makes every change durable until the client has flushed once on that connection', async () => {
    await start()
    const client = await RawClient.transmitting(rig.path)
    const other = await RawClient.transmitting(rig.path)
    const changes = async (who: RawClient): Promise<boolean[]> => {
      calls = []
      who.request({ command: Command.write, length: 1 }, Buffer.alloc(1))
      who.request({ command: Command.writeZeroes, length: 1 })
      who.request({ command: Command.trim, length: 1 })
      for (let count = 0; count < 3; count++) await who.simpleReply()
      return calls.map(call => call.durable)
    }
    assert.deepEqual(await changes(client), [true, true, true])
    client.request({ command: Command.flush })
    await client.simpleReply()
    assert.deepEqual(await changes(client), [false, false, false])
    assert.deepEqual(await changes(other), [true, true, true], 'each connection shows it for itself')
    client.close()
    other.close()
  })

  it('flushes after a durable change on a device that has no FUA', async () => {
    await start({}, { fua: false })
    const client = await RawClient.transmitting(rig.path)
    client.request({ command: Command.write, length: 1 }, Buffer.alloc(1))
    await client.simpleReply()
    assert.deepEqual(
      calls.map(call => call.kind),
      ['write', 'flush']
    )
    client.close()
  })

  it('takes the cookie of a change as its sequence where the device is sequenced', async () => {
    await start({ durability: 'as-asked' }, { sequenced: true })
    const client = await RawClient.transmitting(rig.path)
    client.request({ command: Command.write, length: 1, cookieHigh: 1, cookieLow: 5 }, Buffer.alloc(1))
    client.request({ command: Command.trim, flags: CommandFlag.fua, length: 1, cookieLow: 6 })
    client.request({ command: Command.read, length: 1, cookieHigh: 0x8000_0000 })
    await client.read(16 + 16 + 17)
    assert.deepEqual(
      calls.map(call => [call.kind, call.sequence, call.durable]),
      [
        ['write', 2 ** 32 + 5, false],
        ['trim', 6, true],
        ['read', undefined, false],
      ]
    )
    client.request({ command: Command.write, length: 1, cookieHigh: 2 ** 21 }, Buffer.alloc(1))
    await client.readToEnd()
    assert.equal((await rig.closedConnections(1))[0]?.code, 'malformed')
    assert.equal(rig.server.bytesInFlight, 0)
  })

  it('answers what a device refuses with the nearest error', async () => {
    await start()
    const client = await RawClient.transmitting(rig.path)
    const cases: [ErrorCode, number][] = [
      ['NO_SPACE', ENOSPC],
      ['OUT_OF_RANGE', ENOSPC],
      ['READ_ONLY', EPERM],
      ['DISK_FAILED', EIO],
      ['SESSION_STALE', ESHUTDOWN],
    ]
    for (const [code, expected] of cases) {
      before = () => {
        throw new XosanError(code)
      }
      client.request({ command: Command.write, length: 1 }, Buffer.alloc(1))
      assert.equal((await client.simpleReply()).error, expected, code)
    }
    before = () => Promise.reject(new TypeError('a bug'))
    client.request({ command: Command.read, length: 1 })
    assert.equal((await client.simpleReply()).error, EIO)
    assert.equal(rig.events.filter(event => event.kind === 'request-failed').length, 1, 'the log hears once')
    client.close()
  })

  it('ends the connection of a session that is over', async () => {
    await start({ durability: 'as-asked' }, { sequenced: true })
    const client = await RawClient.transmitting(rig.path, { structured: true })
    before = () => {
      throw new XosanError('EPOCH_STALE', { epoch: 3, accepted: 4 })
    }
    client.request({ command: Command.write, length: 1, cookieLow: 1 }, Buffer.alloc(1))
    const { error, message } = decodeErrorPayload((await client.chunk()).payload)
    assert.equal(error, ESHUTDOWN)
    assert.match(message, /\[EPOCH_STALE \{"epoch":3,"accepted":4\}\]$/)
    await client.readToEnd()
    assert.equal((await rig.closedConnections(1))[0]?.code, 'session-over')
  })

  it('answers in the order in which requests end, and has many under way', async () => {
    await start()
    const ends = new Map<number, () => void>()
    before = ({ offset }) => new Promise(resolve => ends.set(offset, resolve))
    const client = await RawClient.transmitting(rig.path)
    for (let index = 0; index < 352; index++) {
      client.request({ command: Command.read, offset: index, length: 1, cookieLow: index })
    }
    await until(() => ends.size === 352)
    ends.get(351)!()
    assert.equal((await client.simpleReply()).cookie, 351)
    for (const end of ends.values()) end()
    client.close()
  })

  it('answers what is under way before it closes after a goodbye', async () => {
    await start()
    let end: () => void = () => undefined
    before = () => new Promise(resolve => (end = resolve))
    const client = await RawClient.transmitting(rig.path)
    client.send(
      requestBytes({ command: Command.read, length: 4, cookieLow: 8 }),
      requestBytes({ command: 2 })
    )
    client.socket.end()
    await until(() => calls.length === 1)
    assert.equal(rig.closeReasons.length, 0, 'the export is not given back while a call is under way')
    end()
    assert.deepEqual(await client.simpleReply(), { error: 0, cookie: 8 })
    assert.equal((await rig.closedConnections(1))[0]?.code, 'disconnected')
  })

  it('gives the export back only after the last call has ended, also when the client is gone', async () => {
    await start()
    let end: () => void = () => undefined
    before = () => new Promise(resolve => (end = resolve))
    const client = await RawClient.transmitting(rig.path)
    client.request({ command: Command.write, length: 4 }, Buffer.alloc(4))
    await until(() => calls.length === 1)
    client.close()
    let closed = false
    const closing = rig.server.close().then(() => (closed = true))
    for (let count = 0; count < 20; count++) await turn()
    assert.equal(closed, false)
    end()
    await closing
    assert.equal(rig.closeReasons.length, 1)
    assert.equal(rig.server.bytesInFlight, 0)
  })

  it('calls a stream that stops in the middle of a request truncated', async () => {
    await start()
    for (const bytes of [
      requestBytes({}).subarray(0, 11),
      Buffer.concat([requestBytes({ command: Command.write, length: 100 }), Buffer.alloc(50)]),
      Buffer.concat([requestBytes({ command: Command.write, offset: SIZE, length: 100 }), Buffer.alloc(50)]),
    ]) {
      const client = await RawClient.transmitting(rig.path)
      client.send(bytes)
      client.socket.end()
      await client.readToEnd()
    }
    const reasons = await rig.closedConnections(3)
    assert.deepEqual(
      reasons.map(reason => reason.code),
      ['truncated', 'truncated', 'truncated']
    )
    assert.equal(rig.server.bytesInFlight, 0)
    assert.deepEqual(calls, [])
  })

  it('serves a request of 32 MiB', async () => {
    await start({ device: new MemoryDevice(64 * MIB) })
    const client = await RawClient.transmitting(rig.path)
    const data = Buffer.alloc(32 * MIB, 'the largest request')
    client.request({ command: Command.write, offset: 5 * MIB, length: data.length }, data)
    assert.equal((await client.simpleReply()).error, 0)
    client.request({ command: Command.read, offset: 5 * MIB, length: data.length })
    await client.simpleReply()
    assert.equal(Buffer.compare(await client.read(data.length), data), 0)
    client.close()
  })

  it('hands a buffer that a device has kept to no other read', async () => {
    const seen: ArrayBufferLike[] = []
    class KeepingDevice extends MemoryDevice {
      override async read(offset: ByteOffset, into: Uint8Array): Promise<Uint8Array> {
        seen.push(into.buffer)
        if (seen.length === 1) throw new XosanError('DISK_FAILED', { path: 'disk', reason: 'it hangs' })
        return super.read(offset, seen.length === 2 ? new Uint8Array(into.length) : into)
      }
    }
    rig = await NbdRig.start({ device: new KeepingDevice(SIZE) })
    const client = await RawClient.transmitting(rig.path)
    for (let cookie = 0; cookie < 6; cookie++) {
      client.request({ command: Command.read, offset: 0, length: MIB, cookieLow: cookie })
      assert.deepEqual(await client.simpleReply(), { error: cookie === 0 ? EIO : 0, cookie })
      if (cookie > 0) await client.read(MIB)
    }
    const [failed, returnedAnother, ...others] = seen
    assert.ok(!others.includes(failed!) && !others.includes(returnedAnother!) && failed !== returnedAnother)
    client.close()
  })

  it('stops reading a connection that has too many requests under way, and goes on when they end', async () => {
    await start({ limits: { requestsInFlightMax: 5 } })
    const ends: (() => void)[] = []
    before = () => new Promise(resolve => ends.push(resolve))
    const client = await RawClient.transmitting(rig.path)
    for (let index = 0; index < 20; index++) client.request({ command: Command.read, length: 1 })
    await until(() => ends.length === 5)
    for (let count = 0; count < 20; count++) await turn()
    assert.equal(ends.length, 5)
    for (let served = 0; served < 20; served++) {
      await until(() => ends.length > served)
      ends[served]!()
      await client.read(17)
    }
    client.close()
  })

  it('holds no more than its limit for a client that reads no replies, refusals included', async () => {
    await start({ limits: { connectionBytesMax: 4 * MIB, requestsInFlightMax: 64 } })
    const client = await RawClient.transmitting(rig.path)
    client.socket.pause()
    for (let index = 0; index < 200; index++) client.request({ command: Command.read, length: MIB })
    await until(() => calls.length >= 3)
    for (let count = 0; count < 50; count++) await turn()
    assert.ok(rig.server.bytesInFlight <= 4 * MIB, `${rig.server.bytesInFlight} bytes are held`)
    assert.ok(calls.length < 20, `${calls.length} of 200 reads were served to a client that does not read`)
    const other = await RawClient.transmitting(rig.path)
    other.request({ command: Command.read, length: 1000 })
    await other.read(1016)
    client.close()
    other.close()
    await rig.closedConnections(2)
    assert.equal(rig.server.bytesInFlight, 0)
  })

  it('stops reading a client that floods it with nonsense and reads no refusals', async () => {
    await start({ limits: { requestsInFlightMax: 64 } })
    const client = await RawClient.transmitting(rig.path)
    client.socket.pause()
    const count = 200_000
    client.socket.write(Buffer.alloc(28 * count, requestBytes({ command: 99 })))
    let unsent = client.socket.writableLength
    for (let quiet = 0; quiet < 200; quiet++) {
      await turn()
      if (client.socket.writableLength !== unsent) quiet = 0
      unsent = client.socket.writableLength
    }
    assert.ok(unsent > 0, 'the server has taken everything in')
    client.socket.resume()
    const replies = await client.read(16 * count)
    for (let at = 0; at < replies.length; at += 16) assert.equal(replies.readUInt32BE(at + 4), EINVAL)
    client.close()
  })

  it('serves a connection whose neighbours have taken the whole budget of the server', async () => {
    await start({ limits: { serverBytesMax: 2 * MIB } })
    const hogs = await Promise.all([1, 2, 3].map(() => RawClient.transmitting(rig.path)))
    for (const hog of hogs) hog.request({ command: Command.write, length: 2 * MIB }, Buffer.alloc(1000))
    await until(() => rig.server.bytesInFlight > 6 * MIB)
    const client = await RawClient.transmitting(rig.path)
    for (let index = 0; index < 10; index++) client.request({ command: Command.read, length: 100_000 })
    await client.read(10 * (16 + 100_000))
    for (const hog of hogs) hog.close()
    client.close()
    await rig.closedConnections(4)
    assert.equal(rig.server.bytesInFlight, 0)
  })
})
