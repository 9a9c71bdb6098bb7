import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { projectRoot } from '../../../daemon/supervision/programs.ts'
import { XosanError } from '../../../core/errors.ts'
import { type ControlMethod, type ControlResult, controlApi } from '../../../rpc/control-api.ts'
import { RpcServer } from '../../../rpc/server.ts'
import { type z } from 'zod'
import { buildAll } from '../../../scripts/build.mjs'

const bundle = join(projectRoot(), 'node_modules', '.cache', `xosan-cli-test-${process.pid}`)

const HOSTS = ['5d1f0a9e-0000-4000-8000-000000000001', '5d1f0a9e-0000-4000-8000-000000000002']
const SR = '5d1f0a9e-0000-4000-8000-00000000000a'
const VOLUME = '5d1f0a9e-0000-4000-8000-00000000000b'
const OTHER = '5d1f0a9e-0000-4000-8000-00000000000c'

type Volume = ControlResult<'volume.show'>
type ReplicaState = Volume['replicas'][number]['state']

const volume = (key: string, name: string, state: ReplicaState, doneBytes = 0): Volume =>
  controlApi['volume.show'].result.parse({
    sr: SR,
    key,
    name,
    size: 64 * 2 ** 30,
    physical: 3 * 2 ** 30,
    primary: HOSTS[0],
    epoch: 7,
    state: 'serving',
    waits: [],
    holding: [],
    replicas: HOSTS.map((host, index) => ({
      host,
      hostName: `a-rather-long-host-name-${index + 1}`,
      replica: `5d1f0a9e-0000-4000-8000-0000000000d${index}`,
      state: index === 0 ? 'in-sync' : state,
      totalBytes: state === 'rebuilding' ? 2 ** 30 : 0,
      doneBytes,
      trouble: state === 'stale' && index > 0 ? 'its disk does not answer' : null,
    })),
  })

interface Outcome {
  readonly code: number | null
  readonly out: string
  readonly errors: string
}

