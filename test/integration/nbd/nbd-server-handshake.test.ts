import assert from 'node:assert/strict'
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { hasCode, XosanError } from '../../../core/errors.ts'
import { Info, Option, OptionReply } from '../../../core/nbd-wire/constants.ts'
import { decodeInfoReply, decodeMetaContextReply } from '../../../core/nbd-wire/option-reply.ts'
import {
  encodeInfoRequest,
  encodeMetaContextRequest,
  encodeOption,
} from '../../../core/nbd-wire/option-request.ts'
import { millis } from '../../../core/units.ts'
import { errorText } from '../../../datapath/nbd-socket/error-numbers.ts'
import { NbdRig, type NbdRigOptions } from '../../support/nbd-rig.ts'
import { RawClient } from '../../support/nbd-raw.ts'
import { ManualClock } from '../../unit/cluster/manual-clock.ts'

const NOTHING = Buffer.alloc(0)

describe('the NBD server, shaking hands', () => {
  let rig: NbdRig

  async function start(options: NbdRigOptions = {}): Promise<void> {
    rig = await NbdRig.start(options)
  }

  afterEach(() => rig.stop())

  it('sends the greeting and the answer to EXPORT_NAME in one piece each, as tapdisk needs them', async () => {
    await start()
    const client = await RawClient.connect(rig.path)
    const pieces: number[] = []
    client.socket.on('data', chunk => pieces.push(chunk.length))
    const greeting = await client.read(18)
    assert.equal(greeting.toString('latin1', 0, 16), 'NBDMAGICIHAVEOPT')
    client.send(Buffer.from([0, 0, 0, 3]), encodeOption(Option.exportName, Buffer.from('tapdisk_client\0')))
    const answer = await client.read(10)
    assert.equal(Number(answer.readBigUInt64BE(0)), rig.device.size)
    assert.deepEqual(pieces, [18, 10])
    assert.equal(rig.opened[0]?.name, 'tapdisk_client\0')
    assert.equal(rig.opened[0].convention, 'export-name')
    assert.equal(rig.opened[0].connection.listener, rig.path)
    client.close()
  })

  it('adds 124 zeros for a client that did not ask to go without', async () => {
    await start()
    const client = await RawClient.greeted(rig.path, 1)
    client.send(encodeOption(Option.exportName, NOTHING))
    const answer = await client.read(134)
    assert.deepEqual(answer.subarray(10), Buffer.alloc(124))
    client.request({ command: 0, length: 16, cookieLow: 9 })
    assert.deepEqual(await client.simpleReply(), { error: 0, cookie: 9 })
    client.close()
  })

  it('describes by INFO without opening, and opens by GO', async () => {
    await start({ name: 'volume' })
    const client = await RawClient.greeted(rig.path)
    const asked = encodeInfoRequest({ name: 'volume', wanted: [Info.blockSize, Info.name, 77] })
    const described = await client.grant(Option.info, asked)
    assert.equal(rig.opened.length, 0)
    assert.deepEqual(
      described.slice(0, 2).map(reply => decodeInfoReply(reply.data)),
      [
        { kind: 'export', size: rig.device.size, flags: 0b1101_0110_1101 },
        { kind: 'block-size', minimum: 1, preferred: 4096, maximum: 32 * 1024 * 1024 },
      ]
    )
    assert.equal(described[2]!.data.toString('utf8', 2), 'volume')
    assert.deepEqual(await client.grant(Option.go, asked), described)
    assert.equal(rig.opened.length, 1)
    client.close()
  })

  it('lists exports, and takes ABORT', async () => {
    await start({ name: 'volume' })
    const client = await RawClient.greeted(rig.path)
    const listed = await client.grant(Option.list, NOTHING)
    assert.deepEqual(
      listed.map(({ data }) => data.toString('utf8', 4)),
      ['volume']
    )
    await client.grant(Option.abort, NOTHING)
    await client.readToEnd()
    assert.equal((await rig.closedConnections(1))[0]?.code, 'disconnected')
  })

  it('goes on after an option that is unknown, unsupported or badly made', async () => {
    await start()
    const client = await RawClient.greeted(rig.path)
    const cases = [
      [Option.startTls, NOTHING, OptionReply.errorUnsupported],
      [11, NOTHING, OptionReply.errorUnsupported],
      [0xffff_ffff, Buffer.from('data'), OptionReply.errorUnsupported],
      [Option.list, Buffer.from('x'), OptionReply.errorInvalid],
      [Option.structuredReply, Buffer.from('x'), OptionReply.errorInvalid],
      [Option.go, NOTHING, OptionReply.errorInvalid],
      [Option.go, Buffer.from([0xff, 0xff, 0xff, 0xff, 0, 0]), OptionReply.errorInvalid],
      [Option.info, Buffer.alloc(60_000), OptionReply.errorInvalid],
      [Option.setMetaContext, encodeMetaContextRequest({ name: '', queries: [] }), OptionReply.errorInvalid],
    ] as const
    for (const [option, data, expected] of cases) {
      assert.equal((await client.option(option, data)).at(-1)?.type, expected, `option ${option}`)
    }
    await client.grant(Option.go, encodeInfoRequest({ name: 'any', wanted: [] }))
    client.close()
  })

  it('tells apart what it does not know, what it may not give, and what it cannot give now', async () => {
    const refusals: Record<string, XosanError> = {
      policy: new XosanError('ACTIVATED_ON_ANOTHER_HOST', { volume: 'v', host: 'h' }),
      shutdown: new XosanError('NO_REPLICA_REACHABLE', { volume: 'v', reason: 'all are away' }),
      unknown: new XosanError('EXPORT_UNKNOWN', { name: 'unknown' }),
    }
    await start({
      opening: ({ name }) => {
        const refusal = refusals[name]
        if (refusal !== undefined) throw refusal
      },
    })
    const client = await RawClient.greeted(rig.path)
    const go = async (name: string): Promise<readonly [number, string]> => {
      const answer = (await client.option(Option.go, encodeInfoRequest({ name, wanted: [] }))).at(-1)!
      return [answer.type, answer.data.toString()]
    }
    assert.deepEqual(await go('policy'), [OptionReply.errorPolicy, errorText(refusals['policy']!)])
    assert.deepEqual(await go('shutdown'), [OptionReply.errorShutdown, errorText(refusals['shutdown']!)])
    assert.deepEqual(await go('unknown'), [OptionReply.errorUnknown, errorText(refusals['unknown']!)])
    assert.deepEqual(await go('fine'), [OptionReply.ack, ''])
    client.close()
  })

  it('closes a client whose EXPORT_NAME is refused, for there is no other answer', async () => {
    await start({ name: 'volume' })
    const client = await RawClient.greeted(rig.path)
    client.send(encodeOption(Option.exportName, Buffer.from('another')))
    assert.equal((await client.readToEnd()).length, 0)
    assert.equal((await rig.closedConnections(1))[0]?.code, 'refused')
  })

  it('agrees on base:allocation and on nothing else', async () => {
    await start()
    const client = await RawClient.greeted(rig.path)
    await client.grant(Option.structuredReply, NOTHING)
    const ask = async (option: number, queries: string[]): Promise<string[]> =>
      (await client.grant(option, encodeMetaContextRequest({ name: 'v', queries }))).map(
        ({ data }) => decodeMetaContextReply(data).context
      )
    assert.deepEqual(await ask(Option.listMetaContext, []), ['base:allocation'])
    assert.deepEqual(await ask(Option.listMetaContext, ['base:']), ['base:allocation'])
    assert.deepEqual(await ask(Option.listMetaContext, ['qemu:']), [])
    assert.deepEqual(await ask(Option.setMetaContext, ['base:']), [])
    assert.deepEqual(await ask(Option.setMetaContext, ['qemu:x', 'base:allocation']), ['base:allocation'])
    client.close()
  })

  it('forgets base:allocation when another export is chosen than it was agreed on for', async () => {
    await start()
    const client = await RawClient.greeted(rig.path)
    await client.grant(Option.structuredReply, NOTHING)
    const contexts = encodeMetaContextRequest({ name: 'one', queries: ['base:allocation'] })
    await client.grant(Option.setMetaContext, contexts)
    await client.grant(Option.go, encodeInfoRequest({ name: 'two', wanted: [] }))
    client.request({ command: 7, length: 4096 })
    assert.equal((await client.chunk()).payload.readUInt32BE(0), 22)
    client.close()
  })

  it('closes a client that does not choose an export in time', async () => {
    const clock = new ManualClock()
    await start({ clock, limits: { handshakeMs: millis(5_000) } })
    const client = await RawClient.greeted(rig.path)
    await client.grant(Option.structuredReply, NOTHING)
    await clock.advance(4_999)
    await client.grant(Option.list, NOTHING)
    await clock.advance(1)
    await client.readToEnd()
    assert.equal((await rig.closedConnections(1))[0]?.code, 'handshake-timeout')
  })

  it('does not count the time that opening an export takes', async () => {
    const clock = new ManualClock()
    let open: () => void = () => undefined
    const reached = new Promise<void>(resolve => {
      void start({
        clock,
        limits: { handshakeMs: millis(5_000) },
        opening: () =>
          new Promise(opened => {
            open = opened
            resolve()
          }),
      }).then(async () => {
        const client = await RawClient.greeted(rig.path)
        client.send(encodeOption(Option.exportName, NOTHING))
        await client.read(10)
        client.request({ command: 2 })
      })
    })
    await reached
    await clock.advance(60_000)
    open()
    assert.equal((await rig.closedConnections(1))[0]?.code, 'disconnected')
  })

  it('closes on wrong magic, unknown client flags, and options too large to be meant', async () => {
    await start()
    const huge = encodeOption(Option.go, NOTHING)
    huge.writeUInt32BE(0xffff_fff0, 12)
    for (const bytes of [
      Buffer.from([0, 0, 0, 7]),
      Buffer.concat([Buffer.from([0, 0, 0, 3]), Buffer.alloc(16)]),
      Buffer.concat([Buffer.from([0, 0, 0, 3]), huge]),
    ]) {
      const client = await RawClient.connect(rig.path)
      client.send(bytes)
      await client.readToEnd()
    }
    const reasons = await rig.closedConnections(3)
    assert.deepEqual(
      reasons.map(reason => reason.code),
      ['malformed', 'malformed', 'malformed']
    )
  })

  it('takes no more connections than its limit, and new ones when old ones have gone', async () => {
    await start({ limits: { connectionsMax: 2 } })
    const first = await RawClient.transmitting(rig.path)
    const second = await RawClient.transmitting(rig.path)
    const third = await RawClient.connect(rig.path)
    assert.equal((await third.readToEnd()).length, 0)
    assert.equal((await rig.closedConnections(1))[0]?.code, 'too-many-connections')
    first.close()
    await rig.closedConnections(2)
    const fourth = await RawClient.transmitting(rig.path)
    second.close()
    fourth.close()
  })
})

