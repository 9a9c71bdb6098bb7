import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { createServer, type Socket } from 'node:net'
import { deflateRawSync } from 'node:zlib'
import { hostKey } from '../../../cluster/keys.ts'
import { serialiseHostRecord } from '../../../cluster/records.ts'
import { XosanError } from '../../../core/errors.ts'
import { type ProcessIdentity, type ReplicaAddress, type SessionName } from '../../../core/mirror/messages.ts'
import { RegionSet } from '../../../core/mirror/region-set.ts'
import { DEFAULT_TIMING } from '../../../core/mirror/timing.ts'
import { type Coordinator } from '../../../core/ports/coordinator.ts'
import {
  byteLength,
  epoch,
  type HostId,
  millis,
  type RegionIndex,
  sessionNumber,
} from '../../../core/units.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { type DatapathNode } from '../../../datapath/process/datapath-node.ts'
import { HostDirectory } from '../../../datapath/process/host-directory.ts'
import { servePeers } from '../../../datapath/process/peer-server.ts'
import { PeerTransports } from '../../../datapath/process/peer-transports.ts'
import { type ReplicaHost } from '../../../datapath/process/replica-host.ts'
import { type RpcPeerTransport } from '../../../datapath/process/rpc-peer-transport.ts'
import { DIGEST_BYTES } from '../../../datapath/replica-local/block-digests.ts'
import { RpcServer } from '../../../rpc/server.ts'

const clock = createNodeClock()
const id = () => randomUUID() as never
const TIB = 2 ** 40

const host = randomUUID() as string as HostId
const identity: ProcessIdentity = { host, boot: id(), incarnation: id() }
const address = (size: number): ReplicaAddress => ({
  sr: id(),
  volume: id(),
  replica: id(),
  store: id(),
  layers: [id()],
  size: byteLength(size),
})
const name = (size: number): SessionName => ({
  address: address(size),
  epoch: epoch(5),
  session: sessionNumber(2),
})

