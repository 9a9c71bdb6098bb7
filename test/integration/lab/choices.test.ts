/** What a lab is made of: with TLS or without, by etcd or by a file, with a witness. Stubs stand in for all programs. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rm, statfs, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { type HostControl } from '../../../cli/lab/host-control.ts'
import { type LabReport, labDown, labHost } from '../../../cli/lab/lab.ts'
import { labFile, readLab } from '../../../cli/lab/layout.ts'
import { type PoolHost, createSr } from '../../../cli/lab/pool.ts'
import { projectRoot } from '../../../daemon/supervision/programs.ts'
import { type Config, readConfig } from '../../../daemon/config.ts'
import { conditionOf, handleOf } from '../../../daemon/supervision/process-handle.ts'
// The build script is JavaScript: it must run before anything is compiled.
import { buildAll } from '../../../scripts/build.mjs'

const run = promisify(execFile)
const quiet = (): void => undefined

const programs = join(projectRoot(), 'node_modules', '.cache', `xosan-choices-test-${process.pid}`)

/** Idles as long as its host is there, and notes its orderly end beside its data. */
const FAKE_ETCD = `#!${process.execPath}
const { appendFileSync, existsSync } = require('node:fs')
const { join } = require('node:path')
const data = process.argv[process.argv.indexOf('--data-dir') + 1]
process.on('SIGTERM', () => {
  appendFileSync(join(data, '..', 'ended'), 'etcd\\n')
  process.exit(0)
})
setInterval(() => existsSync(join(data, '..')) || process.exit(0), 1000)
`

