import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { type HostStatus } from '../../../cli/lab/host-control.ts'
import { type LabReport } from '../../../cli/lab/lab.ts'
import { conditionOf, handleOf, signal } from '../../../daemon/supervision/process-handle.ts'
import { projectRoot } from '../../../daemon/supervision/programs.ts'
import { parseConfig } from '../../../daemon/config.ts'
// The build script is JavaScript: it must run before anything is compiled.
import { buildAll } from '../../../scripts/build.mjs'

const run = promisify(execFile)

const programs = join(projectRoot(), 'node_modules', '.cache', `xosan-lab-test-${process.pid}`)

/** Runs the bundled command as a caller does that reads standard output to its end. */
async function xosan<T>(...words: string[]): Promise<T> {
  const { stdout } = await run(process.execPath, [join(programs, 'xosan.js'), ...words, '--json'], {
    timeout: 60_000,
  })
  return JSON.parse(stdout) as T
}

async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + 15_000
  while (!(await holds())) {
    assert.ok(performance.now() < end, `${what}: not within 15 s`)
    await delay(20)
  }
}

const pidOf = ({ processes }: HostStatus, name: string): number => {
  const pid = processes.find(process => process.name === name)?.pid
  assert.ok(typeof pid === 'number', `${name} has no pid`)
  return pid
}