describe('messages between the datapath processes of two hosts', () => {
  let server: RpcServer
  let replicas: Partial<Record<keyof ReplicaHost, unknown>>
  let record: string
  let coordinatorUp: boolean
  let transports: PeerTransports
  let transport: RpcPeerTransport

  /** Names a port in the record of the host. */
  const recordOf = (port: number): string =>
    serialiseHostRecord(hostKey(host), {
      version: 1,
      host,
      name: 'the other host',
      address: '127.0.0.1',
      ports: { peer: 1, datapath: [port], nbd: [1] },
      datapaths: 1,
    })

  const serve = async (): Promise<RpcServer> => {
    const started = new RpcServer({ log: () => undefined })
    servePeers(started, { replicas } as unknown as DatapathNode, () => true)
    record = recordOf(await started.listenTcp('127.0.0.1', 0))
    return started
  }

  beforeEach(async () => {
    replicas = {}
    coordinatorUp = true
    server = await serve()
    const coordinator = {
      list: async () =>
        coordinatorUp
          ? Promise.resolve({ entries: [{ key: hostKey(host), value: record, revision: 1 }], revision: 1 })
          : Promise.reject(new XosanError('COORDINATOR_UNAVAILABLE', { reason: 'test' })),
    } as unknown as Coordinator
    const directory = new HostDirectory({ coordinator, clock, log: () => undefined })
    transports = new PeerTransports({ directory, clock, timing: DEFAULT_TIMING, dialer: () => undefined })
    transport = transports.to(host, id())
  })
  afterEach(async () => {
    transport.close()
    await server.close()
  })

  it('arrive as they were sent, and so do their answers', async () => {
    const calls: unknown[] = []
    const answering =
      <Answer>(answer: Answer) =>
      async (request: unknown) => {
        calls.push(request)
        return Promise.resolve(answer)
      }
    const accepted = { kind: 'accepted', identity, lostAt: epoch(3) } as const
    const promised = {
      kind: 'promised',
      identity,
      holder: null,
      epoch: epoch(4),
      remainingMs: millis(12.5),
    } as const
    const ok = { kind: 'ok', identity, takenAway: 7, lostAt: null } as const
    const store = id()
    replicas = Object.assign(replicas, {
      heartbeat: (request: unknown) => {
        calls.push(request)
        return { identity, answer: 4, renewed: true, takenAway: 0 }
      },
      accept: answering(accepted),
      confirm: answering(ok),
      raise: answering({ kind: 'gone', identity, reason: 'no file' }),
      clear: answering(undefined),
      finish: answering(undefined),
      create: async (request: unknown, blank: unknown) => {
        calls.push([request, blank])
        return Promise.resolve({ store, replica: made.replica })
      },
    })
    const session = name(TIB)
    const accept = {
      address: session.address,
      epoch: epoch(9),
      asker: identity,
      purpose: 'guest',
      inSync: true,
      voidUpTo: epoch(8),
    } as const
    const confirm = {
      address: session.address,
      epoch: epoch(9),
      asker: identity,
      purpose: 'maintenance',
    } as const
    const raise = {
      address: session.address,
      from: epoch(9),
      to: epoch(10),
      asker: identity,
      inSync: false,
    } as const
    const clear = { name: session, upTo: 3 as never, regions: [{ first: 1, end: 4 }], reconciled: true }
    const finish = { name: session, asker: identity, clearIntents: true }
    const { sr, volume, replica, layers, size } = session.address
    const made = { sr, volume, replica, layers, size }

    assert.deepEqual(await transport.heartbeat({ from: identity, echo: 3 }), {
      identity,
      answer: 4,
      renewed: true,
      takenAway: 0,
    })
    assert.deepEqual(await transport.accept(accept), accepted)
    assert.deepEqual(await transport.confirm(confirm), ok)
    assert.deepEqual(await transport.raise(raise), { kind: 'gone', identity, reason: 'no file' })
    await transport.clear(clear)
    await transport.finish(finish)
    assert.deepEqual(await transport.create(made, false, made.replica), { store, replica: made.replica })
    assert.deepEqual(calls, [
      { from: identity, echo: 3 },
      accept,
      confirm,
      raise,
      clear,
      finish,
      [made, false],
    ])
    replicas.accept = answering(promised)
    assert.deepEqual(await transport.accept(accept), promised)
  })

  it('carry digests of blocks, or that there are none to be had', async () => {
    const session = name(TIB)
    const digests = new Uint8Array(16 * DIGEST_BYTES).map((_, at) => at)
    const calls: unknown[] = []
    replicas.digests = async (...asked: unknown[]) =>
      Promise.resolve(calls.push(asked) === 1 ? digests : null)
    const region = 16_000_000 as RegionIndex
    assert.deepEqual(Uint8Array.from((await transport.digests(session, region))!), digests)
    assert.equal(await transport.digests(session, region), null)
    assert.deepEqual(calls[0], [session, region])
  })

  it('carry the write intents of a volume of 5 TiB in parts', async () => {
    const session = name(5 * TIB)
    const intents = new RegionSet((5 * TIB) / 65_536)
    for (let region = 0; region < intents.size; region += 1 + (region % 977))
      intents.add(region as RegionIndex)
    replicas.intents = async () => Promise.resolve(intents)
    const received = await transport.intents(session)
    assert.equal(received.count, intents.count)
    assert.deepEqual([...received.ranges()], [...intents.ranges()])
  })

  it('are refused when they are malformed, and break nothing', async () => {
    replicas.accept = async () => Promise.reject(new Error('never called'))
    const wrong = { ...name(TIB).address, replica: '../../etc/passwd' as never }
    const request = {
      epoch: epoch(1),
      asker: identity,
      purpose: 'guest',
      inSync: true,
      voidUpTo: epoch(0),
    } as const
    await assert.rejects(transport.accept({ ...request, address: wrong }), { code: 'INVALID_ARGUMENT' })
    replicas.heartbeat = () => ({ identity, answer: 1, renewed: false, takenAway: 0 })
    assert.equal((await transport.heartbeat({ from: identity, echo: 0 })).answer, 1)
  })

  it('whose answers are lies are no answers', async () => {
    await server.close()
    let bits = deflateRawSync(Buffer.alloc(64 * 1024 * 1024))
    let part = { regions: 16, bytes: 64 * 1024 * 1024 }
    const liar = createServer((socket: Socket) => {
      socket.on('data', chunk => {
        const { id: call } = JSON.parse(chunk.toString()) as { id: number }
        const result = { ...part, bits: bits.toString('base64') }
        socket.write(`${JSON.stringify({ jsonrpc: '2.0', id: call, result })}\n`)
      })
    })
    const port = await new Promise<number>(resolve =>
      liar.listen(0, '127.0.0.1', () => resolve((liar.address() as { port: number }).port))
    )
    record = recordOf(port)
    const session = name(16 * 65_536)
    try {
      await assert.rejects(transport.intents(session), { code: 'PROTOCOL_VIOLATION' }, 'a deflate bomb')
      bits = deflateRawSync(Buffer.alloc(2))
      part = { regions: 24, bytes: 2 }
      await assert.rejects(transport.intents(session), { code: 'PROTOCOL_VIOLATION' }, 'another size')
      part = { regions: 16, bytes: 1 }
      await assert.rejects(
        transport.intents(session),
        { code: 'PROTOCOL_VIOLATION' },
        'another length than said'
      )
      part = { regions: 16, bytes: 0 }
      bits = deflateRawSync(Buffer.alloc(0))
      await assert.rejects(transport.intents(session), { code: 'PROTOCOL_VIOLATION' }, 'no progress')
    } finally {
      transport.close()
      liar.close()
      server = await serve()
    }
  })

  it('find a host at the address that it was last known at while the coordinator is away', async () => {
    replicas.heartbeat = () => ({ identity, answer: 1, renewed: false, takenAway: 0 })
    await transport.heartbeat({ from: identity, echo: 0 })
    coordinatorUp = false
    assert.equal((await transport.heartbeat({ from: identity, echo: 0 })).answer, 1)
    const stranger = transports.to(id(), id())
    await assert.rejects(stranger.heartbeat({ from: identity, echo: 0 }), { code: 'PEER_UNREACHABLE' })
  })

  it('follow a host that has moved to another port', async () => {
    replicas.heartbeat = () => ({ identity, answer: 1, renewed: false, takenAway: 0 })
    await transport.heartbeat({ from: identity, echo: 0 })
    await server.close()
    server = await serve()
    const end = performance.now() + 15_000
    for (;;) {
      const answer = await transport.heartbeat({ from: identity, echo: 0 }).catch(() => null)
      if (answer !== null) break
      assert.ok(performance.now() < end, 'the new port is never tried')
      await new Promise(resolve => setTimeout(resolve, 50))
    }
  })

  it('share one transport for all volumes that one process of a host serves', async () => {
    replicas.heartbeat = () => ({ identity, answer: 1, renewed: false, takenAway: 0 })
    await transport.heartbeat({ from: identity, echo: 0 })
    assert.equal(transports.to(host, id()), transports.to(host, id()))
  })
})
