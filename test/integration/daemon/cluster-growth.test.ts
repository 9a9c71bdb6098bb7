import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { z } from 'zod'
import { callEntryScript } from '../../../cli/lab/entry-script.ts'
import { connectDisk } from '../../../cli/lab/guest-disk.ts'
import { labDown, labHost, labUp } from '../../../cli/lab/lab.ts'
import { createSr, createVolume, openVolume, type PoolHost } from '../../../cli/lab/pool.ts'
import { programsDirectory } from '../../../cli/lab/programs.ts'
import { byteOffset } from '../../../core/units.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { RpcClient } from '../../../rpc/client.ts'
import { controlApi } from '../../../rpc/control-api.ts'
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
})
