/** The gate before etcd: who comes in, who does not, and what passes through. */
import assert from 'node:assert/strict'
import { constants } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect as connectInClear, createServer, type Server, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, type ConnectionOptions, type TLSSocket } from 'node:tls'
import { millis } from '../../../core/units.ts'
import { GateFiles } from '../../../daemon/etcd/gate-files.ts'
import { EtcdGate, type GateTrust } from '../../../daemon/etcd/gate.ts'
import { type LogFacts } from '../../../daemon/log.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { createAuthority } from '../../../trust/authority.ts'
import { certificateFacts } from '../../../trust/certificate.ts'
import { createRevocationList } from '../../../trust/revocation.ts'
import { type HostCredentials, TrustDirectory } from '../../../trust/trust-directory.ts'
import { TrustRig } from '../../support/trust-rig.ts'

const HANDSHAKE_MS = millis(300)
const STALLED_MS = 400
/** More than sockets hold between two ends. */
const MANY = 24 * 1024 * 1024
const DAY_MS = 86_400_000

describe('the gate before etcd', () => {
  let directory: string
  let rig: TrustRig
  let own: HostCredentials
  let gate: EtcdGate
  let ports: { readonly client: number; readonly peer: number }
  /** Stand for etcd's two sockets; what each does with a connection. */
  let servers: Server[]
  let served: (socket: Socket) => void
  const inside = new Set<Socket>()
  let refusals: LogFacts[]
  let heard: () => void
  const outside: Socket[] = []
  let entered: () => void

  const log = {
    error: () => undefined,
    info: () => undefined,
    debug: () => undefined,
    warn: (_: string, facts?: LogFacts) => {
      refusals.push(facts ?? {})
      heard()
    },
  }

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'xosan-gate-'))
    rig = await TrustRig.create()
    own = await rig.credentials()
    refusals = []
    heard = () => undefined
    entered = () => undefined
    served = socket => void socket.pipe(socket)
    servers = ['client:0', 'peer:0'].map(name =>
      createServer(socket => {
        inside.add(socket)
        entered()
        socket.once('close', () => inside.delete(socket))
        socket.on('error', () => undefined)
        served(socket)
      }).listen(join(directory, name))
    )
    await Promise.all(servers.map(async server => once(server, 'listening')))
    gate = await opened({ credentials: own, revoked: [] })
  })
  afterEach(async () => {
    for (const socket of outside.splice(0)) socket.destroy()
    gate.close()
    for (const socket of inside) socket.destroy()
    for (const server of servers) server.close()
    await rm(directory, { recursive: true })
  })

  async function opened(trust: GateTrust): Promise<EtcdGate> {
    const one = new EtcdGate({
      address: '127.0.0.1',
      ports: { client: 0, peer: 0 },
      socketOf: name => join(directory, name),
      trust,
      clock: createNodeClock(),
      log,
      limits: { handshakeMs: HANDSHAKE_MS },
      stalledMs: STALLED_MS,
    })
    ports = await one.listen()
    return one
  }
  const serialOf = ({ certificatePem }: HostCredentials): string => certificateFacts(certificatePem)!.serial

  /** Connects as somebody, who may not be let in. */
  function call(port: number, who: HostCredentials | null, options: ConnectionOptions = {}): TLSSocket {
    const certificate = who === null ? {} : { key: who.keyPem, cert: who.certificatePem }
    const socket = connect({
      host: '127.0.0.1',
      port,
      ca: own.authoritiesPem,
      ...certificate,
      ...options,
    })
    outside.push(socket)
    socket.on('error', () => undefined)
    return socket
  }
  async function closed(socket: Socket): Promise<void> {
    socket.resume()
    if (!socket.closed) await new Promise<void>(resolve => socket.once('close', () => resolve()))
  }
  /** Waits for connections that come to what stands for etcd. */
  async function until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>(resolve => (entered = resolve))
  }
  /** Whether it is answered by what stands for etcd. */
  async function isAnswered(socket: Socket): Promise<boolean> {
    socket.write('hello')
    return new Promise(resolve => {
      socket.once('data', () => resolve(true))
      socket.once('close', () => resolve(false))
    })
  }
  async function refused(cause: string): Promise<LogFacts> {
    for (;;) {
      const found = refusals.find(each => each['cause'] === cause)
      if (found !== undefined) return found
      await new Promise<void>(resolve => (heard = resolve))
    }
  }

  it('lets in who has a certificate of the SR, on both ports, and speaks the protocols of either', async () => {
    const member = await rig.credentials()
    const grpc = call(ports.client, member, { ALPNProtocols: ['h2'] })
    assert.ok(await isAnswered(grpc))
    assert.deepEqual([grpc.alpnProtocol, grpc.getProtocol()], ['h2', 'TLSv1.3'])
    assert.ok(await isAnswered(call(ports.client, member)))
    const peer = call(ports.peer, member, { ALPNProtocols: ['h2', 'http/1.1'] })
    assert.ok(await isAnswered(peer))
    assert.equal(
      peer.alpnProtocol,
      false,
      'what etcd has inside takes HTTP/1.1 of its peers, and that needs no name'
    )
  })

  it('refuses everybody else, before etcd hears of it, and says so once for each cause', async () => {
    const stranger = await TrustRig.create()
    const { authority } = rig
    const restored = new TrustRig({ ...authority, scope: { ...authority.scope, generation: 2 } })
    const cases: [cause: string, who: HostCredentials | null, options?: ConnectionOptions][] = [
      ['no-certificate', null],
      ['other-authority', await stranger.credentials()],
      ['expired', await rig.flawed({ notAfter: new Date(Date.now() - DAY_MS) })],
      ['not-a-host', await rig.flawed({ uris: [] })],
      ['other-generation', await restored.credentials()],
      [
        'no-tls',
        await rig.credentials(),
        { maxVersion: 'TLSv1.2', secureOptions: constants.SSL_OP_NO_TLSv1_3 },
      ],
    ]
    const heardInside: Socket[] = []
    served = socket => heardInside.push(socket)
    for (const port of [ports.client, ports.peer]) {
      for (const [cause, who, options] of cases) {
        refusals = []
        const attempts = [call(port, who, options), call(port, who, options), call(port, who, options)]
        await Promise.all(attempts.map(closed))
        await refused(cause)
        assert.deepEqual(
          refusals.map(each => each['cause']),
          [cause]
        )
      }
    }
    assert.deepEqual(heardInside, [])
  })

  it('closes who says nothing, or garbage, or who is one of too many', async () => {
    for (const port of [ports.client, ports.peer]) {
      refusals = []
      const silent = connectInClear({ host: '127.0.0.1', port })
      const garbage = connectInClear({ host: '127.0.0.1', port })
      outside.push(silent, garbage)
      garbage.on('error', () => undefined)
      garbage.write('GET / HTTP/1.1\r\n\r\n')
      await Promise.all([closed(silent), closed(garbage)])
      await refused('handshake-timeout')
      await refused('no-tls')
    }
  })

  it('ends the connections of a certificate that is revoked at once, and takes no new ones', async () => {
    const [leaving, staying] = [await rig.credentials(), await rig.credentials()]
    const calls = [ports.client, ports.peer].map(port => ({
      leaves: call(port, leaving),
      stays: call(port, staying),
    }))
    for (const { leaves, stays } of calls) assert.ok((await isAnswered(leaves)) && (await isAnswered(stays)))
    gate.use({ credentials: own, revoked: [serialOf(leaving)] })
    for (const { leaves, stays } of calls) {
      await closed(leaves)
      assert.ok(await isAnswered(stays))
    }
    assert.equal(await isAnswered(call(ports.client, leaving)), false)
    await refused('revoked')
    gate.use({ credentials: own, revoked: [] })
    assert.equal(await isAnswered(call(ports.client, leaving)), false, 'no certificate becomes good again')
  })

  it('ends the connections of an authority that is not trusted any more', async () => {
    const scope = rig.authority.scope
    const successor = await createAuthority(scope, new Date())
    const both = own.authoritiesPem + successor.certificatePem
    gate.use({ credentials: { ...own, authoritiesPem: both }, revoked: [] })
    const old = call(ports.client, await rig.credentials())
    assert.ok(await isAnswered(old))
    gate.use({ credentials: { ...own, authoritiesPem: successor.certificatePem }, revoked: [] })
    await closed(old)
  })

  it('passes everything on in both directions, also what is said last', async () => {
    const member = await rig.credentials()
    served = socket => {
      let bytes = 0
      socket.on('data', data => {
        bytes += data.length
        if (bytes === MANY) socket.end(Buffer.alloc(MANY, 1))
      })
    }
    for (const port of [ports.client, ports.peer]) {
      const socket = call(port, member)
      socket.write(Buffer.alloc(MANY))
      let bytes = 0
      // Slowly, so that much is still on its way when etcd's end is gone.
      for await (const data of socket) {
        bytes += (data as Buffer).length
        await delay(1)
      }
      assert.equal(bytes, MANY)
    }
  })

  it('closes both ends when one of them is gone, and calls when there is no etcd', async () => {
    const member = await rig.credentials()
    const first = call(ports.client, member)
    assert.ok(await isAnswered(first))
    for (const socket of inside) socket.destroy()
    await closed(first)
    const second = call(ports.client, member)
    assert.ok(await isAnswered(second))
    const [atEtcd] = inside
    second.destroy()
    await closed(atEtcd!)
    for (const server of servers) server.close()
    assert.equal(await isAnswered(call(ports.client, member)), false)
  })

  it('closes both ends when one takes nothing any more, but not when there is nothing to take', async () => {
    const member = await rig.credentials()
    served = socket => void socket.once('data', () => socket.write(Buffer.alloc(MANY)))
    const stopped = call(ports.client, member)
    stopped.write('hello')
    stopped.pause()
    await until(() => inside.size === 1)
    served = socket => void socket.pipe(socket)
    const idle = call(ports.client, member)
    assert.ok(await isAnswered(idle))
    const [atEtcd] = inside
    await closed(atEtcd!)
    assert.ok(await isAnswered(idle), 'who was silent for as long')
    await assert.rejects(async () => {
      let bytes = 0
      for await (const data of stopped) bytes += (data as Buffer).length
      if (bytes < MANY) throw new Error('cut off')
    })
  })

  describe('and the files that tell it whom to trust', () => {
    let trust: TrustDirectory
    let files: GateFiles
    let told: GateTrust[]
    let warnings: string[]
    /** What it wants to do next. */
    let next: () => void
    let noticed: () => void

    beforeEach(async () => {
      trust = await TrustDirectory.open(join(directory, 'trust'))
      told = []
      warnings = []
      noticed = () => undefined
      files = new GateFiles({
        path: trust.path,
        clock: {
          ...createNodeClock(),
          after: (_, action) => {
            next = action
            return { cancel: () => undefined }
          },
        },
        changed: async now => {
          told.push(now)
          noticed()
          return Promise.resolve()
        },
        warn: reason => warnings.push(reason),
      })
    })
    afterEach(() => files.close())

    const list = async (serials: readonly string[]): Promise<string> =>
      createRevocationList(rig.authority, serials, new Date())

    it('open nothing without a list of revoked certificates, and follow each change of it', async () => {
      await trust.saveCredentials(own)
      await files.follow()
      assert.deepEqual([told, warnings], [[], ['there is no list of revoked certificates']])
      await trust.saveRevocationList(await list([]))
      await files.follow()
      await files.follow()
      assert.deepEqual(told, [{ credentials: own, revoked: [] }], 'told once')
      await trust.saveRevocationList(await list(['ab12']))
      await files.follow()
      assert.deepEqual(told[1]!.revoked, ['ab12'])
      const renewed = await rig.credentials(own.identity)
      await trust.saveCertificate(renewed)
      await files.follow()
      assert.deepEqual([told.length, told[2]!.credentials.certificatePem], [3, renewed.certificatePem])
    })

    it('are looked at again and again, until it is closed', async () => {
      await trust.saveCredentials(own)
      await files.follow()
      await trust.saveRevocationList(await list([]))
      const looked = new Promise<void>(resolve => (noticed = resolve))
      next()
      await looked
      assert.equal(told.length, 1)
      const last = next
      files.close()
      await files.follow()
      assert.equal(next, last, 'it wants nothing any more')
    })

    it('change nothing while they cannot be read, which is said once', async () => {
      await trust.saveCredentials(own)
      await trust.saveRevocationList(await list([]))
      await files.follow()
      assert.equal(told.length, 1)
      await writeFile(join(trust.path, 'revoked.pem'), 'garbage', { mode: 0o600 })
      await files.follow()
      await files.follow()
      assert.equal(warnings.length, 1)
      assert.match(warnings[0]!, /revoked\.pem/)
      await trust.saveRevocationList(await list(['cd34']))
      await files.follow()
      assert.deepEqual([told.length, told[1]!.revoked, warnings.length], [2, ['cd34'], 1])
    })
  })
})
