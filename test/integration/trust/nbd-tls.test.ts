import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type AddressInfo, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { hasCode } from '../../../core/errors.ts'
import { Option, OptionReply } from '../../../core/nbd-wire/constants.ts'
import { encodeGreeting } from '../../../core/nbd-wire/greeting.ts'
import { encodeOptionReply } from '../../../core/nbd-wire/option-reply.ts'
import { encodeInfoRequest, encodeOption } from '../../../core/nbd-wire/option-request.ts'
import { byteOffset, millis } from '../../../core/units.ts'
import { type NbdListener } from '../../../datapath/nbd-server/nbd-server.ts'
import { NbdClient, type NbdClientOptions } from '../../../datapath/replica-remote/nbd-client.ts'
import { type HostCredentials } from '../../../trust/trust-directory.ts'
import { RawClient } from '../../support/nbd-raw.ts'
import { CLIENT_OPTIONS, NbdRig } from '../../support/nbd-rig.ts'
import { hasProgram, runProgram, succeed } from '../../support/run-program.ts'
import { TrustRig, writeToolFiles } from '../../support/trust-rig.ts'

const CONNECT_MS = millis(10_000)
const NBDKIT = 'nbdkit'

describe('NBD between hosts', () => {
  let trust: TrustRig
  let nbd: NbdRig
  let credentials: HostCredentials
  let listener: NbdListener
  let directory: string

  beforeEach(async () => {
    trust = await TrustRig.create()
    credentials = await trust.credentials()
    trust.enlist(credentials)
    nbd = await NbdRig.start({ name: 'volume' })
    listener = await nbd.server.listenTls('127.0.0.1', 0, trust.transport(credentials))
    directory = await mkdtemp(join(tmpdir(), 'xosan-trust-'))
  })

  afterEach(async () => {
    trust.close()
    await nbd.stop()
    await rm(directory, { recursive: true })
  })

  const client = async (
    own: HostCredentials,
    address: NbdClientOptions['address'] = { host: '127.0.0.1', port: listener.port }
  ): Promise<NbdClient> =>
    NbdClient.connect(
      {
        ...CLIENT_OPTIONS,
        address,
        dialer: trust.transport(own).to(credentials.identity.host),
      },
      CONNECT_MS
    )

  const member = async (): Promise<HostCredentials> => {
    const own = await trust.credentials()
    trust.enlist(own)
    return own
  }

  /** A client in clear, of the TLS port. */
  const inClear = async (): Promise<RawClient> =>
    RawClient.greeted({ host: '127.0.0.1', port: listener.port })

  it('carries reads and writes of a member, and tells the exports who asks', async () => {
    const own = await member()
    const device = await client(own)
    const data = Buffer.alloc(3_000_000, 'bytes that are worth something')
    await device.write({ offset: byteOffset(4096), data, durable: true })
    const read = Buffer.alloc(data.length)
    await device.read(byteOffset(4096), read)
    assert.ok(read.equals(data))
    assert.deepEqual(nbd.opened[0]?.caller, { host: own.identity.host })
    await (await nbd.connect()).close()
    assert.deepEqual(nbd.opened[1]?.caller, { host: null }, 'a unix socket')
    await device.close()
  })

  it('refuses a client whose certificate is not on the list, before it has seen any export', async () => {
    await assert.rejects(client(await trust.credentials()), { code: 'PEER_UNREACHABLE' })
    await trust.refused('not-a-member')
    assert.equal(nbd.opened.length, 0)
  })

  it('breaks the sessions of a host that is removed, whichever end it is', async () => {
    const own = await member()
    const called = await client(own)
    trust.remove(own.identity.host)
    assert.equal((await called.closed)?.code, 'PEER_UNREACHABLE')
    await nbd.closedConnections(1)
    const calling = await client(await member())
    trust.remove(credentials.identity.host)
    assert.notEqual(await calling.closed, null)
  })

  it('answers every option in clear but STARTTLS with ERR_TLS_REQD', async () => {
    const raw = await inClear()
    const go = encodeInfoRequest({ name: 'volume', wanted: [] })
    for (const [option, data] of [
      [Option.list, Buffer.alloc(0)],
      [Option.go, go],
      [Option.info, go],
      [Option.structuredReply, Buffer.alloc(0)],
      [999, Buffer.alloc(10)],
    ] as const) {
      const [answer] = await raw.option(option, data)
      assert.equal(answer?.type, OptionReply.errorTlsRequired, `option ${option}`)
    }
    assert.equal((await raw.option(Option.startTls, Buffer.alloc(1)))[0]?.type, OptionReply.errorInvalid)
    raw.send(encodeOption(Option.exportName, Buffer.from('volume')))
    assert.equal((await raw.readToEnd()).length, 0)
    assert.equal(nbd.opened.length, 0)
  })

  it('closes a connection on which something follows STARTTLS in clear', async () => {
    const raw = await inClear()
    raw.send(
      encodeOption(Option.startTls, Buffer.alloc(0)),
      encodeOption(Option.go, encodeInfoRequest({ name: 'volume', wanted: [] }))
    )
    assert.equal((await raw.readToEnd()).length, 0, 'not even an acknowledgement')
    const { detail } = await trust.refused('no-tls')
    assert.match(detail, /in clear after STARTTLS/)
  })

  it('does not know STARTTLS where there is no TLS', async () => {
    const raw = await RawClient.greeted(nbd.path)
    assert.equal((await raw.option(Option.startTls, Buffer.alloc(0)))[0]?.type, OptionReply.errorUnsupported)
    raw.close()
  })

  it('calls nobody who speaks on in clear: no TLS, or more than an answer before it', async () => {
    const own = await member()
    await assert.rejects(client(own, { path: nbd.path }), { code: 'PEER_NOT_TRUSTED' })
    const impostor = await impostorServer()
    await assert.rejects(client(own, { host: '127.0.0.1', port: (impostor.address() as AddressInfo).port }), {
      code: 'PEER_NOT_TRUSTED',
    })
    impostor.close()
  })

  describe('with foreign programs', () => {
    const uri = (certificates: string): string =>
      `nbds://127.0.0.1:${listener.port}/volume?tls-certificates=${certificates}`
    const qemuImage = (port: number): string =>
      `driver=nbd,host=127.0.0.1,port=${port},export=volume,tls-creds=tls`
    const qemuCredentials = (certificates: string): string =>
      `tls-creds-x509,id=tls,dir=${certificates},endpoint=client,priority=NORMAL`

    it('nbdinfo sees an export with a valid certificate, and nothing without', async function () {
      if (!hasProgram('nbdinfo')) this.skip()
      const output = await succeed('nbdinfo', [
        uri(await writeToolFiles(join(directory, 'tls'), await member())),
      ])
      assert.match(output, /TLS|encrypted/)
      assert.match(output, /export-size: 67108864/)
      const strangers = await writeToolFiles(join(directory, 'strangers'), await trust.credentials())
      assert.notEqual((await runProgram('nbdinfo', [uri(strangers)])).code, 0)
      await trust.refused('not-a-member')
      const plain = await runProgram('nbdinfo', [`nbd://127.0.0.1:${listener.port}/volume`])
      assert.notEqual(plain.code, 0)
      assert.match(plain.output, /TLS/i)
    })

    it('qemu-img compares an export with a file', async function () {
      if (!hasProgram('qemu-img')) this.skip()
      const certificates = await writeToolFiles(join(directory, 'tls'), await member())
      const device = await nbd.connect()
      await device.write({ offset: byteOffset(65_536), data: Buffer.alloc(65_536, 7), durable: true })
      await device.close()
      const copy = join(directory, 'copy.raw')
      const object = ['--object', qemuCredentials(certificates)]
      const image = [...object, '--image-opts', qemuImage(listener.port)]
      await succeed('qemu-img', ['convert', ...image, '-O', 'raw', copy])
      const output = await succeed('qemu-img', ['compare', ...image, `driver=raw,file.filename=${copy}`])
      assert.match(output, /Images are identical/)
    })

    it('our client speaks TLS with nbdkit, if its certificate is on the list', async function () {
      if (!hasProgram(NBDKIT)) this.skip()
      const certificates = await writeToolFiles(join(directory, 'tls'), credentials)
      const path = join(directory, 'nbdkit.sock')
      const tls = ['--tls=require', `--tls-certificates=${certificates}`, '--tls-verify-peer']
      const nbdkit = spawn(NBDKIT, ['-f', '--exit-with-parent', '-U', path, ...tls, 'memory', '1M'], {
        stdio: 'ignore',
      })
      const ended = once(nbdkit, 'close')
      try {
        const own = await member()
        const device = await untilListening(async () => client(own, { path }))
        const data = Buffer.alloc(100_000, 'nbdkit')
        await device.write({ offset: byteOffset(0), data, durable: true })
        const read = Buffer.alloc(data.length)
        await device.read(byteOffset(0), read)
        assert.ok(read.equals(data))
        await device.close()
        trust.remove(credentials.identity.host)
        await assert.rejects(client(own, { path }), { code: 'PEER_NOT_TRUSTED' })
      } finally {
        nbdkit.kill('SIGKILL')
        await ended
      }
    })
  })
})

/** Tries again while a program that was just started does not listen yet; mocha's time limit ends it. */
async function untilListening<T>(attempt: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await attempt()
    } catch (error) {
      if (!hasCode(error, 'PEER_UNREACHABLE')) throw error
      await setImmediate()
    }
  }
}

/** Answers STARTTLS with an acknowledgement and more bytes in clear. */
async function impostorServer(): Promise<Server> {
  const server = createServer(socket => {
    socket.on('error', () => undefined)
    socket.write(encodeGreeting(3))
    socket.once('data', () => {
      const acknowledgement = encodeOptionReply(Option.startTls, OptionReply.ack)
      socket.write(
        Buffer.concat([acknowledgement, encodeOptionReply(Option.structuredReply, OptionReply.ack)])
      )
    })
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  return server
}