describe('the NBD server, listening', () => {
  let rig: NbdRig
  let directory: string

  beforeEach(async () => {
    rig = await NbdRig.start()
    directory = await mkdtemp(join(tmpdir(), 'xosan-nbd-'))
  })

  afterEach(async () => {
    await rig.stop()
    await rm(directory, { recursive: true, force: true })
  })

  it('makes its unix socket accessible to its owner only and leaves nothing else behind', async () => {
    assert.equal((await stat(rig.path)).mode & 0o777, 0o600)
    await rig.stop()
    await assert.rejects(stat(rig.directory), { code: 'ENOENT' })
  })

  it('replaces a socket that is there already, and removes only its own', async () => {
    const path = join(directory, 'volume.sock')
    const first = await rig.server.listenUnix(path)
    const second = await rig.server.listenUnix(path)
    await first.close()
    const client = await RawClient.transmitting(path)
    client.close()
    await second.close()
    await assert.rejects(stat(path), { code: 'ENOENT' })
  })

  it('refuses to put its socket over a file, or where the path is too long', async () => {
    const path = join(directory, 'precious')
    await writeFile(path, 'data')
    await assert.rejects(rig.server.listenUnix(path), error => hasCode(error, 'INVALID_ARGUMENT'))
    assert.equal((await stat(path)).size, 4)
    const long = join(directory, 'x'.repeat(120))
    await assert.rejects(rig.server.listenUnix(long), error => hasCode(error, 'INVALID_ARGUMENT'))
  })

  it('refuses every TCP address that others could reach', async () => {
    for (const address of ['0.0.0.0', '::', '192.0.2.1', '::ffff:192.0.2.1', '128.0.0.1']) {
      await assert.rejects(rig.server.listenTcp(address, 0), error => hasCode(error, 'UNSUPPORTED'), address)
    }
    for (const address of ['localhost', '127.0.0.1.example.org', '', '127.1x']) {
      await assert.rejects(rig.server.listenTcp(address, 0), error => hasCode(error, 'INVALID_ARGUMENT'))
    }
    const listener = await rig.server.listenTcp('127.0.0.2', 0)
    assert.ok(listener.port > 0)
    await listener.close()
  })

  it('ends only the connections of a listener that is closed', async () => {
    const other = await rig.server.listenUnix(join(directory, 'other.sock'))
    const staying = await RawClient.transmitting(rig.path)
    const leaving = await RawClient.transmitting(other.address)
    await other.close()
    await leaving.readToEnd()
    assert.deepEqual(
      rig.closeReasons.map(reason => reason.code),
      ['server-closing']
    )
    staying.request({ command: 0, length: 1, cookieLow: 3 })
    assert.deepEqual(await staying.simpleReply(), { error: 0, cookie: 3 })
    staying.close()
  })
})
