import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { existsSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { volumeStateKey } from '../../../cluster/keys.ts'
import { type SrId, type VolumeKey } from '../../../core/units.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { RpcClient } from '../../../rpc/client.ts'
import { controlApi } from '../../../rpc/control-api.ts'
import { type PoolHost, run, SmapiPool, until } from '../../support/smapi-pool.ts'

interface Volume {
  key: string
  uuid: string
  name: string
  description: string
  read_write: boolean
  sharable: boolean
  virtual_size: number
  physical_utilisation: number
  uri: string[]
  keys: Record<string, string>
}

const MIB = 1024 * 1024

describe('the entry scripts', function () {
  this.timeout(60_000)
  let pool: SmapiPool
  let h1: PoolHost
  let h2: PoolHost
  let h3: PoolHost
  const sr = randomUUID()
  let deviceConfig: Record<string, string>

  const newVolume = (host: PoolHost, name = 'disk', size: number | string = 8 * MIB) =>
    host.call<Volume>('Volume.create', { sr, name, description: 'd', size, sharable: false })

  before(async () => {
    pool = await SmapiPool.up(3)
    ;[h1, h2, h3] = pool.hosts as [PoolHost, PoolHost, PoolHost]
    deviceConfig = await h1.call('SR.create', {
      uuid: sr,
      configuration: {},
      name: 'xosan',
      description: 'x',
    })
  })

  after(async () => {
    await pool.down()
  })

  const fails = async (
    host: PoolHost,
    name: string,
    parameters: Record<string, never> | object,
    code: string
  ) => {
    const { exit, stdout, stderr } = await host.runJson(name, parameters as never)
    assert.equal(stderr, '')
    assert.notEqual(exit, 0)
    const error = JSON.parse(stdout) as { code: string; params: string[]; backtrace: object }
    assert.deepEqual(Object.keys(error), ['code', 'params', 'backtrace'])
    assert.deepEqual(Object.keys(error.backtrace), ['error', 'files', 'lines'])
    assert.ok(error.params.every(param => typeof param === 'string'))
    assert.equal(error.code, code)
    return error.params.join(' ')
  }

  it('answer Plugin.Query and the other plugin calls in both conventions', async () => {
    const query = await h1.call<Record<string, unknown>>('Plugin.Query')
    assert.equal(query['required_api_version'], '5.0')
    assert.deepEqual(query['required_cluster_stack'], [])
    assert.deepEqual(await h1.callPositional('Plugin.Query'), query)
    const datapath = h1.script('Datapath.attach').replace('Datapath.attach', 'Plugin.Query')
    assert.equal((JSON.parse((await run([datapath, 'dbg'])).stdout) as { plugin: string }).plugin, 'xosan')
    assert.match(await h1.call<string>('Plugin.diagnostics'), /XOSAN/)
    assert.deepEqual(await h1.callPositional('Plugin.ls'), [sr])
  })

  it('make an SR whose device_config attaches it on every host, in both conventions', async () => {
    assert.equal(deviceConfig['sr_uuid'], sr)
    assert.ok(Object.values(deviceConfig).every(value => typeof value === 'string'))
    const words = Object.entries(deviceConfig).flatMap(([key, value]) => ['--configuration', key, value])
    for (const host of pool.hosts) {
      assert.equal(await host.call('SR.attach', { configuration: deviceConfig }), sr)
      assert.equal(await host.callPositional('SR.attach', ...words), sr)
      assert.ok(existsSync(join(host.storePath, 'xosan', sr, host.uuid, 'store.json')))
    }
    assert.equal(await h2.call('SR.detach', { sr }), null)
    assert.equal(await h2.callPositional('SR.detach', 'no such SR'), null)
  })

  it('give the same answer to the same SR.create again, and refuse a different one', async () => {
    const parameters = { uuid: sr, configuration: {}, name: 'xosan', description: 'x' }
    assert.deepEqual(await h2.call('SR.create', parameters), deviceConfig)
    await fails(h2, 'SR.create', { ...parameters, configuration: { copies: '3' } }, 'SR_BACKEND_FAILURE_42')
  })

  it('tell the figures of an SR, and find it by probing', async () => {
    const stat = await h1.call<Record<string, unknown>>('SR.stat', { sr })
    assert.deepEqual(
      { sr: stat['sr'], name: stat['name'], uuid: stat['uuid'], clustered: stat['clustered'] },
      { sr, name: 'xosan', uuid: sr, clustered: true }
    )
    assert.deepEqual((stat['health'] as string[])[0], 'Healthy')
    assert.ok(Number.isSafeInteger(stat['free_space']) && (stat['free_space'] as number) > 0)
    assert.ok((stat['total_space'] as number) >= (stat['free_space'] as number))
    const probed = await h2.call<{ configuration: object; complete: boolean; sr?: { uuid: string } }[]>(
      'SR.probe',
      {
        configuration: {},
      }
    )
    assert.equal(probed.length, 1)
    assert.deepEqual(probed[0]!.configuration, deviceConfig)
    assert.equal(probed[0]!.sr!.uuid, sr)
    const fresh = await h2.call<object[]>('SR.probe', { configuration: { path: '/nowhere' } })
    assert.deepEqual(fresh, [{ configuration: { path: '/nowhere' }, complete: true, extra_info: {} }])
  })

  it('rename an SR', async () => {
    assert.equal(await h2.call('SR.set_name', { sr, new_name: 'other' }), null)
    assert.equal(await h2.callPositional('SR.set_description', sr, 'words of mine'), null)
    const { name, description } = await h2.call<{ name: string; description: string }>('SR.stat', { sr })
    assert.deepEqual({ name, description }, { name: 'other', description: 'words of mine' })
  })

  it('refuse an SR with unknown or wrong device-config and leave nothing behind', async () => {
    const uuid = randomUUID()
    const create = (configuration: object) => ({ uuid, configuration, name: '', description: '' })
    assert.match(
      await fails(h1, 'SR.create', create({ pth: '/x' }), 'SR_BACKEND_FAILURE_1'),
      /pth; known are path, copies, headroom/
    )
    await fails(h1, 'SR.create', create({ path: 'relative' }), 'SR_BACKEND_FAILURE_1')
    await fails(h1, 'SR.create', create({ copies: '0' }), 'SR_BACKEND_FAILURE_1')
    await fails(h1, 'SR.create', create({ headroom: '110%' }), 'SR_BACKEND_FAILURE_1')
    await fails(h1, 'SR.create', create({ copies: '4' }), 'SR_BACKEND_FAILURE_47')
    await fails(h1, 'SR.create', create({ path: '/nonexistent/directory' }), 'SR_BACKEND_FAILURE_1')
    // Only h1 has this directory: the others refuse, after h1 has been asked.
    await fails(h1, 'SR.create', create({ path: '/proc' }), 'SR_BACKEND_FAILURE_1')
    const { entries } = await pool.coordinator.list(`srs/${uuid}/`)
    assert.deepEqual(entries, [])
    for (const host of pool.hosts) assert.ok(!existsSync(join(host.storePath, 'xosan', uuid)))
  })

  it('destroy an empty SR with its stores, and refuse one that holds volumes', async () => {
    const uuid = randomUUID()
    await h2.call('SR.create', { uuid, configuration: { copies: '1' }, name: '', description: '' })
    const volume = await h2.call<Volume>('Volume.create', {
      sr: uuid,
      name: '',
      description: '',
      size: 1,
      sharable: false,
    })
    await fails(h1, 'SR.destroy', { sr: uuid }, 'SR_BACKEND_FAILURE_39')
    await h1.call('Volume.destroy', { sr: uuid, key: volume.key })
    assert.equal(await h3.call('SR.destroy', { sr: uuid }), null)
    assert.equal(await h3.call('SR.destroy', { sr: uuid }), null)
    for (const host of pool.hosts) {
      assert.ok(!existsSync(join(host.storePath, 'xosan', uuid)))
      assert.ok(existsSync(join(host.storePath, 'xosan', sr)))
    }
    await fails(h1, 'SR.stat', { sr: uuid }, 'SR_BACKEND_FAILURE_47')
    const { entries } = await pool.coordinator.list(`srs/${uuid}/`)
    assert.deepEqual(entries, [])
  })

  it('make a volume with two replicas, the first on the calling host, and describe it the same everywhere', async () => {
    const volume = await newVolume(h2)
    assert.equal(volume.virtual_size, 8 * MIB)
    assert.deepEqual(volume.uri, [`xosan://${sr}/${volume.key}`])
    assert.equal(volume.uuid, volume.key)
    assert.equal('volume_type' in volume || 'cbt_enabled' in volume, false)
    for (const host of pool.hosts) {
      const stat = await host.call<Volume>('Volume.stat', {
        sr,
        key: volume.key,
      })
      // The space it takes is measured in the background.
      assert.deepEqual({ ...stat, physical_utilisation: 0 }, { ...volume, physical_utilisation: 0 })
    }
    const holders = pool.hosts.filter(({ datapath }) => [...datapath.replicas.values()].includes(volume.key))
    assert.equal(holders.length, 2)
    assert.ok(holders.includes(h2))
  })

  it('round sizes up to 2 MiB, and take them as numbers and as text', async () => {
    assert.equal((await newVolume(h1, 'a', 4 * MIB + 1)).virtual_size, 6 * MIB)
    assert.equal((await newVolume(h1, 'b', String(5 * MIB))).virtual_size, 6 * MIB)
    assert.equal((await newVolume(h1, 'c', 0)).virtual_size, 2 * MIB)
    const positional = await h1.callPositional<Volume>('Volume.create', sr, 'd', 'text', '266240', 'false')
    assert.equal(positional.virtual_size, 2 * MIB)
    await fails(
      h1,
      'Volume.create',
      { sr, name: '', description: '', size: -1, sharable: false },
      'SR_BACKEND_FAILURE_1'
    )
    await fails(
      h1,
      'Volume.create',
      { sr, name: '', description: '', size: 1.5, sharable: false },
      'SR_BACKEND_FAILURE_1'
    )
    const sharable = { sr, name: '', description: '', size: 1, sharable: true }
    assert.match(await fails(h1, 'Volume.create', sharable, 'SR_BACKEND_FAILURE_38'), /sharable/)
  })

  it('keep names as they are', async () => {
    const names = ['', '.', '..', '/', '!', 'x'.repeat(128), 'é "quoted" \\ \n\t 漢字 \u0001']
    for (const name of names) {
      const { key } = await newVolume(h1, name)
      assert.equal((await h3.call<Volume>('Volume.stat', { sr, key })).name, name)
      await h3.callPositional('Volume.set_name', sr, key, name === '' ? 'y' : '')
      assert.equal((await h3.call<Volume>('Volume.stat', { sr, key })).name, name === '' ? 'y' : '')
    }
  })

  it('lose none of several keys that are set at the same time from different hosts', async () => {
    const { key } = await newVolume(h1)
    await Promise.all(
      Array.from({ length: 5 }, (_, i) =>
        pool.hosts[i % 3]!.call('Volume.set', { sr, key, k: `k${i}`, v: `v${i}` })
      )
    )
    const settled = await h1.call<Volume[]>('SR.ls', { sr })
    assert.deepEqual(settled.find(volume => volume.key === key)!.keys, {
      k0: 'v0',
      k1: 'v1',
      k2: 'v2',
      k3: 'v3',
      k4: 'v4',
    })
    await h2.callPositional('Volume.unset', sr, key, 'k3')
    await h2.call('Volume.unset', { sr, key, k: 'was never there' })
    await h2.callPositional('Volume.set_description', sr, key, 'new words')
    const { keys, description } = await h2.call<Volume>('Volume.stat', { sr, key })
    assert.deepEqual(keys, { k0: 'v0', k1: 'v1', k2: 'v2', k4: 'v4' })
    assert.equal(description, 'new words')
  })

  it('grow a volume that is closed, and refuse to shrink it or to grow one that is active', async () => {
    const { key, uri } = await newVolume(h1)
    assert.equal(await h2.call('Volume.resize', { sr, key, new_size: 9 * MIB }), null)
    assert.equal((await h2.call<Volume>('Volume.stat', { sr, key })).virtual_size, 10 * MIB)
    await fails(h1, 'Volume.resize', { sr, key, new_size: 2 * MIB }, 'SR_BACKEND_FAILURE_38')
    await h1.call('Datapath.attach', { uri: uri[0]!, domain: '1' })
    await h1.call('Datapath.activate', { uri: uri[0]!, domain: '1' })
    await fails(h2, 'Volume.resize', { sr, key, new_size: 20 * MIB }, 'SR_BACKEND_FAILURE_24')
    await fails(h2, 'Volume.destroy', { sr, key }, 'SR_BACKEND_FAILURE_24')
    await h1.call('Datapath.deactivate', { uri: uri[0]!, domain: '1' })
    await h1.call('Volume.resize', { sr, key, new_size: 20 * MIB })
  })

  it('list every volume, the same twice, and none that is destroyed', async () => {
    const first = await h1.call<Volume[]>('SR.ls', { sr })
    const { key } = await newVolume(h3)
    const keys = (volumes: Volume[]) => volumes.map(volume => volume.key).sort()
    const second = await h2.callPositional<Volume[]>('SR.ls', sr)
    assert.deepEqual(keys(second), [...keys(first), key].sort())
    assert.deepEqual(keys(await h1.call('SR.ls', { sr })), keys(second))
    assert.equal(await h2.call('Volume.destroy', { sr, key }), null)
    assert.equal(await h3.call('Volume.destroy', { sr, key }), null)
    assert.deepEqual(keys(await h1.call('SR.ls', { sr })), keys(first))
    await fails(h1, 'Volume.stat', { sr, key }, 'SR_BACKEND_FAILURE_46')
    await until('its replicas are deleted and the tombstones gone', async () => {
      const { entries } = await pool.coordinator.list(`srs/${sr}/tombstones/`)
      return (
        entries.length === 0 &&
        pool.hosts.every(({ datapath }) => ![...datapath.replicas.values()].includes(key))
      )
    })
  })

  it('attach, activate, deactivate and detach by domain, each as often as one likes', async () => {
    const { key, uri: uris } = await newVolume(h1)
    const uri = uris[0]!
    const held = { uri, domain: '5' }
    const other = { uri, domain: 'u0_dom' }
    const expected = {
      implementations: [['Nbd', { uri: `nbd:unix:/run/fake/${key}.sock:exportname=${key}` }]],
    }
    assert.equal(await h1.call('Datapath.open', { uri, persistent: true }), null)
    await fails(h1, 'Datapath.open', { uri, persistent: false }, 'SR_BACKEND_FAILURE_38')
    assert.deepEqual(await h1.call('Datapath.attach', held), expected)
    assert.deepEqual(await h1.callPositional('Datapath.attach', uri, '5'), expected)
    assert.deepEqual(await h1.call('Datapath.attach', other), expected)
    assert.equal(await h1.call('Datapath.activate', held), null)
    assert.equal(await h1.callPositional('Datapath.activate', uri, '5'), null)
    assert.equal(await h1.call('Datapath.activate', other), null)
    await h1.call('Datapath.deactivate', held)
    assert.ok(h1.datapath.serving.has(key as never), 'the other domain still has it')
    await h1.callPositional('Datapath.deactivate', uri, 'u0_dom')
    assert.ok(!h1.datapath.serving.has(key as never))
    await h1.call('Datapath.deactivate', other)
    await h1.call('Datapath.deactivate', { uri, domain: '' })
    await h1.call('Datapath.detach', held)
    assert.ok(h1.datapath.attached.has(key as never))
    await h1.call('Datapath.detach', other)
    await h1.call('Datapath.detach', other)
    assert.ok(!h1.datapath.attached.has(key as never))
    assert.equal(await h1.callPositional('Datapath.close', uri), null)
  })

  it('let one host have a volume at a time, and the next one after it', async () => {
    const { uri: uris } = await newVolume(h1)
    const held = { uri: uris[0]!, domain: '0' }
    await h1.call('Datapath.attach', held)
    await h2.call('Datapath.attach', held)
    await h1.call('Datapath.activate', held)
    assert.match(await fails(h2, 'Datapath.activate', held, 'SR_BACKEND_FAILURE_24'), new RegExp(h1.uuid))
    await h1.call('Datapath.deactivate', held)
    await h2.call('Datapath.activate', held)
    await h2.call('Datapath.deactivate', { ...held, domain: '' })
  })

  it('move an empty replica to the host of the first activation, and no other', async () => {
    const { key, uri: uris } = await newVolume(h1)
    const without = pool.hosts.find(({ datapath }) => ![...datapath.replicas.values()].includes(key))!
    const held = { uri: uris[0]!, domain: '7' }
    await without.call('Datapath.attach', held)
    await without.call('Datapath.activate', held)
    assert.ok([...without.datapath.replicas.values()].includes(key))
    await until('two replicas are left', () => {
      const holders = pool.hosts.filter(({ datapath }) => [...datapath.replicas.values()].includes(key))
      return holders.length === 2
    })
    await without.call('Datapath.deactivate', held)
    const next = pool.hosts.find(({ datapath }) => ![...datapath.replicas.values()].includes(key))!
    await next.call('Datapath.activate', held)
    assert.ok(![...next.datapath.replicas.values()].includes(key), 'it may hold data now')
    await next.call('Datapath.detach', held)
  })

  it('serve 32 calls at once', async () => {
    const volumes = await Promise.all(
      Array.from({ length: 32 }, (_, i) => newVolume(pool.hosts[i % 3]!, `n${i}`))
    )
    assert.equal(new Set(volumes.map(({ key }) => key)).size, 32)
    const stats = await Promise.all(
      volumes.map(({ key }, i) => pool.hosts[(i + 1) % 3]!.call<Volume>('Volume.stat', { sr, key }))
    )
    assert.deepEqual(
      stats.map(({ name }) => name),
      volumes.map(({ name }) => name)
    )
    await Promise.all(volumes.map(({ key }) => h1.call('Volume.destroy', { sr, key })))
  })

  it('leave the status of a host readable when a volume is not', async () => {
    const uuid = randomUUID() as SrId
    await h1.call('SR.create', { uuid, configuration: {}, name: 'other', description: '' })
    const key = volumeStateKey(uuid, randomUUID() as VolumeKey)
    await pool.coordinator.transact([], [{ key, value: '{"version":2}' }])
    try {
      await until('its list fails', async () => (await h1.runJson('SR.ls', { sr: uuid })).exit === 1)
      const client = new RpcClient({ address: h1.controlSocket, clock: createNodeClock() })
      const { status } = controlApi
      const { srs, warnings } = await client.call('status', {}, status.result, { deadlineMs: 10_000 })
      client.close()
      assert.equal(srs.find(other => other.sr === uuid)?.volumes, 1)
      assert.ok(warnings.some(warning => warning.includes(key)))
    } finally {
      await pool.coordinator.transact([], [{ key, value: null }])
    }
    await h1.call('SR.destroy', { sr: uuid })
  })

  it('forget a store that is not mounted, and say so', async () => {
    const { rename } = await import('node:fs/promises')
    const directory = join(h3.storePath, 'xosan')
    await rename(directory, `${directory}.away`)
    try {
      await fails(h3, 'SR.attach', { configuration: deviceConfig }, 'SR_BACKEND_FAILURE_47')
      assert.deepEqual(await readdir(h3.storePath), ['xosan.away'])
      const { health } = await h1.call<{ health: string[] }>('SR.stat', { sr })
      assert.equal(health[0], 'Healthy')
    } finally {
      await rename(`${directory}.away`, directory)
    }
    await h3.call('SR.attach', { configuration: deviceConfig })
  })
})
