import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect as connectPlain } from 'node:net'
import { connect as connectTls, createSecureContext } from 'node:tls'
import { z } from 'zod'
import { millis } from '../../../core/units.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { RpcClient } from '../../../rpc/client.ts'
import { RpcServer } from '../../../rpc/server.ts'
import { fingerprintOf } from '../../../trust/certificate.ts'
import { type HostCredentials } from '../../../trust/trust-directory.ts'
import { type TrustedTransport } from '../../../trust/trusted-transport.ts'
import { newHostId, TrustRig } from '../../support/trust-rig.ts'

const clock = createNodeClock()
const CALL_MS = { deadlineMs: 10_000 }
const DAY_MS = 86_400_000

describe('JSON-RPC between hosts', () => {
  let rig: TrustRig
  let server: RpcServer
  let serverCredentials: HostCredentials
  let serverTransport: TrustedTransport
  let port: number
  const clients: RpcClient[] = []

  beforeEach(async () => {
    rig = await TrustRig.create()
    serverCredentials = await rig.credentials()
    rig.enlist(serverCredentials)
    serverTransport = rig.transport(serverCredentials)
    server = new RpcServer({ log: () => undefined })
    server.register('echo', z.object({ text: z.string() }), ({ text }) => text)
    server.register('who', z.object({}), (_, { host }) => host)
    port = await server.listenTls('127.0.0.1', 0, serverTransport)
  })

  afterEach(async () => {
    for (const client of clients.splice(0)) client.close()
    rig.close()
    await server.close()
  })

  const clientOf = (transport: TrustedTransport, host = serverCredentials.identity.host): RpcClient => {
    const address = { host: '127.0.0.1', port }
    const client = new RpcClient({ address, clock, dialer: transport.to(host) })
    clients.push(client)
    return client
  }
  const echo = async (client: RpcClient, text = 'hello') => client.call('echo', { text }, z.string(), CALL_MS)

  /** Calls with credentials for which nobody checks the server. @returns when the server has closed the connection */
  const callAs = async (credentials: Partial<HostCredentials>): Promise<void> => {
    const { keyPem, certificatePem } = credentials
    const own = keyPem === undefined ? {} : { key: keyPem, cert: certificatePem! }
    const socket = connectTls({ host: '127.0.0.1', port, rejectUnauthorized: false, ...own })
    let answered = ''
    socket.on('data', (data: Buffer) => (answered += data.toString()))
    socket.on('error', () => undefined)
    socket.on('secureConnect', () =>
      socket.write('{"jsonrpc":"2.0","id":1,"method":"echo","params":{"text":"me"}}\n')
    )
    await once(socket, 'close')
    assert.equal(answered, '')
  }

  it('lets members call each other', async () => {
    assert.equal(await echo(clientOf(await rig.member())), 'hello')
    assert.deepEqual(rig.refusals, [])
  })

  it('tells each method who calls: the host that TLS has authenticated, nobody in clear', async () => {
    const [first, second] = [await rig.member(), await rig.member()]
    const plain = new RpcClient({
      address: { host: '127.0.0.1', port: await server.listenTcp('127.0.0.1', 0) },
      clock,
    })
    const callers = [clientOf(first), plain, clientOf(second)]
    const who = async (client: RpcClient) => client.call('who', {}, z.string().nullable(), CALL_MS)
    assert.deepEqual(await Promise.all(callers.map(who)), [first.host, null, second.host])
    clients.push(plain)
  })

  it('refuses a client without a certificate', async () => {
    await callAs({})
    await rig.refused('no-certificate')
  })

  it('refuses the certificate of another SR, and says whose it is', async () => {
    const other = await (await TrustRig.create()).credentials()
    await callAs(other)
    const { detail } = await rig.refused('other-authority')
    assert.match(detail, new RegExp(other.identity.sr))
  })

  it('refuses a certificate that was issued and is not on the list', async () => {
    await callAs(await rig.credentials())
    await rig.refused('not-a-member')
  })

  it('refuses another certificate of a member than the one on the list', async () => {
    const host = newHostId()
    rig.enlist(await rig.credentials(rig.identity(host)))
    await callAs(await rig.credentials(rig.identity(host)))
    await rig.refused('not-a-member')
  })

  it('refuses an expired certificate, and one that is not valid yet', async () => {
    const expired = await rig.flawed({ notAfter: new Date(Date.now() - DAY_MS) })
    const early = await rig.flawed({
      notBefore: new Date(Date.now() + DAY_MS),
      notAfter: new Date(Date.now() + 2 * DAY_MS),
    })
    rig.enlist(expired)
    rig.enlist(early)
    await callAs(expired)
    await rig.refused('expired')
    await callAs(early)
    await rig.refused('not-yet-valid')
  })

  it('refuses a certificate that is not for clients', async () => {
    const server = await rig.flawed({ serverOnly: true })
    rig.enlist(server)
    await callAs(server)
    const { detail } = await rig.refused('other-authority')
    assert.match(detail, /INVALID_PURPOSE/)
  })

  it('refuses a certificate of an earlier generation, even one that this authority has signed', async () => {
    const identity = { ...rig.identity(), generation: 7 }
    const earlier = await rig.flawed({}, identity)
    rig.enlist(earlier)
    await callAs(earlier)
    await rig.refused('other-generation')
  })

  it('refuses what is no TLS, and TLS before 1.3', async () => {
    const plain = connectPlain(port, '127.0.0.1')
    plain.on('error', () => undefined)
    plain.write('{"jsonrpc":"2.0","id":1,"method":"echo","params":{"text":"me"}}\n')
    plain.resume()
    await once(plain, 'close')
    await rig.refused('no-tls')
    const { keyPem, certificatePem } = await rig.credentials()
    const old = connectTls({
      host: '127.0.0.1',
      port,
      rejectUnauthorized: false,
      secureContext: createSecureContext({ key: keyPem, cert: certificatePem, maxVersion: 'TLSv1.2' }),
    })
    const [error] = (await once(old, 'error')) as [Error]
    assert.match(error.message, /version/i)
  })

  it('closes a connection that says nothing', async () => {
    const patient = rig.transport(serverCredentials, { handshakeMs: millis(200) })
    port = await server.listenTls('127.0.0.1', 0, patient)
    const silent = connectPlain(port, '127.0.0.1')
    silent.on('error', () => undefined)
    silent.resume()
    await once(silent, 'close')
    await rig.refused('handshake-timeout')
  })

  it('is not called when it is another host than the one that was meant', async () => {
    const client = await rig.member()
    const third = await rig.member()
    await assert.rejects(echo(clientOf(client, third.host)), { code: 'PEER_NOT_TRUSTED' })
  })

  it('is not called when it was removed, also when the client has not connected before', async () => {
    const client = await rig.member()
    rig.remove(serverCredentials.identity.host)
    await assert.rejects(echo(clientOf(client)), { code: 'PEER_NOT_TRUSTED' })
  })

  it('ends the connections of a host at both ends the moment it is removed, and no other', async () => {
    const leaving = await rig.member()
    const staying = await rig.member()
    const [left, stayed] = [clientOf(leaving), clientOf(staying)]
    assert.equal(await echo(left), 'hello')
    assert.equal(await echo(stayed), 'hello')
    rig.remove(leaving.host)
    // The first call still goes into the connection that ends, the second one makes another.
    await assert.rejects(echo(left), { code: 'PEER_UNREACHABLE' })
    await assert.rejects(echo(left), { code: 'PEER_UNREACHABLE' })
    await rig.refused('not-a-member')
    assert.equal(await echo(stayed, 'still here'), 'still here')
  })

  it('ends the connections of a host that was removed and has joined again', async () => {
    const credentials = await rig.credentials()
    rig.enlist(credentials)
    const socket = rig
      .transport(credentials)
      .to(serverCredentials.identity.host)
      .connect({ host: '127.0.0.1', port })
    await once(socket, 'secureConnect')
    const closed = once(socket, 'close')
    socket.on('error', () => undefined)
    rig.enlist(await rig.credentials(credentials.identity))
    await closed
  })

  it('drops no connection when a certificate is renewed, and takes the old one until it leaves the list', async () => {
    const credentials = await rig.credentials()
    const renewed = await rig.credentials(credentials.identity)
    const member = rig.enlist(credentials)
    const transport = rig.transport(credentials)
    const others = [serverCredentials].map(({ identity, certificatePem }) => ({
      host: identity.host,
      admission: rig.members.get(identity.host)!.admission,
      certificates: [fingerprintOf(certificatePem)],
    }))
    const first = clientOf(transport)
    assert.equal(await echo(first), 'hello')
    const both = [...member.certificates, fingerprintOf(renewed.certificatePem)]
    rig.members.replace([...others, { ...member, certificates: both }])
    assert.equal(await echo(clientOf(transport)), 'hello')
    transport.use(renewed)
    rig.members.replace([...others, { ...member, certificates: both.slice(1) }])
    assert.equal(await echo(clientOf(transport)), 'hello')
    assert.equal(await echo(first), 'hello')
    assert.deepEqual(rig.refusals, [])
    await callAs(credentials)
    await rig.refused('not-a-member')
  })

  it('trusts the certificates of two authorities while one succeeds the other', async () => {
    const successor = await TrustRig.create(rig.authority.scope)
    const authoritiesPem = rig.authority.certificatePem + successor.authority.certificatePem
    serverTransport.use({ ...serverCredentials, authoritiesPem })
    const old = await rig.credentials()
    const young = await successor.credentials()
    rig.enlist(old)
    rig.enlist(young)
    for (const credentials of [old, young]) {
      assert.equal(await echo(clientOf(rig.transport({ ...credentials, authoritiesPem }))), 'hello')
    }
  })

  it('ends the connections of certificates of an authority that is trusted no more, and no other', async () => {
    const successor = await TrustRig.create(rig.authority.scope)
    const authoritiesPem = rig.authority.certificatePem + successor.authority.certificatePem
    const own = await successor.credentials(serverCredentials.identity)
    rig.enlist(own)
    serverTransport.use({ ...own, authoritiesPem })
    const old = await rig.credentials()
    const young = await successor.credentials()
    const clients = [old, young].map(credentials => {
      rig.enlist(credentials)
      return clientOf(rig.transport({ ...credentials, authoritiesPem }))
    })
    for (const client of clients) await echo(client)
    // It stays on the list of members, and shows what it showed.
    serverTransport.use({ ...own, authoritiesPem: successor.authority.certificatePem })
    await assert.rejects(echo(clients[0]!), { code: 'PEER_UNREACHABLE' })
    assert.equal(await echo(clients[1]!), 'hello')
  })

  it('does not let a removed host in by a session that it had before', async () => {
    const credentials = await rig.credentials()
    rig.enlist(credentials)
    const { keyPem: key, certificatePem: cert } = credentials
    const options = { host: '127.0.0.1', port, rejectUnauthorized: false, key, cert }
    const first = connectTls(options)
    first.on('error', () => undefined)
    let session: Buffer | undefined
    first.on('session', (ticket: Buffer) => (session = ticket))
    first.write('{"jsonrpc":"2.0","id":1,"method":"echo","params":{"text":"me"}}\n')
    await once(first, 'data')
    first.destroy()
    rig.remove(credentials.identity.host)
    const second = connectTls({ ...options, ...(session === undefined ? {} : { session }) })
    second.on('error', () => undefined)
    second.resume()
    await once(second, 'close')
    assert.ok(rig.refusals.some(({ cause }) => ['not-a-member', 'resumed'].includes(cause)))
  })
})