describe('the xosan command', function () {
  this.timeout(60_000)
  let directory: string
  let socket: string
  let server: RpcServer
  let answers: { [M in ControlMethod]?: () => ControlResult<M> }
  let resyncs: number
  let calls: [method: ControlMethod, params: unknown][]
  const callsOf = (method: ControlMethod): unknown[] =>
    calls.filter(([called]) => called === method).map(([, params]) => params)

  const start = (...words: string[]): ChildProcess =>
    spawn(process.execPath, [join(bundle, 'xosan.js'), ...words], {
      env: { PATH: process.env['PATH'], XOSAN_SOCKET: socket },
      stdio: ['pipe', 'pipe', 'pipe'],
    })
  const finish = async (child: ChildProcess): Promise<Outcome> => {
    let [out, errors] = ['', '']
    child.stdout?.setEncoding('utf8').on('data', (text: string) => (out += text))
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (errors += text))
    const [code] = (await once(child, 'close')) as [number | null]
    return { code, out, errors }
  }
  const xosan = (...words: string[]): Promise<Outcome> => answering('', ...words)
  /** @param typed on standard input, which then ends */
  const answering = (typed: string, ...words: string[]): Promise<Outcome> => {
    const child = start(...words)
    child.stdin!.on('error', () => undefined)
    child.stdin!.end(typed)
    return finish(child)
  }

  before(() => buildAll(bundle, { xosan: 'cli/main.ts' }))
  after(() => rm(bundle, { recursive: true, force: true }))

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'xosan-cli-'))
    socket = join(directory, 'control.sock')
    resyncs = 0
    calls = []
    answers = {
      'host.ls': () =>
        controlApi['host.ls'].result.parse(
          HOSTS.map((uuid, index) => ({
            uuid,
            name: `a-rather-long-host-name-${index + 1}`,
            address: `192.0.2.${index + 1}`,
            state: index === 0 ? 'up' : 'down',
            total: 2 ** 40,
            free: 2 ** 39,
          }))
        ),
      'volume.ls': () => [volume(VOLUME, 'database', 'stale'), volume(OTHER, 'twin', 'in-sync')],
      'volume.show': () => volume(VOLUME, 'database', 'stale'),
      'volume.resync': () => {
        resyncs += 1
        return null
      },
    }
    server = new RpcServer({ log: () => undefined })
    for (const method of Object.keys(controlApi) as ControlMethod[]) {
      const schema = controlApi[method].params as z.ZodType
      server.register(method, schema, params => {
        calls.push([method, params])
        const answer = answers[method]
        if (answer === undefined) throw new XosanError('COORDINATOR_UNAVAILABLE', { reason: 'it is a test' })
        return answer()
      })
    }
    await server.listenUnix(socket)
  })
  afterEach(async () => {
    await server.close()
    await rm(directory, { recursive: true, force: true })
  })

  it('prints tables of at most 80 columns without colours where there is no terminal', async () => {
    for (const words of [
      ['host', 'ls'],
      ['volume', 'ls'],
      ['volume', 'show', 'database'],
    ]) {
      const { code, out } = await xosan(...words)
      assert.equal(code, 0)
      assert.ok(!out.includes('\x1b'), 'an escape sequence')
      for (const line of out.split('\n')) assert.ok(line.length <= 80, `${line.length} columns: ${line}`)
    }
    assert.match((await xosan('volume', 'ls')).out, /datab… .* 1\/2$/m)
    assert.match((await xosan('host', 'ls')).out, /192\.0\.2\.2 +down +512 GiB +1\.00 TiB$/m)
    assert.match((await xosan('volume', 'show', 'database')).out, /64\.0 GiB, 3\.00 GiB on this host's disk/)
  })

  it('prints one JSON value with --json, exactly what the daemon said', async () => {
    const { out } = await xosan('volume', 'ls', '--json')
    assert.deepEqual(JSON.parse(out), answers['volume.ls']!())
  })

  it('says what a volume waits for, with what to do next, and tells programs the same in fields', async () => {
    const waits = [{ for: 'replica', host: HOSTS[1], replica: HOSTS[1], reason: 'away', othersLost: false }]
    const holding = ['The replica on host h2 is needed and away (away). '.repeat(3).trim()]
    const held = { ...volume(VOLUME, 'database', 'in-sync'), state: 'holding', waits, holding }
    answers['volume.show'] = () => controlApi['volume.show'].result.parse(held)
    const { out } = await xosan('volume', 'show', 'database')
    assert.match(out, /^state +holding\nwaits +The replica on host h2 .*\n {9}\S/m)
    for (const line of out.split('\n')) assert.ok(line.length <= 80, `${line.length} columns: ${line}`)
    const shown = JSON.parse((await xosan('volume', 'show', 'database', '--json')).out) as Volume
    assert.deepEqual([shown.waits, shown.holding], [waits, holding])
  })

  it('says why a replica is not connected', async () => {
    answers['volume.show'] = () => volume(VOLUME, 'database', 'stale')
    const { out } = await xosan('volume', 'show', 'database')
    assert.match(out, /host-name-2 is stale and not connected: its disk does not answer$/m)
    assert.ok(!out.includes('host-name-1 is'))
  })

  it('finds a volume by its name, unless several have it or none', async () => {
    assert.equal((await xosan('volume', 'show', 'database', '--json')).code, 0)
    const missing = await xosan('volume', 'show', 'nothing')
    assert.equal(missing.code, 2)
    assert.match(missing.errors, /no volume has this key or name/)
    answers['volume.ls'] = () => [volume(VOLUME, 'twin', 'stale'), volume(OTHER, 'twin', 'stale')]
    assert.match((await xosan('volume', 'show', 'twin')).errors, /several volumes have this name/)
    assert.equal((await xosan('volume', 'show', OTHER)).code, 0)
  })

  it('says what to do next when something fails, and tells programs by exit code and JSON', async () => {
    const failing = await xosan('status', '--json')
    assert.equal(failing.code, 4)
    assert.match(failing.errors, /What next: Healthy volumes go on.*COORDINATOR_UNAVAILABLE/)
    const { error } = JSON.parse(failing.out) as { error: { code: string; retriable: boolean } }
    assert.deepEqual([error.code, error.retriable], ['COORDINATOR_UNAVAILABLE', true])

    const away = await xosan('status', '--socket', join(directory, 'nobody.sock'))
    assert.equal(away.code, 3)
    assert.match(away.errors, /nobody\.sock/)
    assert.equal((await xosan('volume', 'frobnicate')).code, 2)
    assert.equal((await xosan('lab', 'up', '--hosts', 'many', '--dir', directory)).code, 2)
  })

  it('shows how far a resync is until all replicas are in-sync', async () => {
    const looks = [
      volume(VOLUME, 'database', 'rebuilding', 0),
      volume(VOLUME, 'database', 'rebuilding', 2 ** 29),
      volume(VOLUME, 'database', 'in-sync'),
    ]
    answers['volume.show'] = () => (looks.length > 1 ? looks.shift()! : looks[0]!)
    const { code, out } = await xosan('resync', 'database')
    assert.equal(code, 0)
    assert.equal(resyncs, 1)
    assert.match(out, /50 %\s+512 MiB of 1\.00 GiB .* left/)
    assert.match(out, /All 2 replicas are in-sync/)
  })

  it('ends at Ctrl-C while the resync goes on', async () => {
    const child = start('resync', 'database')
    const outcome = finish(child)
    child.stdout!.once('data', () => child.kill('SIGINT'))
    const { out } = await outcome
    assert.match(out, /waiting for a-rather-long-host-name-2/)
    assert.equal(child.signalCode, 'SIGINT')
    assert.equal(resyncs, 1)
  })

  describe('about the cluster', () => {
    const status = (over: Partial<ControlResult<'status'>>): ControlResult<'status'> =>
      controlApi.status.result.parse({
        host: { uuid: HOSTS[0], name: 'h1', address: '192.0.2.1' },
        pid: 1,
        version: '1.0.0',
        cluster: null,
        coordinator: { reachable: true, revision: 9, catalogueRevision: 9 },
        datapaths: [],
        srs: [],
        warnings: [],
        ...over,
      })
    const cluster = {
      sr: SR,
      generation: 1,
      phase: 'joined',
      coordinator: 'etcd',
      etcdMembers: HOSTS.map((host, index) => ({ host, address: `192.0.2.${index + 1}`, port: 7750 })),
    } as ControlResult<'status'>['cluster']

    it('shows which cluster the host is in and where its etcd is, or that it is in none', async () => {
      answers.status = () => status({})
      assert.match((await xosan('status')).out, /^in no cluster/m)
      answers.status = () => status({ cluster })
      const { out } = await xosan('status')
      assert.match(out, new RegExp(`^cluster of SR ${SR}, generation 1, joined$`, 'm'))
      assert.match(out.replaceAll('\n  ', ' '), /up to date; etcd on 192\.0\.2\.1, 192\.0\.2\.2$/m)
      // A lab that speaks in clear.
      answers.status = () => status({ srs: [{ sr: SR, name: 'sr', copies: 2, volumes: 1 }] as never })
      assert.match((await xosan('status')).out, /^coordinator reachable, revision 9/m)
      const broken = { ...cluster!, coordinator: 'embedded' as const, etcdMembers: [] }
      const coordinator = { reachable: false, revision: 9, catalogueRevision: 7 } as never
      answers.status = () => status({ cluster: broken, coordinator })
      assert.match(
        (await xosan('status')).out.replaceAll('\n  ', ' '),
        /not reachable; healthy volumes go on/
      )
    })

    it('removes a host once its name has been typed again, and says before what that means', async () => {
      answers['host.remove'] = () => ({ host: HOSTS[1] as never, revoked: true, successor: null })
      const name = 'a-rather-long-host-name-2'
      for (const typed of ['', 'yes\n', 'a-rather-long-host-name-1\n']) {
        const { code, out } = await answering(typed, 'host', 'remove', name)
        assert.equal(code, 1)
        assert.match(out, /Nothing was changed/)
      }
      assert.deepEqual(callsOf('host.remove'), [])
      const { code, out, errors } = await answering(`${name}\n`, 'host', 'remove', name)
      assert.equal(code, 0, errors)
      assert.match(out, /which is down.*whatever certificates.*replicas of "database", "twin".*is removed/s)
      for (const line of out.split('\n')) assert.ok(line.length <= 80, `${line.length} columns: ${line}`)
      assert.deepEqual(callsOf('host.remove'), [{ host: HOSTS[1] }])
    })

    it('removes a host without a question for a program, by UUID too', async () => {
      answers['host.remove'] = () => ({ host: HOSTS[1] as never, revoked: true, successor: null })
      const { code, out } = await xosan('host', 'remove', HOSTS[1]!, '--yes', '--json')
      assert.equal(code, 0)
      assert.deepEqual(JSON.parse(out), { host: HOSTS[1], revoked: true, successor: null })
    })

    it('removes by its UUID a host that is not listed: its removal may have been broken off', async () => {
      const host = '00000000-0000-4000-8000-0000000000ff'
      answers['host.remove'] = () => ({ host: host as never, revoked: true, successor: HOSTS[0] as never })
      const { code, out } = await xosan('host', 'remove', host, '--yes')
      assert.equal(code, 0)
      assert.match(out, /at an unknown address.*This host holds the authority/s)
      assert.deepEqual(callsOf('host.remove'), [{ host }])
    })

    it('does not remove a host that it does not know, or whose name is not its alone', async () => {
      const unknown = await xosan('host', 'remove', 'h9', '--yes')
      assert.equal(unknown.code, 2)
      assert.match(unknown.errors, /the hosts are a-rather-long-host-name-1/)
      const hosts = answers['host.ls']!().map(host => ({ ...host, name: 'twin' }))
      answers['host.ls'] = () => hosts
      assert.match((await xosan('host', 'remove', 'twin', '--yes')).errors, /several hosts have this name/)
      assert.deepEqual(callsOf('host.remove'), [])
    })

    it('removes a host that holds the only whole replica of a volume to none but who names the loss', async () => {
      answers['host.remove'] = () => ({ host: HOSTS[0] as never, revoked: false, successor: null })
      const words = ['host', 'remove', 'a-rather-long-host-name-1', '--yes']
      const { code, errors } = await xosan(...words)
      assert.equal(code, 2)
      assert.match(errors, /only in-sync replica of "database".*--give-up-volumes/)
      assert.ok(!errors.includes('twin'))
      assert.deepEqual(callsOf('host.remove'), [])
      const meant = await xosan(...words, '--give-up-volumes')
      assert.equal(meant.code, 0)
      assert.match(meant.out, /LOST.*"database"/)
      assert.deepEqual(callsOf('host.remove'), [{ host: HOSTS[0] }])
    })

    it('has certificates written for NBD tools, and says how they are used', async () => {
      answers['trust.export'] = () => null
      const target = join(directory, 'tls')
      const { code, out } = await xosan('trust', 'export', target)
      assert.equal(code, 0)
      assert.deepEqual(callsOf('trust.export'), [{ directory: target }])
      assert.ok(out.includes(`nbdinfo 'nbds://HOST:PORT/check/SR/VOLUME?tls-certificates=${target}'`))
      assert.ok(out.includes(`tls-creds-x509,id=tls,dir=${target},endpoint=client`))
      assert.deepEqual(JSON.parse((await xosan('trust', 'export', target, '--json')).out), {
        directory: target,
      })
      await xosan('trust', 'export', 'here')
      assert.deepEqual(callsOf('trust.export').at(-1), { directory: join(process.cwd(), 'here') })
    })
  })
})
