/** Members that ask for certificates, and clients that ask for theirs. */
import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect } from 'node:tls'
import { EtcdAdmin } from '../../../cluster/etcd/etcd-admin.ts'
import { type EtcdTls } from '../../../cluster/etcd/member-link.ts'
import { hasCode } from '../../../core/errors.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { nodeRandom } from '../../../daemon/ports/node-random.ts'
import { EtcdCluster, hasEtcd } from '../../support/etcd-cluster.ts'
import { hasProgram, succeed } from '../../support/run-program.ts'
import { create, eventually, openClient } from './rig.ts'

const SERVER_NAME = 'host-1.xosan.test'

/** A certificate authority in files, made with the openssl program. */
class TestAuthority {
  readonly #directory: string
  readonly #name: string

  private constructor(directory: string, name: string) {
    this.#directory = directory
    this.#name = name
  }

  static async make(directory: string, name: string): Promise<TestAuthority> {
    const authority = new TestAuthority(directory, name)
    await succeed('openssl', [
      ...[
        'req',
        '-x509',
        '-newkey',
        'ec',
        '-pkeyopt',
        'ec_paramgen_curve:prime256v1',
        '-nodes',
        '-days',
        '2',
      ],
      ...['-subj', `/CN=${name}`, '-keyout', authority.path('key'), '-out', authority.path('pem')],
    ])
    return authority
  }

  path(extension: string): string {
    return join(this.#directory, `${this.#name}.${extension}`)
  }

  /** @param names as openssl's subjectAltName takes them */
  async issue(leaf: string, names: string): Promise<{ cert: string; key: string }> {
    const path = (extension: string): string => join(this.#directory, `${this.#name}-${leaf}.${extension}`)
    await succeed('openssl', [
      ...[
        'req',
        '-newkey',
        'ec',
        '-pkeyopt',
        'ec_paramgen_curve:prime256v1',
        '-nodes',
        '-subj',
        `/CN=${leaf}`,
      ],
      ...['-keyout', path('key'), '-out', path('csr')],
    ])
    await writeFile(path('ext'), `subjectAltName=${names}\nextendedKeyUsage=serverAuth,clientAuth\n`)
    await succeed('openssl', [
      ...['x509', '-req', '-in', path('csr'), '-CA', this.path('pem'), '-CAkey', this.path('key')],
      ...['-CAcreateserial', '-days', '2', '-extfile', path('ext'), '-out', path('pem')],
    ])
    return { cert: path('pem'), key: path('key') }
  }

  /** What a client of that name brings. */
  async client(leaf: string): Promise<EtcdTls> {
    const { cert, key } = await this.issue(leaf, `DNS:${leaf}`)
    const [ca, certPem, keyPem] = await Promise.all(
      [this.path('pem'), cert, key].map(async file => readFile(file))
    )
    return { ca: ca!, cert: certPem!, key: keyPem! }
  }
}

describe('the coordinator on etcd with mutual TLS', function () {
  let directory: string
  let cluster: EtcdCluster
  let ours: EtcdTls
  let theirs: EtcdTls
  const ended: (() => Promise<void>)[] = []

  before(async function () {
    if (!hasEtcd() || !hasProgram('openssl')) this.skip()
    directory = await mkdtemp(join(tmpdir(), 'xosan-etcd-tls-'))
    const [authority, stranger] = await Promise.all([
      TestAuthority.make(directory, 'ours'),
      TestAuthority.make(directory, 'theirs'),
    ])
    const server = await authority.issue('server', `IP:127.0.0.1,DNS:${SERVER_NAME}`)
    ours = await authority.client('client')
    theirs = await stranger.client('client')
    cluster = await EtcdCluster.start({ members: 1, tls: { ca: authority.path('pem'), ...server } })
  })
  afterEach(async () => {
    for (const end of ended.splice(0)) await end()
  })
  after(async () => {
    await (cluster as EtcdCluster | undefined)?.end()
    if ((directory as string | undefined) !== undefined) await rm(directory, { recursive: true, force: true })
  })

  function open(tls: EtcdTls, tlsName?: string) {
    const [member] = cluster.members
    const client = openClient([{ ...member!, ...(tlsName === undefined ? {} : { tlsName }) }], { tls })
    ended.push(async () => client.close())
    return client
  }

  it('serves a client of the same authority, by address and by name', async () => {
    const client = open(ours)
    assert.equal(await eventually(async () => (await client.list('a')).entries.length), 0)
    assert.equal(await create(client, 'a'), 'committed')
    assert.equal((await open(ours, SERVER_NAME).read('a')).entry?.value, 'x')
  })

  it('answers an administrator, also about one member', async () => {
    const target = { members: cluster.members, tls: ours }
    const admin = new EtcdAdmin({ target, clock: createNodeClock(), random: nodeRandom })
    ended.push(async () => admin.close())
    const [member] = await eventually(async () => admin.members())
    const status = await admin.status(cluster.members[0]!)
    assert.deepEqual([member?.id, member?.learner], [status.leader, false])
  })

  it('refuses a client of another authority, which learns that nothing was done', async () => {
    const { ca } = ours
    const intruder = open({ ...theirs, ca })
    const reading = assert.rejects(intruder.read('a'), error => hasCode(error, 'COORDINATOR_UNAVAILABLE'))
    assert.equal(await create(intruder, 'intruder'), 'unavailable')
    await reading
    assert.equal((await open(ours).read('intruder')).entry, null)
  })

  it('refuses a client without a certificate', async () => {
    const socket = connect({
      host: '127.0.0.1',
      port: cluster.members[0]!.port,
      ca: ours.ca,
      ALPNProtocols: ['h2'],
    })
    // With TLS 1.3 the handshake looks done to the client before the server has refused it.
    const error = await new Promise<Error | null>(resolve => {
      socket.once('error', resolve)
      socket.once('close', () => resolve(null))
      socket.on('data', () => undefined)
    })
    assert.match(error?.message ?? 'closed', /bad certificate|certificate required|ECONNRESET|closed/)
  })

  it('is not taken in by a member of another authority, or of another name', async () => {
    const strangers = [open({ ...ours, ca: theirs.ca }), open(ours, 'host-2.xosan.test')]
    const outcomes = await Promise.all(strangers.map(async client => create(client, 'stranger')))
    assert.deepEqual(outcomes, ['unavailable', 'unavailable'])
  })

  it('goes on with new certificates', async () => {
    const client = open(theirs)
    client.retarget({ members: cluster.members, tls: { ...ours } })
    assert.equal(await eventually(async () => (await client.list('none')).entries.length), 0)
  })

  it('does without encryption on the loopback only', () => {
    for (const address of ['10.0.0.1', '::1', 'localhost', '127.0.0.1.example.org']) {
      assert.throws(
        () => openClient([{ address, port: 2379 }]),
        error => hasCode(error, 'INVALID_ARGUMENT')
      )
    }
    assert.throws(
      () => openClient(cluster.members, { tls: { ...ours, key: Buffer.from('no key') } }),
      error => hasCode(error, 'INVALID_ARGUMENT') && !error.message.includes('no key')
    )
  })
})