describe('a lab of choice', function () {
  this.timeout(120_000)
  let parent: string
  let directory: string
  let environment: NodeJS.ProcessEnv

  /** Runs the command where `etcd` is the fake one, or none at all. */
  const xosan = async <T>(...words: string[]): Promise<T> => {
    const { stdout } = await run(
      process.execPath,
      [join(programs, 'xosan.js'), ...words, '--dir', directory, '--json'],
      { timeout: 60_000, env: environment }
    )
    return JSON.parse(stdout) as T
  }
  const up = (...words: string[]): Promise<LabReport> =>
    xosan('lab', 'up', '--datapaths', '1', '--programs', programs, ...words)
  const fails = async (wanted: { code: string; exit: number; message: RegExp }, ...words: string[]) => {
    await assert.rejects(xosan(...words), error => {
      const { stdout, code } = error as { stdout: string; code: number }
      const said = JSON.parse(stdout) as { error: { code: string; message: string } }
      assert.deepEqual([said.error.code, code], [wanted.code, wanted.exit])
      assert.match(said.error.message, wanted.message)
      return true
    })
  }
  const configOf = (host: string): Promise<Config> => readConfig(join(directory, host, 'config.json'))
  const control = (host: string): Promise<HostControl> => labHost(directory, host)

  before(async () => {
    await buildAll(programs, {
      xosand: 'test/support/stub-program.ts',
      'xosan-datapath': 'test/support/stub-program.ts',
      'xosan-etcd-gate': 'test/support/stub-program.ts',
      'xosan-lab-host': 'cli/lab/supervisor.ts',
      xosan: 'cli/main.ts',
    })
    parent = await mkdtemp(join(tmpdir(), 'xosan-choices-'))
    const bin = join(parent, 'bin')
    await mkdir(bin)
    await writeFile(join(bin, 'etcd'), FAKE_ETCD, { mode: 0o755 })
    environment = { PATH: bin }
    directory = join(parent, 'lab')
  })
  afterEach(async () => {
    if (existsSync(directory)) await labDown(directory, false, quiet)
  })
  after(async () => {
    await rm(parent, { recursive: true, force: true })
    await rm(programs, { recursive: true, force: true })
  })

  describe('by default', () => {
    it('has hosts that speak in clear on the loopback, and decide by a file', async () => {
      const { hosts } = await up('--hosts', '1')
      assert.deepEqual(Object.keys(hosts[0]!.pids), ['supervisor', 'xosand', 'datapath-0'])
      const { peers, pool, coordinator } = await configOf('h1')
      assert.deepEqual([peers, pool.kind, coordinator.kind], ['loopback', 'none', 'embedded'])
    })

    it('goes on when it was made before there was a choice', async () => {
      const before = await up('--hosts', '1')
      const { tls, coordinator, ...old } = JSON.parse(await readFile(labFile(directory), 'utf8')) as Record<
        string,
        unknown
      >
      assert.deepEqual([tls, coordinator], [false, 'embedded'])
      await writeFile(labFile(directory), JSON.stringify(old))
      assert.deepEqual(await up('--hosts', '1'), before)
      // Hosts with networks ran nothing then, because they could not encrypt.
      const network = { kind: 'netns', name: 'xosan-01234567' }
      await writeFile(labFile(directory), JSON.stringify({ ...old, network }))
      assert.equal((await readLab(directory))?.tls, true)
      await writeFile(labFile(directory), JSON.stringify(old))
    })

    it('is refused to whoever asks for another one, with what it is', async () => {
      await up('--hosts', '1', '--tls')
      const refused = (message: RegExp, ...words: string[]): Promise<void> =>
        fails({ code: 'INVALID_ARGUMENT', exit: 2, message }, 'lab', 'up', '--datapaths', '1', ...words)
      await refused(
        /it holds a lab without TLS|it holds a lab with TLS between its hosts \(--tls\)/,
        '--hosts',
        '1'
      )
      await refused(
        /with the coordinator embedded \(--coordinator\)/,
        '--hosts',
        '1',
        '--coordinator',
        'etcd'
      )
      await refused(/without a witness \(--witness\)/, '--hosts', '1', '--tls', '--witness')
      await refused(/of 1 hosts \(--hosts\), without a witness/, '--hosts', '2', '--tls', '--witness')
      await up('--hosts', '1', '--tls')
    })
  })

  it('tells every host who is in the pool when they speak with certificates', async () => {
    const { hosts } = await up('--hosts', '2', '--tls')
    for (const { name } of hosts) {
      const { peers, pool, coordinator } = await configOf(name)
      assert.deepEqual([peers, coordinator.kind], ['tls', 'embedded'])
      assert.deepEqual(
        pool.kind === 'sockets' && pool.hosts,
        hosts.map(({ uuid, name, address, controlSocket }) => ({ uuid, name, address, controlSocket }))
      )
      assert.ok(hosts.every(({ controlSocket }) => existsSync(controlSocket)))
    }
  })

  it('tells the hosts that are to lose what they have not synced, and no others', async () => {
    const words = ['--hosts', '2', '--power-cuts', 'h2']
    const lossOf = async (): Promise<unknown[]> =>
      Promise.all(['h1', 'h2'].map(async name => (await configOf(name)).lab?.unsyncedBytesMax))
    await up(...words)
    assert.deepEqual(await lossOf(), [undefined, 64 * 1024 * 1024])
    await up(...words)
    const message = /whose hosts h2 lose what they have not synced \(--power-cuts\)/
    const other = { code: 'INVALID_ARGUMENT', exit: 2, message }
    await fails(other, 'lab', 'up', '--datapaths', '1', '--hosts', '2', '--power-cuts', 'all')
    await labDown(directory, false, quiet)
    const unknown = { code: 'INVALID_ARGUMENT', exit: 2, message: /host h3.*h1, h2/ }
    await fails(unknown, 'lab', 'up', '--hosts', '2', '--power-cuts', 'h3', '--programs', programs)
  })

  it('gives each host a file system that can be filled, mounts it again, and leaves none behind', async function () {
    if (process.geteuid?.() !== 0) this.skip()
    environment = { PATH: `${join(parent, 'bin')}:${process.env['PATH'] ?? ''}` }
    const words = ['--hosts', '2', '--disk-size', '64']
    const { hosts } = await up(...words)
    const stores = hosts.map(({ name }) => join(directory, name, 'stores'))
    const sizes = await Promise.all(stores.map(async path => statfs(path)))
    for (const { blocks, bsize } of sizes) assert.ok(blocks * bsize < 64 * 1024 * 1024)
    await assert.rejects(writeFile(join(stores[0]!, 'balloon'), Buffer.alloc(80 * 1024 * 1024)), {
      code: 'ENOSPC',
    })
    await writeFile(join(stores[1]!, 'kept'), 'kept')
    await labDown(directory, true, quiet)
    assert.ok(!existsSync(join(stores[1]!, 'kept')))
    await up(...words)
    assert.equal(await readFile(join(stores[1]!, 'kept'), 'utf8'), 'kept')
    await labDown(directory, false, quiet)
    assert.ok(!existsSync(directory))
    assert.ok(!(await readFile('/proc/mounts', 'utf8')).includes(directory))
  })

  it('says what is missing for etcd, and makes nothing', async () => {
    environment = { PATH: join(parent, 'nothing') }
    try {
      const wanted = { code: 'PROGRAM_MISSING', exit: 1, message: /etcd.*etcd-server/ }
      await fails(wanted, 'lab', 'up', '--coordinator', 'etcd', '--programs', programs)
    } finally {
      environment = { PATH: join(parent, 'bin') }
    }
    assert.ok(!existsSync(directory))
  })

  describe('with etcd and a witness', () => {
    let hosts: LabReport['hosts']

    beforeEach(async () => {
      hosts = (await up('--hosts', '1', '--coordinator', 'etcd', '--witness')).hosts
    })

    it('has one host more, without datapath processes, of which xapi makes no use', async () => {
      assert.deepEqual(
        hosts.map(({ name, witness, pids }) => [name, witness, Object.keys(pids)]),
        [
          ['h1', undefined, ['supervisor', 'xosand', 'datapath-0', 'etcd']],
          ['w1', true, ['supervisor', 'xosand', 'etcd']],
        ]
      )
      for (const { name, uuid } of hosts) {
        const config = await configOf(name)
        assert.deepEqual(
          [config.host.uuid, config.datapaths, config.peers, config.coordinator.kind],
          [uuid, name === 'w1' ? 0 : 1, 'tls', 'etcd']
        )
        assert.equal(config.pool.kind === 'sockets' && config.pool.hosts.length, 2)
      }
      // The same lab when it is asked for again.
      assert.deepEqual(await up('--hosts', '1', '--coordinator', 'etcd', '--witness'), { hosts })
    })

    it('stops, continues and kills a member of etcd with its host', async () => {
      const h1 = await control('h1')
      const conditionOfAll = async () => {
        const { condition, processes } = await h1.status()
        return [condition, processes.find(({ name }) => name === 'etcd')?.condition]
      }
      await h1.pause()
      assert.deepEqual(await conditionOfAll(), ['paused', 'paused'])
      await h1.resume()
      assert.deepEqual(await conditionOfAll(), ['up', 'up'])
      const etcd = handleOf(hosts[0]!.pids['etcd']!)!
      await h1.kill()
      assert.deepEqual([...(await conditionOfAll()), conditionOf(etcd)], ['down', undefined, 'down'])
      assert.equal((await (await control('w1')).status()).condition, 'up')
      await h1.start()
      assert.deepEqual(await conditionOfAll(), ['up', 'up'])
    })

    it('ends a member of etcd in order after the others, when its host is shut down', async () => {
      assert.deepEqual(await (await control('h1')).shutdown(), [])
      const ended = await readFile(join(directory, 'h1', 'state', 'ended'), 'utf8')
      assert.equal(ended, 'datapath-0\nxosand\netcd\n')
    })

    it('ends a member of etcd whose xosand is gone, with the lab', async () => {
      const h1 = await control('h1')
      await h1.kill('supervisor')
      await h1.kill('xosand')
      const etcd = hosts.map(({ pids }) => handleOf(pids['etcd']!)!)
      assert.deepEqual(etcd.map(conditionOf), ['up', 'up'])
      await labDown(directory, false, quiet)
      assert.deepEqual(etcd.map(conditionOf), ['down', 'down'])
    })

    it('takes a host of which only the member of etcd lives for one that has not been down', async () => {
      const references = join((await configOf('h1')).runDirectory, 'references.json')
      await writeFile(references, '{}')
      const h1 = await control('h1')
      for (const name of ['supervisor', 'xosand', 'datapath-0']) await h1.kill(name)
      assert.equal((await h1.status()).condition, 'partly')
      await h1.start()
      assert.ok(existsSync(references))
    })

    it('does a drill to one program of a host only, if that runs', async () => {
      type Status = Awaited<ReturnType<HostControl['status']>>
      const pids = ({ processes }: Status) => new Map(processes.map(({ name, pid }) => [name, pid]))
      const before = pids(await (await control('h1')).status())

      const paused = await xosan<Status>('lab', 'pause', 'h1', '--process', 'datapath-0')
      assert.deepEqual(
        paused.processes.map(({ condition }) => condition),
        ['up', 'up', 'paused', 'up']
      )
      assert.equal((await xosan<Status>('lab', 'resume', 'h1', '--process', 'datapath-0')).condition, 'up')

      // Nobody starts the stand-in for etcd again; the host is up all the same.
      const killed = await xosan<Status>('lab', 'kill', 'h1', '--process', 'etcd')
      assert.equal(killed.condition, 'up')
      before.delete('etcd')
      assert.deepEqual(pids(killed), before)
      const message = /etcd of h1.*running are supervisor, xosand, datapath-0/
      const wanted = { code: 'INVALID_ARGUMENT', exit: 2, message }
      await fails(wanted, 'lab', 'kill', 'h1', '--process', 'etcd')
    })
  })

  it('attaches an SR on all hosts but the witness', async () => {
    const hostWith = async (name: string, witness: boolean): Promise<PoolHost> => {
      const pluginRoot = join(parent, name)
      const scripts = join(pluginRoot, 'volume', 'org.xen.xapi.storage.xosan')
      await mkdir(scripts, { recursive: true })
      for (const [script, answer] of [
        ['SR.create', '{"sr_uuid":"an-sr"}'],
        ['SR.attach', '"an-sr"'],
      ] as const) {
        const text = `#!/bin/sh\ncat >/dev/null; echo ${script} >>${pluginRoot}/calls; echo '${answer}'\n`
        await writeFile(join(scripts, script), text, { mode: 0o755 })
      }
      await writeFile(join(pluginRoot, 'calls'), '')
      const base = { name, uuid: name, address: '', pluginRoot, controlSocket: '', pids: {} }
      return witness ? { ...base, witness } : base
    }
    const hosts = [await hostWith('w1', true), await hostWith('h1', false), await hostWith('h2', false)]
    assert.equal((await createSr(hosts, 'an-sr', {})).sr, 'an-sr')
    const calls = await Promise.all(hosts.map(host => readFile(join(host.pluginRoot, 'calls'), 'utf8')))
    assert.deepEqual(calls, ['', 'SR.create\nSR.attach\n', 'SR.attach\n'])
  })
})
