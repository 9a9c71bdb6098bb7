import assert from 'node:assert/strict'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { once } from 'node:events'
import { mkdtemp, rm, stat } from 'node:fs/promises'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import { hasCode, XosanError } from '../../../core/errors.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { RpcClient } from '../../../rpc/client.ts'
import { LineReader } from '../../../rpc/lines.ts'
import { RpcServer, type RpcServerEvent } from '../../../rpc/server.ts'

/**
 * More than the server takes of a client that does not read: the requests under way, as many answers as the kernel holds
 * for the client, and one read of the socket, in bytes.
 */
const READ_AHEAD_MAX = 2 * 1024 * 1024

describe('RPC', () => {
  const clock = createNodeClock()
  let directory: string
  let path: string
  let server: RpcServer
  let client: RpcClient
  let events: RpcServerEvent[]
  /** Calls of `hold` wait until this is called. */
  let release: () => void
  let holding: number

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'xosan-rpc-'))
    path = join(directory, 'socket')
    events = []
    holding = 0
    const released = new Promise<void>(resolve => (release = resolve))
    server = new RpcServer({ log: event => events.push(event), lineBytesMax: 10_000, inFlightMax: 4 })
    server.register('echo', z.object({ text: z.string() }), ({ text }) => text)
    server.register('fail', z.object({}), () => {
      throw new XosanError('NO_SPACE', { needed: 5, free: 3 })
    })
    server.register('break', z.object({}), () => {
      throw new Error('a mistake')
    })
    server.register('hold', z.object({}), async () => {
      holding += 1
      await released
      return null
    })
    client = new RpcClient({ address: path, clock })
  })

  afterEach(async () => {
    release()
    client.close()
    await server.close()
    await rm(directory, { recursive: true })
  })

  const echo = async (text: string, through = client) =>
    through.call('echo', { text }, z.string(), { deadlineMs: 5000 })

  /** Sends bytes as they are. @returns what came back until the server closed the connection */
  const sendRaw = async (bytes: string | Buffer): Promise<string> => {
    const socket = connect(path)
    let received = ''
    socket.on('data', data => (received += data.toString()))
    socket.on('error', () => undefined)
    socket.write(bytes)
    await once(socket, 'close')
    return received
  }

  it('answers on a socket that only its owner may use', async () => {
    await server.listenUnix(path)
    assert.equal((await stat(path)).mode & 0o777, 0o600)
    assert.equal(await echo('a line\nand "quotes" \u2028 é'), 'a line\nand "quotes" \u2028 é')
  })

  it('carries a XosanError to the caller, and hides others behind INTERNAL', async () => {
    await server.listenUnix(path)
    await assert.rejects(
      client.call('fail', {}, z.null(), { deadlineMs: 5000 }),
      (error: unknown) =>
        hasCode(error, 'NO_SPACE') && error.parameters['needed'] === 5 && error.parameters['free'] === 3
    )
    await assert.rejects(client.call('break', {}, z.null(), { deadlineMs: 5000 }), { code: 'INTERNAL' })
    assert.match(events[0]!.reason, /a mistake\n/)
    await assert.rejects(client.call('echo', { text: 1 }, z.string(), { deadlineMs: 5000 }), {
      code: 'INVALID_ARGUMENT',
    })
    await assert.rejects(client.call('no such call', {}, z.null(), { deadlineMs: 5000 }), {
      code: 'UNSUPPORTED',
    })
  })

  it('refuses a result that is not what the caller asked for', async () => {
    await server.listenUnix(path)
    await assert.rejects(client.call('echo', { text: 'x' }, z.number(), { deadlineMs: 5000 }), {
      code: 'PROTOCOL_VIOLATION',
    })
  })

  it('replaces the socket file of a dead server, and leaves the one of a live server alone', async () => {
    const dead = createServer()
    await new Promise<void>(resolve => dead.listen(join(directory, 'dead'), resolve))
    const { rename } = await import('node:fs/promises')
    await rename(join(directory, 'dead'), path)
    dead.close()
    await server.listenUnix(path)
    const second = new RpcServer({ log: () => undefined })
    await assert.rejects(second.listenUnix(path), /another process listens there/)
    assert.equal(await echo('still here'), 'still here')
    await assert.rejects(second.listenUnix(`/tmp/${'x'.repeat(110)}`), /longer than 107/)
  })

  it('listens on loopback addresses only', async () => {
    for (const address of ['0.0.0.0', '192.168.1.1', '::', 'localhost', '127.example.org']) {
      await assert.rejects(server.listenTcp(address, 0), { code: 'UNSUPPORTED' }, address)
    }
    const port = await server.listenTcp('127.0.0.1', 0)
    const overTcp = new RpcClient({ address: { host: '127.0.0.1', port }, clock })
    assert.equal(await echo('x', overTcp), 'x')
    overTcp.close()
  })

  it('closes a connection that breaks the protocol, and no other', async () => {
    await server.listenUnix(path)
    await echo('before')
    for (const bad of [
      'hello\n',
      '{}\n',
      '[]\n',
      '{"jsonrpc":"2.0"}\n',
      'x'.repeat(20_000),
      '\n',
      Buffer.from([0xff, 0x0a]),
    ]) {
      assert.equal(await sendRaw(bad), '')
    }
    assert.equal(events.filter(({ event }) => event === 'connection-closed').length, 7)
    assert.equal(await echo('after'), 'after')
  })

  it('reads no further requests of a connection than it may have unanswered', async () => {
    await server.listenUnix(path)
    const held = Array.from({ length: 10 }, () => client.call('hold', {}, z.null(), { deadlineMs: 5000 }))
    const other = new RpcClient({ address: path, clock })
    // Another connection is served meanwhile.
    while (holding < 4) await echo('x', other)
    for (let i = 0; i < 20; i++) await echo('x', other)
    assert.equal(holding, 4)
    release()
    await Promise.all(held)
    assert.equal(holding, 10)
    other.close()
  })

  it('stops reading from a client that does not read, and answers all it asked once it does', async () => {
    await server.listenUnix(path)
    const taken: Socket[] = []
    const take = (message: unknown) => taken.push((message as { socket: Socket }).socket)
    subscribe('net.server.socket', take)
    const greedy = connect(path)
    await once(greedy, 'connect')
    await echo('served meanwhile')
    unsubscribe('net.server.socket', take)
    const [serverEnd] = taken
    assert.ok(serverEnd !== undefined)

    try {
      const text = 'x'.repeat(9_000)
      const requests = 2_000
      for (let id = 1; id <= requests; id++) {
        greedy.write(`${JSON.stringify({ jsonrpc: '2.0', id, method: 'echo', params: { text } })}\n`)
      }
      // Far more turns of the event loop than reading all of it takes.
      for (let i = 0; i < 500; i++) await echo('served meanwhile')
      assert.ok(serverEnd.bytesRead > 0)
      assert.ok(serverEnd.bytesRead < READ_AHEAD_MAX, `${serverEnd.bytesRead} bytes were read`)

      const answered = new Set<number>()
      const reader = new LineReader(10_000)
      greedy.on('data', (chunk: Buffer) => {
        for (const line of reader.push(chunk)) answered.add((JSON.parse(line) as { id: number }).id)
        if (answered.size === requests) greedy.end()
      })
      await once(greedy, 'close')
      assert.equal(answered.size, requests)
    } finally {
      greedy.destroy()
    }
  })

  it('ends a call at its deadline and answers later ones', async () => {
    await server.listenUnix(path)
    await echo('x')
    await assert.rejects(client.call('hold', {}, z.null(), { deadlineMs: 50 }), { code: 'DEADLINE_EXCEEDED' })
    assert.equal(await echo('y'), 'y')
  })

  it('says that nobody is there, and finds the server once it is', async () => {
    await assert.rejects(echo('x'), { code: 'PEER_UNREACHABLE' })
    await server.listenUnix(path)
    assert.equal(await echo('x'), 'x')
  })

  it('fails calls under way when the connection ends, and makes a new one for the next', async () => {
    const sockets: { destroy(): void }[] = []
    const raw = createServer(socket => sockets.push(socket))
    await new Promise<void>(resolve => raw.listen(path, resolve))
    const call = echo('x')
    await once(raw, 'connection')
    sockets[0]!.destroy()
    await assert.rejects(call, { code: 'PEER_UNREACHABLE' })
    raw.close()
    await rm(path, { force: true })
    await server.listenUnix(path)
    assert.equal(await echo('y'), 'y')
  })

  it('does not give up a call that may take longer, because a shorter one got no answer', async () => {
    await server.listenUnix(path)
    const long = client.call('hold', {}, z.null(), { deadlineMs: 10_000 })
    await assert.rejects(client.call('hold', {}, z.null(), { deadlineMs: 50 }), { code: 'DEADLINE_EXCEEDED' })
    assert.equal(await echo('over a new connection'), 'over a new connection')
    release()
    assert.equal(await long, null)
  })

  it('drops a connection on which nothing came back within a deadline', async () => {
    const raw = createServer()
    await new Promise<void>(resolve => raw.listen(path, resolve))
    const closed = new Promise<void>(resolve => {
      raw.once('connection', socket => socket.once('close', () => resolve()).resume())
    })
    await assert.rejects(client.call('echo', {}, z.string(), { deadlineMs: 50 }), {
      code: 'DEADLINE_EXCEEDED',
    })
    await closed
    raw.close()
  })

  it('treats a server that talks nonsense as broken', async () => {
    const raw = createServer(socket => socket.on('error', () => undefined).write('{"jsonrpc":"1.0"}\n'))
    await new Promise<void>(resolve => raw.listen(path, resolve))
    await assert.rejects(echo('x'), { code: 'PROTOCOL_VIOLATION' })
    raw.close()
  })

  it('answers what is under way before it closes', async () => {
    await server.listenUnix(path)
    const held = client.call('hold', {}, z.null(), { deadlineMs: 5000 })
    while (holding < 1) await new Promise(resolve => setImmediate(resolve))
    const closed = server.close()
    release()
    assert.equal(await held, null)
    await closed
  })
})
