import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { srKey, tombstonesPrefix, volumesPrefix } from '../../../cluster/keys.ts'
import { parseSrRecord } from '../../../cluster/records.ts'
import { type SrId, type VolumeKey } from '../../../core/units.ts'
import { type DatapathMethod } from '../../../rpc/datapath-api.ts'
import { SmapiPool, until, type PoolHost } from '../../support/smapi-pool.ts'

/** A moment at which xosand of the first host is killed. */
interface KillPoint {
  readonly name: string
  /** Arms it; `kill` is to be called when the moment has come. */
  readonly arm: (kill: () => void) => void
}

describe('xosand killed in the middle of a call', function () {
  this.timeout(120_000)
  let pool: SmapiPool
  let h1: PoolHost
  let h2: PoolHost

  before(async () => {
    pool = await SmapiPool.up(2)
    ;[h1, h2] = pool.hosts as [PoolHost, PoolHost]
  })

  after(async () => {
    await pool.down()
  })

  /** When an entry of the coordinator has a text that matches; seen after it was committed. */
  const whenRecorded = (prefix: string, pattern: RegExp): KillPoint => ({
    name: `after a record matches ${String(pattern)}`,
    arm: kill => {
      const found = async () => {
        const { revision } = await pool.coordinator.read('hosts')
        const watch = pool.coordinator.watch(prefix, revision, {
          changed: (_, events) => {
            if (!events.some(({ value }) => value !== null && pattern.test(value))) return
            watch.close()
            kill()
          },
          failed: error => assert.fail(error),
        })
      }
      void found()
    },
  })

  /** When a datapath process is asked something, before it does it or just after. */
  const whenAsked = (host: () => PoolHost, hostName: string, method: DatapathMethod): KillPoint[] => {
    const armed =
      (doFirst: boolean): KillPoint['arm'] =>
      kill => {
        host().datapath.before = called => {
          if (called !== method) return
          host().datapath.before = () => undefined
          if (doFirst) setImmediate(kill)
          else kill()
        }
      }
    return [
      { name: `when ${hostName} is asked for ${method}`, arm: armed(false) },
      { name: `just after ${hostName} was asked for ${method}`, arm: armed(true) },
    ]
  }

  /** Makes a call, kills xosand of h1 at the point, and starts it again. @returns whether the call had ended well */
  const killAt = async (point: KillPoint, call: () => Promise<{ exit: number | null }>): Promise<boolean> => {
    let reached = false
    point.arm(() => {
      reached = true
      void h1.signal('SIGKILL')
    })
    const { exit } = await call()
    await until(`xosand is killed ${point.name}`, () => reached)
    await h1.signal('SIGKILL')
    await h1.start()
    return exit === 0
  }

  const noneHalfDone = async (sr: SrId): Promise<boolean> => {
    const volumes = await pool.coordinator.list(volumesPrefix(sr))
    const tombstones = await pool.coordinator.list(tombstonesPrefix(sr))
    return tombstones.entries.length === 0 && !volumes.entries.some(({ value }) => value.includes('creating'))
  }

  it('leaves an SR that exists on all hosts, or nothing on any', async () => {
    const points = (sr: SrId): KillPoint[] => [
      whenRecorded(srKey(sr), /creating/),
      ...whenAsked(() => h1, 'h1', 'store.reload'),
      ...whenAsked(() => h2, 'h2', 'store.reload'),
      whenRecorded(
        srKey(sr),
        /"createdBy":"[^"]*","description":"","generation":1,"hosts":\[[^\]]*\],"name"/
      ),
    ]
    for (let i = 0; i < points(randomUUID() as SrId).length; i++) {
      const sr = randomUUID() as SrId
      const point = points(sr)[i]!
      const parameters = { uuid: sr, configuration: {}, name: 'x', description: '' }
      const wentWell = await killAt(point, () => h1.runJson('SR.create', parameters))
      await until(`the SR is there or gone, killed ${point.name}`, async () => {
        const { entry } = await pool.coordinator.read(srKey(sr))
        return entry === null || parseSrRecord(entry.key, entry.value).operation === undefined
      })
      const exists = (await pool.coordinator.read(srKey(sr))).entry !== null
      if (wentWell) assert.ok(exists)
      const { entries } = await pool.coordinator.list(`srs/${sr}/`)
      assert.equal(entries.length, exists ? 3 : 0, point.name)
      for (const host of pool.hosts) {
        assert.equal(
          existsSync(join(host.storePath, 'xosan', sr, host.uuid, 'store.json')),
          exists,
          point.name
        )
      }
      // The same call again makes it, whatever had become of the first.
      const deviceConfig = await h1.call('SR.create', parameters)
      for (const host of pool.hosts) await host.call('SR.attach', { configuration: deviceConfig })
      await h1.call('SR.destroy', { sr })
    }
  })

  it('leaves a volume with all its replicas, or none of either', async () => {
    const sr = randomUUID() as SrId
    await h2.call('SR.create', { uuid: sr, configuration: {}, name: 'x', description: '' })
    const points = [
      whenRecorded(volumesPrefix(sr), /creating/),
      ...whenAsked(() => h1, 'h1', 'replica.create'),
      ...whenAsked(() => h2, 'h2', 'replica.create'),
      whenRecorded(volumesPrefix(sr), /"layers":\[[^\]]*\],"mirrors":\[[^\]]*\]\],"primary"/),
    ]
    let made = 0
    for (const point of points) {
      const parameters = { sr, name: point.name, description: '', size: 1, sharable: false }
      const wentWell = await killAt(point, () => h1.runJson('Volume.create', parameters))
      await until(`nothing is left half-done, killed ${point.name}`, () => noneHalfDone(sr))
      const volumes = await h2.call<{ name: string; key: string }[]>('SR.ls', { sr })
      const found = volumes.find(({ name }) => name === point.name)
      if (wentWell) assert.ok(found !== undefined, point.name)
      if (found !== undefined) made += 1
      for (const host of pool.hosts) assert.equal(host.datapath.replicas.size, made, point.name)
    }
    const volumes = await h1.call<{ key: string }[]>('SR.ls', { sr })
    for (const { key } of volumes) await h1.call('Volume.destroy', { sr, key })
    await h1.call('SR.destroy', { sr })
  })

  it('forgets no domain that holds a volume', async () => {
    const sr = randomUUID()
    await h1.call('SR.create', { uuid: sr, configuration: {}, name: 'x', description: '' })
    const parameters = { sr, name: '', description: '', size: 1, sharable: false }
    const { key, uri } = await h1.call<{ key: string; uri: [string] }>('Volume.create', parameters)
    const holder = (domain: string) => ({ uri: uri[0], domain })
    for (const domain of ['1', '2']) {
      await h1.call('Datapath.attach', holder(domain))
      await h1.call('Datapath.activate', holder(domain))
    }
    await h1.signal('SIGKILL')
    await h1.start()
    await h1.call('Datapath.deactivate', holder('1'))
    assert.ok(h1.datapath.serving.has(key as never))
    await h1.call('Datapath.detach', holder('1'))
    assert.ok(h1.datapath.attached.has(key as never))
    // A datapath process that was started anew gets back what the other domain still holds.
    await h1.datapath.crashAndStart()
    await until('the volume is served again', () => h1.datapath.serving.has(key as never))
    assert.ok(h1.datapath.attached.has(key as never))
    await h1.call('Datapath.deactivate', holder('2'))
    await h1.call('Datapath.detach', holder('2'))
    assert.ok(!h1.datapath.serving.has(key as never) && !h1.datapath.attached.has(key as never))
  })

  it('waits for a primary that is silent, and is refused by one that has a guest', async () => {
    const sr = randomUUID()
    await h1.call('SR.create', { uuid: sr, configuration: {}, name: 'x', description: '' })
    const parameters = { sr, name: '', description: '', size: 1, sharable: false }
    const { key, uri } = await h1.call<{ key: string; uri: [string] }>('Volume.create', parameters)
    const held = { uri: uri[0], domain: '1' }
    await h1.call('Datapath.attach', held)
    await h1.call('Datapath.activate', held)
    await h2.call('Datapath.attach', held)
    assert.match((await h2.runJson('Datapath.activate', held)).stdout, /SR_BACKEND_FAILURE_24/)
    await h1.signal('SIGKILL')
    h2.datapath.calls.length = 0
    const activated = h2.call('Datapath.activate', held)
    await until('it has been refused and has tried again', () => {
      const attempts = h2.datapath.calls.filter(call => call === `volume.activate ${key}`)
      return attempts.length >= 2
    })
    await h1.datapath.release(sr as SrId, key as VolumeKey)
    assert.equal(await activated, null)
    await h2.call('Datapath.detach', held)
    await h1.start()
  })

  it('finishes what a datapath process could not be told of a detach', async () => {
    const sr = randomUUID()
    await h1.call('SR.create', { uuid: sr, configuration: {}, name: 'x', description: '' })
    const parameters = { sr, name: '', description: '', size: 1, sharable: false }
    const { key, uri } = await h1.call<{ key: string; uri: [string] }>('Volume.create', parameters)
    await h1.call('Datapath.attach', { uri: uri[0], domain: '1' })
    h1.datapath.before = method => {
      if (method !== 'volume.detach') return
      h1.datapath.before = () => undefined
      throw new Error('not now')
    }
    assert.equal(await h1.call('Datapath.detach', { uri: uri[0], domain: '1' }), null)
    await until('the volume is detached', () => !h1.datapath.attached.has(key as never))
  })

  it('lets a volume be destroyed whose host died with it', async () => {
    const sr = randomUUID()
    await h1.call('SR.create', { uuid: sr, configuration: {}, name: 'x', description: '' })
    const parameters = { sr, name: '', description: '', size: 1, sharable: false }
    const { key, uri } = await h1.call<{ key: string; uri: [string] }>('Volume.create', parameters)
    await h1.call('Datapath.attach', { uri: uri[0], domain: '1' })
    await h1.call('Datapath.activate', { uri: uri[0], domain: '1' })
    const busy = await h2.runJson('Volume.destroy', { sr, key })
    assert.match(busy.stdout, /SR_BACKEND_FAILURE_24/)
    // Never deactivated: the references are gone with the host, the record still names it.
    await h1.signal('SIGKILL')
    h1.datapath.serving.clear()
    await import('node:fs/promises').then(({ rm }) => rm(join(h1.directory, 'run', 'references.json')))
    await h1.start()
    assert.equal(await h1.call('Volume.destroy', { sr, key }), null)
  })
})
