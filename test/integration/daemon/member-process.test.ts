/** The process of a host's member of etcd, with real members. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile, readdir, readlink, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type EtcdAdmin } from '../../../cluster/etcd/etcd-admin.ts'
import { etcdPath } from '../../../daemon/cluster/cluster-file.ts'
import { socketsPath } from '../../../daemon/etcd/member-arguments.ts'
import { type MemberProcess } from '../../../daemon/etcd/member-process.ts'
import { shortenLog } from '../../../daemon/supervision/lasting-process.ts'
import { bootId } from '../../../daemon/supervision/run.ts'
import { conditionOf, handleOf } from '../../../daemon/supervision/process-handle.ts'
import { projectRoot } from '../../../daemon/supervision/programs.ts'
import { hasEtcd } from '../../support/etcd-cluster.ts'
import { type EtcdHost, EtcdHosts, memberOf, soon } from '../../support/etcd-hosts.ts'

const ETCD = 'etcd'

describe("a host's member of etcd", function () {
  let rig: EtcdHosts
  let host: EtcdHost
  let member: MemberProcess
  let admin: EtcdAdmin
  const opened: MemberProcess[] = []

  const xosand = (): MemberProcess => {
    const process = rig.process(host)
    opened.push(process)
    return process
  }
  const serves = async (): Promise<string> => soon(async () => (await admin.members())[0]!.id)
  const noteFile = (): string => join(host.stateDirectory, 'etcd-process.json')

  before(async function () {
    if (!hasEtcd()) this.skip()
  })
  beforeEach(async () => {
    rig = await EtcdHosts.create(1)
    host = rig.hosts[0]!
    admin = rig.admin([host])
    member = xosand()
    await member.start({ state: 'new' })
    await serves()
  })
  afterEach(async () => {
    for (const process of opened.splice(0)) process.release()
    ;(admin as EtcdAdmin | undefined)?.close()
    await (rig as EtcdHosts | undefined)?.end()
  })

  it('serves those with a certificate, keeps its data to root, and comes back when it is killed', async () => {
    assert.equal((await stat(etcdPath(host.stateDirectory))).mode & 0o777, 0o700)
    const [id, pid] = [await serves(), member.pid]
    await rig.kill(host)
    await soon(async () => assert.ok(member.pid !== null && member.pid !== pid))
    assert.equal(await serves(), id)
    assert.ok((await admin.status(memberOf(host))).leader !== '0')
  })

  it('has a gate that comes back when it is killed, while etcd goes on, and that listens alone', async () => {
    const { pid, gatePid } = member
    await rig.killGate(host)
    await soon(async () => assert.ok(member.gatePid !== null && member.gatePid !== gatePid))
    await serves()
    assert.equal(member.pid, pid)
    const listening = await readFile(`/proc/${pid}/net/tcp`, 'utf8')
    const inodes = new Set(
      await Promise.all(
        (await readdir(`/proc/${pid}/fd`)).map(async fd => readlink(`/proc/${pid}/fd/${fd}`).catch(() => ''))
      )
    )
    const own = listening.split('\n').filter(line => inodes.has(`socket:[${line.trim().split(/ +/)[9]}]`))
    assert.deepEqual(own, [], 'etcd has no port of the network')
    const sockets = socketsPath(host.stateDirectory)
    for (const path of [sockets, ...(await readdir(sockets)).map(name => join(sockets, name))]) {
      assert.equal((await stat(path)).mode & 0o077, 0, path)
    }
  })

  it('goes on when xosand ends, and is found by the next one, and so is its gate', async () => {
    const { pid, gatePid } = member
    member.release()
    const next = xosand()
    await next.start({ state: 'new' })
    assert.deepEqual([next.pid, next.gatePid], [pid, gatePid])
    await rig.kill(host)
    await soon(async () => assert.ok(next.pid !== null && next.pid !== pid))
    await serves()
  })

  it('is found without a note of it, too, and nobody else is taken for it', async () => {
    const { pid } = member
    member.release()
    const stranger = handleOf(process.pid)!
    await writeFile(
      noteFile(),
      JSON.stringify({ version: 1, boot: 'another', run: { ...stranger, restarts: 0 } })
    )
    assert.ok(await xosand().adopt())
    assert.equal(opened.at(-1)!.pid, pid)
    const past = { pid: stranger.pid, startTicks: stranger.startTicks + 1, restarts: 0 }
    await writeFile(noteFile(), JSON.stringify({ version: 1, boot: bootId(), run: past }))
    opened.at(-1)!.release()
    const last = xosand()
    await last.stop()
    assert.equal(conditionOf(stranger), 'up')
    assert.equal(handleOf(pid!), null)
    assert.equal(await xosand().adopt(), false)
  })

  it('is started anew when there are two of it, of which neither can be relied on', async () => {
    const { pid } = member
    member.release()
    const words = (await readFile(`/proc/${pid}/cmdline`, 'utf8')).split('\0').slice(1, -1)
    // As a start by mistake did it: the second one has the sockets, and waits for the data.
    const sockets = socketsPath(host.stateDirectory)
    for (const name of await readdir(sockets)) await rm(join(sockets, name))
    const second = spawn(ETCD, words, { cwd: sockets, stdio: 'ignore' })
    await soon(async () => stat(join(sockets, 'client:0')))
    const next = xosand()
    await next.start({ state: 'new' })
    await serves()
    assert.ok(next.pid !== pid && next.pid !== second.pid)
    assert.equal(handleOf(pid!), null)
  })

  it('is not started beside one that lives, whose sockets stay its own', async () => {
    const words = (await readFile(`/proc/${member.pid}/cmdline`, 'utf8')).split('\0').slice(1, -1)
    const sockets = socketsPath(host.stateDirectory)
    await rig.kill(host)
    // Somebody is faster than the pause before a new start.
    for (const name of await readdir(sockets)) await rm(join(sockets, name))
    const other = spawn(ETCD, words, { cwd: sockets, stdio: 'ignore' })
    const ended = once(other, 'exit')
    await soon(async () => assert.ok(host.log.some(text => text.includes(`it runs as ${other.pid}`))))
    await serves()
    assert.equal(member.pid, null)
    other.kill('SIGKILL')
    await ended
    await soon(async () => assert.notEqual(member.pid, null))
    await serves()
  })

  it('has a gate of the build that is installed, whatever ran before', async () => {
    const { pid, gatePid } = member
    member.release()
    const words = (await readFile(`/proc/${gatePid}/cmdline`, 'utf8')).split('\0').slice(1, -1)
    await rig.killGate(host)
    const older = spawn(process.execPath, [...words.slice(0, -1), '1-v20.0.0'], { stdio: 'ignore' })
    await serves()
    const next = xosand()
    await next.start({ state: 'new' })
    await serves()
    assert.deepEqual([next.pid, handleOf(older.pid!)], [pid, null])
    assert.notEqual(next.gatePid, older.pid)
  })

  it('is the only member when it is started as the documentation tells who has lost a majority', async () => {
    const id = await serves()
    member.release()
    // Which leaves its sockets.
    await rig.kill(host)
    const page = await readFile(join(projectRoot(), 'docs', 'internals', 'coordinator.md'), 'utf8')
    const told = /```sh\n(cd STATE[^`]+)```/.exec(page)![1]!
    const { stateDirectory, address, ports } = host
    const script = told
      .replaceAll('STATE', stateDirectory)
      .replaceAll('UUID', host.host)
      .replaceAll('ADDRESS:7750', `${address}:${ports.client}`)
      .replaceAll('ADDRESS:7751', `${address}:${ports.peer}`)
    const shell = spawn('sh', ['-ec', `exec 2>&1\n${script.replace('env -i', 'exec env -i')}`], {
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    let said = ''
    for await (const data of shell.stdout) {
      said += String(data)
      if (said.includes('published local member')) break
    }
    assert.match(said, /published local member/)
    const ended = once(shell, 'exit')
    shell.kill('SIGINT')
    await ended
    await xosand().start({ state: 'new' })
    assert.equal(await serves(), id)
  })

  it('is stopped for good, keeps its data, and loses them only when it does not run', async () => {
    const id = await serves()
    await assert.rejects(member.destroy(), /running/)
    const { pid, gatePid } = member
    await member.stop()
    assert.deepEqual([handleOf(pid!), handleOf(gatePid!)], [null, null])
    assert.deepEqual([member.started, await member.hasData()], [false, true])
    await member.start({ state: 'new' })
    assert.equal(await serves(), id)
    await member.stop()
    await member.destroy()
    assert.equal(await member.hasData(), false)
    await member.destroy()
  })

  it('does not build upon a database whose log is lost', async () => {
    await member.stop()
    await rm(join(etcdPath(host.stateDirectory), 'member', 'wal'), { recursive: true })
    assert.equal(await member.hasData(), false)
    const marker = join(etcdPath(host.stateDirectory), 'member', 'snap', 'marker')
    await writeFile(marker, '')
    await member.start({ state: 'new' })
    await serves()
    await assert.rejects(stat(marker))
  })

  it('is started anew with the same data to read other authorities', async () => {
    const { pid } = member
    const id = await serves()
    await member.restart()
    assert.notEqual(member.pid, pid)
    assert.equal(await serves(), id)
  })

  it('has a log that does not grow for ever', async () => {
    const log = join(host.stateDirectory, 'etcd.log')
    await writeFile(log, 'x'.repeat(100))
    await shortenLog(log, 100)
    assert.equal((await stat(log)).size, 100)
    await shortenLog(log, 99)
    assert.deepEqual([(await stat(log)).size, (await readFile(`${log}.1`)).length], [0, 100])
  })
})
