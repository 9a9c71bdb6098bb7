import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { connect } from 'node:tls'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { z } from 'zod'
import { callEntryScript } from '../../../cli/lab/entry-script.ts'
import { connectDisk } from '../../../cli/lab/guest-disk.ts'
import { labDown, labHost, labUp } from '../../../cli/lab/lab.ts'
import { createSr, createVolume, openVolume, type PoolHost } from '../../../cli/lab/pool.ts'
import { programsDirectory } from '../../../daemon/supervision/programs.ts'
import { byteOffset, type HostId } from '../../../core/units.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { RpcClient } from '../../../rpc/client.ts'
import { controlApi } from '../../../rpc/control-api.ts'
import { createHostKey } from '../../../trust/authority.ts'
import { TrustDirectory } from '../../../trust/trust-directory.ts'
import { hasEtcd } from '../../support/etcd-cluster.ts'

const configSchema = z.looseObject({
  pool: z.object({ kind: z.literal('sockets'), hosts: z.array(z.looseObject({ name: z.string() })) }),
})
const CREATE_MS = 120_000
const MIB = 1024 * 1024

describe('a cluster on etcd', function () {
  this.timeout(CREATE_MS * 2)
  let directory: string
  let hosts: readonly PoolHost[]

  before(async function () {
    if (!hasEtcd()) this.skip()
    directory = await mkdtemp(join(tmpdir(), 'xosan-growth-'))
    const options = { hosts: 3, datapaths: 1, programs: programsDirectory(), coordinator: 'etcd' as const }
    hosts = (await labUp(join(directory, 'lab'), { ...options, bare: true }, () => undefined)).hosts
    await isAlone(hosts[0]!)
    await Promise.all(hosts.map(async ({ name }) => (await labHost(join(directory, 'lab'), name)).start()))
  })
  after(async () => {
    if ((directory as string | undefined) === undefined) return
    await labDown(join(directory, 'lab'), false, () => undefined)
    await rm(directory, { recursive: true, force: true })
  })

  /** As far as this host knows, the pool has no other. */
  async function isAlone({ name }: PoolHost): Promise<void> {
    const file = join(directory, 'lab', name, 'config.json')
    const config = configSchema.parse(JSON.parse(await readFile(file, 'utf8')))
    config.pool.hosts = config.pool.hosts.filter(host => host.name === name)
    await writeFile(file, JSON.stringify(config))
  }

  async function status(host: PoolHost) {
    const client = new RpcClient({ address: host.controlSocket, clock: createNodeClock() })
    try {
      return await client.call('status', {}, controlApi.status.result, { deadlineMs: 10_000 })
    } finally {
      client.close()
    }
  }

  async function untilMembers(count: number): Promise<void> {
    const end = performance.now() + CREATE_MS
    for (;;) {
      const told = await Promise.all(hosts.slice(0, 1).map(status))
      if (told.every(({ cluster }) => cluster?.etcdMembers.length === count)) return
      assert.ok(performance.now() < end, JSON.stringify(told))
      await delay(200)
    }
  }

  it('grows from one host to three, with the members of etcd, while a guest writes', async () => {
    const { sr, deviceConfig } = await createSr(hosts.slice(0, 1), randomUUID(), { copies: '1' })
    assert.equal((await status(hosts[0]!)).cluster?.etcdMembers.length, 1)
    const volume = await createVolume(hosts[0]!, sr, 'first', 16 * MIB)
    const disk = await connectDisk(await openVolume(hosts[0]!, volume))
    let writing = true
    const writes = (async () => {
      for (let i = 0; writing; i++) {
        await disk.write({ offset: byteOffset((i % 16) * MIB), data: Buffer.alloc(4096, i), durable: true })
      }
    })()
    for (const host of hosts.slice(1)) {
      await callEntryScript(host.pluginRoot, 'volume', 'SR.attach', {
        dbg: 'test',
        configuration: deviceConfig,
      })
    }
    await untilMembers(3)
    writing = false
    await writes
    await disk.close()
    // A host that came later is one like the others: a volume can be made there, and opened.
    const second = await createVolume(hosts[2]!, sr, 'second', 16 * MIB)
    await (await connectDisk(await openVolume(hosts[2]!, second))).close()
    assert.equal((await status(hosts[2]!)).srs[0]?.volumes, 2)
  })

  it('comes back when all of its hosts lose power at once', async () => {
    const controls = await Promise.all(hosts.map(({ name }) => labHost(join(directory, 'lab'), name)))
    await Promise.all(controls.map(control => control.kill()))
    await Promise.all(controls.map(control => control.start()))
    const end = performance.now() + CREATE_MS
    while (!(await status(hosts[1]!)).coordinator.reachable) {
      assert.ok(performance.now() < end, 'the coordinator is not back')
      await delay(200)
    }
    const [{ sr } = { sr: '' }] = (await status(hosts[1]!)).srs
    const volume = await createVolume(hosts[1]!, sr, 'third', 16 * MIB)
    await (await connectDisk(await openVolume(hosts[1]!, volume))).close()
  })

  it('gives the authority to another host when the one that held it is lost, and etcd trusts the old one no more', async () => {
    const [h1, h2, h3] = hosts as readonly [PoolHost, PoolHost, PoolHost]
    const old = (await (
      await TrustDirectory.open(join(directory, 'lab', h1.name, 'state/trust'))
    ).authority())!
    const { keyPem, csrPem } = await createHostKey()
    const request = { csrPem, host: h1.uuid as HostId, addresses: [h1.address], now: new Date() }
    const forged = { key: keyPem, cert: await old.issue(request) }
    assert.equal(await etcdLetsIn(h2, forged), true, 'etcd knows no list of members')
    await (await labHost(join(directory, 'lab'), h1.name)).kill()

    const client = new RpcClient({ address: h2.controlSocket, clock: createNodeClock() })
    const { result } = controlApi['host.remove']
    const removed = await client.call('host.remove', { host: 'h1' }, result, { deadlineMs: CREATE_MS })
    client.close()
    assert.deepEqual(removed, { host: h1.uuid, revoked: true, successor: h2.uuid })
    for (const host of [h2, h3]) assert.equal(await etcdLetsIn(host, forged), false)
    const [{ sr } = { sr: '' }] = (await status(h3)).srs
    const volume = await createVolume(h3, sr, 'fourth', 16 * MIB)
    await (await connectDisk(await openVolume(h3, volume))).close()
  })
})

/** Whether etcd speaks to whoever shows this certificate. */
async function etcdLetsIn(
  host: PoolHost,
  own: { readonly key: string; readonly cert: string }
): Promise<boolean> {
  const socket = connect({
    ...own,
    host: host.address,
    port: 7750,
    ALPNProtocols: ['h2'],
    rejectUnauthorized: false,
  })
  try {
    return await new Promise<boolean>(resolve => {
      socket.once('data', () => resolve(true))
      socket.once('error', () => resolve(false))
      socket.once('close', () => resolve(false))
      // HTTP/2's preface and empty settings, to which a server answers with its own.
      socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
      socket.write(Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]))
    })
  } finally {
    socket.destroy()
  }
}