describe('xosan lab', function () {
  this.timeout(120_000)
  let parent: string
  let directory: string
  let report: LabReport

  const statusOf = async (host: string): Promise<HostStatus> => {
    const { hosts } = await xosan<{ hosts: HostStatus[] }>('lab', 'status', '--dir', directory)
    return hosts.find(({ name }) => name === host)!
  }
  const restartsOf = async (host: string, name: string): Promise<number> =>
    (await statusOf(host)).processes.find(process => process.name === name)?.restarts ?? NaN
  const up = (): Promise<LabReport> =>
    xosan('lab', 'up', '--hosts', '2', '--dir', directory, '--programs', programs)
  const onHost = (action: string, host: string): Promise<HostStatus> =>
    xosan('lab', action, host, '--dir', directory)

  before(async () => {
    await buildAll(programs, {
      xosand: 'test/support/stub-program.ts',
      'xosan-datapath': 'test/support/stub-program.ts',
      'xosan-etcd-gate': 'test/support/stub-program.ts',
      'xosan-lab-host': 'cli/lab/supervisor.ts',
      xosan: 'cli/main.ts',
    })
  })

  before(async () => {
    parent = await mkdtemp(join(tmpdir(), 'xosan-lab-test-'))
    directory = join(parent, 'lab')
  })
  // One lab for all: whatever a test did to it, it is up again, or made anew, for the next.
  beforeEach(async () => {
    report = await up()
  })
  after(async () => {
    await xosan('lab', 'down', '--dir', directory)
    await rm(parent, { recursive: true, force: true })
    await rm(programs, { recursive: true, force: true })
  })

  it('brings up hosts with addresses of their own, entry scripts and a configuration that the programs accept', async () => {
    assert.deepEqual(
      report.hosts.map(({ name }) => name),
      ['h1', 'h2']
    )
    assert.notEqual(report.hosts[0]!.address, report.hosts[1]!.address)
    for (const host of report.hosts) {
      assert.match(host.address, /^127\.\d+\.\d+\.\d+$/)
      assert.deepEqual(Object.keys(host.pids), ['supervisor', 'xosand', 'datapath-0', 'datapath-1'])
      assert.ok(existsSync(join(host.pluginRoot, 'volume', 'org.xen.xapi.storage.xosan', 'SR.create')))
      assert.ok(existsSync(join(host.pluginRoot, 'datapath', 'xosan', 'Datapath.attach')))
      const config = parseConfig(
        JSON.parse(await readFile(join(directory, host.name, 'config.json'), 'utf8'))
      )
      assert.equal(config.host.uuid, host.uuid)
    }
  })

  it('changes nothing when it is up already', async () => {
    assert.deepEqual(await up(), report)
  })

  it('starts a process that died again, alone', async () => {
    const before = await statusOf('h1')
    const restarts = await restartsOf('h1', 'datapath-1')
    process.kill(pidOf(before, 'datapath-1'), 'SIGKILL')
    await until('restart', async () => (await restartsOf('h1', 'datapath-1')) > restarts)
    await until('all up', async () => (await statusOf('h1')).condition === 'up')
    const after = await statusOf('h1')
    assert.notEqual(pidOf(after, 'datapath-1'), pidOf(before, 'datapath-1'))
    for (const name of ['supervisor', 'xosand', 'datapath-0']) {
      assert.equal(pidOf(after, name), pidOf(before, name))
    }
  })

  it('lets the programs go on when a supervisor is killed, and the next one adopts them and looks after them', async () => {
    const before = await statusOf('h1')
    process.kill(pidOf(before, 'supervisor'), 'SIGKILL')
    await until('supervisor gone', async () => (await statusOf('h1')).condition === 'partly')
    const after = await onHost('start', 'h1')
    for (const name of ['xosand', 'datapath-0', 'datapath-1']) {
      assert.equal(pidOf(after, name), pidOf(before, name))
    }
    const restarts = await restartsOf('h1', 'xosand')
    process.kill(pidOf(after, 'xosand'), 'SIGKILL')
    await until('restart', async () => (await restartsOf('h1', 'xosand')) > restarts)
  })

  it('kills a host so that nothing of it comes back, leaves the others alone, and starts it again', async () => {
    const before = await statusOf('h1')
    const other = await statusOf('h2')
    assert.equal((await onHost('kill', 'h1')).condition, 'down')
    // Twice the longest pause before a restart of a program that died for the first time.
    await delay(250)
    for (const { pid } of before.processes) {
      const handle = handleOf(pid!)
      assert.ok(handle === null || conditionOf(handle) === 'down', `${String(pid)} lives`)
    }
    assert.deepEqual(await statusOf('h2'), other)
    assert.equal((await onHost('start', 'h1')).condition, 'up')
  })

  it('forgets what domains held when a host is started anew, and not when its supervisor is', async () => {
    const { runDirectory, stateDirectory } = parseConfig(
      JSON.parse(await readFile(join(directory, 'h1', 'config.json'), 'utf8'))
    )
    const held = [join(runDirectory, 'references.json'), join(stateDirectory, 'attached-1.json')]
    const kept = join(stateDirectory, 'stores.json')
    for (const file of [...held, kept]) await writeFile(file, '{}')

    process.kill(pidOf(await statusOf('h1'), 'supervisor'), 'SIGKILL')
    await until('supervisor gone', async () => (await statusOf('h1')).condition === 'partly')
    await onHost('start', 'h1')
    assert.deepEqual([...held, kept].map(existsSync), [true, true, true])

    await onHost('kill', 'h1')
    await onHost('start', 'h1')
    assert.deepEqual([...held, kept].map(existsSync), [false, false, true])
  })

  it('shuts a host down in order', async () => {
    assert.equal((await onHost('shutdown', 'h1')).condition, 'down')
    for (const name of ['xosand', 'datapath-0', 'datapath-1']) {
      const log = await readFile(join(directory, 'h1', 'log', `${name}.log`), 'utf8')
      assert.match(log, /ended in order/)
    }
  })

  it('pauses and resumes a host', async () => {
    assert.equal((await onHost('pause', 'h1')).condition, 'paused')
    assert.equal((await onHost('resume', 'h1')).condition, 'up')
    await onHost('pause', 'h1')
    assert.equal((await onHost('kill', 'h1')).condition, 'down')
  })

  it('survives commands at the same time', async () => {
    await Promise.all([
      onHost('kill', 'h1'),
      onHost('kill', 'h1'),
      onHost('pause', 'h2'),
      xosan('lab', 'status', '--dir', directory),
    ])
    await Promise.all([onHost('start', 'h1'), onHost('start', 'h1'), onHost('resume', 'h2')])
    const { hosts } = await xosan<{ hosts: HostStatus[] }>('lab', 'status', '--dir', directory)
    assert.deepEqual(
      hosts.map(({ condition }) => condition),
      ['up', 'up']
    )
  })

  it('removes what it made and nothing else', async () => {
    await writeFile(join(directory, 'notes'), 'mine')
    const pids = report.hosts.flatMap(host => Object.values(host.pids))
    await xosan('lab', 'down', '--dir', directory)
    assert.deepEqual(await readdir(directory), ['notes'])
    await rm(join(directory, 'notes'))
    for (const pid of pids) {
      const handle = handleOf(pid!)
      assert.ok(handle === null || conditionOf(handle) === 'down', `${String(pid)} lives`)
    }
  })

  it('keeps the data on request, and comes back with the same hosts', async () => {
    await xosan('lab', 'down', '--keep', '--dir', directory)
    const again = await up()
    assert.deepEqual(
      again.hosts.map(({ uuid, address }) => [uuid, address]),
      report.hosts.map(({ uuid, address }) => [uuid, address])
    )
  })

  it('refuses a directory that holds something else', async () => {
    const strange = join(parent, 'strange')
    await mkdir(strange)
    await writeFile(join(strange, 'thesis.txt'), 'the only copy')
    await assert.rejects(
      xosan('lab', 'up', '--hosts', '2', '--dir', strange, '--programs', programs),
      (error: { code: number; stdout: string }) => {
        assert.equal(error.code, 2)
        assert.match(error.stdout, /"code":"INVALID_ARGUMENT".*thesis\.txt/)
        return true
      }
    )
    await assert.rejects(xosan('lab', 'down', '--dir', strange))
    assert.deepEqual(await readdir(strange), ['thesis.txt'])
  })

  it('puts the sockets elsewhere when the directory is too deep for them', async () => {
    const deep = join(parent, 'd'.repeat(90))
    const { hosts } = await xosan<LabReport>(
      'lab',
      'up',
      '--hosts',
      '1',
      '--dir',
      deep,
      '--programs',
      programs
    )
    const { controlSocket } = hosts[0]!
    assert.ok(Buffer.byteLength(controlSocket) < 60, controlSocket)
    await xosan('lab', 'down', '--dir', deep)
    assert.ok(!existsSync(controlSocket))
    assert.ok(!existsSync(deep))
  })
})

describe('a process handle', () => {
  it('never signals another process that was given the same pid', () => {
    const self = handleOf(process.pid)!
    const stranger = { ...self, startTicks: self.startTicks - 1 }
    assert.equal(conditionOf(self), 'up')
    assert.equal(conditionOf(stranger), 'down')
    assert.equal(signal(stranger, 'SIGKILL'), false)
  })
})
