/** etcd with the certificates of hosts, and clients that judge it by the list of members. */
import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { EtcdAdmin } from '../../../cluster/etcd/etcd-admin.ts'
import { type EtcdCoordinator } from '../../../cluster/etcd/etcd-coordinator.ts'
import { type EtcdMember } from '../../../cluster/etcd/member-link.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { nodeRandom } from '../../../daemon/ports/node-random.ts'
import { type HostCredentials } from '../../../trust/trust-directory.ts'
import { type TrustedTransport } from '../../../trust/trusted-transport.ts'
import { EtcdCluster, hasEtcd } from '../../support/etcd-cluster.ts'
import { TrustRig } from '../../support/trust-rig.ts'
import { create, eventually, openClient } from '../etcd/rig.ts'

/** On one machine every member's connections come from 127.0.0.1, whatever it listens on. */
const ONE_MACHINE = ['--experimental-peer-skip-client-san-verification']
const ADDRESSES = ['127.45.0.1', '127.45.0.2', '127.45.0.3'] as const

describe('etcd among the hosts of an SR', function () {
  this.timeout(60_000)
  let rig: TrustRig
  let directory: string
  const ended: (() => Promise<void> | void)[] = []

  before(function () {
    if (!hasEtcd()) this.skip()
  })
  beforeEach(async () => {
    rig = await TrustRig.create()
    directory = await mkdtemp(join(tmpdir(), 'xosan-etcd-trust-'))
  })
  afterEach(async () => {
    for (const end of ended.splice(0).reverse()) await end()
    rig.close()
    await rm(directory, { recursive: true })
  })

  /** Members of the SR, each with an address, a certificate, and its key and certificate in one file as hosts have it. */
  async function hosts(
    count: 1 | 3
  ): Promise<{ credentials: HostCredentials; address: string; pem: string }[]> {
    const authorities = join(directory, 'authorities.pem')
    await writeFile(authorities, rig.authority.certificatePem)
    return Promise.all(
      ADDRESSES.slice(0, count).map(async address => {
        const credentials = await rig.credentials(rig.identity(), [address])
        rig.enlist(credentials)
        const pem = join(directory, `${address}.pem`)
        await writeFile(pem, credentials.keyPem + credentials.certificatePem, { mode: 0o600 })
        return { credentials, address, pem, authorities }
      })
    )
  }

  async function start(
    members: { readonly address: string; readonly pem: string }[],
    flags: readonly string[]
  ): Promise<EtcdCluster> {
    const authorities = join(directory, 'authorities.pem')
    const cluster = await EtcdCluster.start({
      members: members.length as 1 | 3,
      hosts: members.map(member => ({ ...member, authorities })),
      flags,
    })
    ended.push(async () => cluster.end())
    return cluster
  }

  function open(transport: TrustedTransport, members: readonly EtcdMember[]): EtcdCoordinator {
    const client = openClient(members, { tls: transport.etcdTls() })
    ended.push(() => client.close())
    return client
  }

  it('forms with the certificates of hosts, and serves them by address', async () => {
    const warnings: Error[] = []
    const heard = (warning: Error) => void warnings.push(warning)
    process.on('warning', heard)
    ended.push(() => void process.off('warning', heard))
    const members = await hosts(3)
    const cluster = await start(members, ONE_MACHINE)
    const transport = rig.transport(members[0]!.credentials)
    const client = open(transport, cluster.members)
    await eventually(async () => client.list('a'))
    assert.equal(await create(client, 'a'), 'committed')
    const target = { members: cluster.members, tls: transport.etcdTls() }
    const admin = new EtcdAdmin({ target, clock: createNodeClock(), random: nodeRandom })
    ended.push(() => admin.close())
    for (const member of cluster.members) assert.notEqual((await admin.status(member)).leader, '0')
    assert.deepEqual(warnings, [])
  })

  it('is not believed on a host that was removed, whatever its certificate, and is on the others', async () => {
    const members = await hosts(3)
    const cluster = await start(members, ONE_MACHINE)
    const transport = rig.transport(members[0]!.credentials)
    await eventually(async () => open(transport, cluster.members).list('a'))
    rig.remove(members[2]!.credentials.identity.host)
    const removed = open(transport, [cluster.members[2]!])
    await assert.rejects(removed.list('a'), /is not on the list of members/)
    assert.equal(await create(open(transport, cluster.members.slice(0, 2)), 'a'), 'committed')
  })

  it('is not believed at another address than its host has', async () => {
    const [member] = await hosts(1)
    const cluster = await start([{ ...member!, address: '127.45.0.8' }], [])
    const client = open(rig.transport(member!.credentials), cluster.members)
    await eventually(async () => assert.rejects(client.list('a'), /127\.45\.0\.8 is not in the cert/))
  })

  it('is given a new certificate when the host has one, and only then', async () => {
    const [member] = await hosts(1)
    const cluster = await start([member!], [])
    const transport = rig.transport(member!.credentials)
    const client = open(transport, cluster.members)
    await eventually(async () => client.list('a'))
    const before = transport.etcdTls()
    assert.equal(transport.etcdTls(), before)
    const renewed = await rig.credentials(member!.credentials.identity)
    transport.use(renewed)
    assert.equal(transport.etcdTls().cert.toString(), renewed.certificatePem)
    client.retarget({ members: cluster.members, tls: transport.etcdTls() })
    assert.equal(await create(client, 'a'), 'committed')
  })
})
