import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { chmod, copyFile, mkdir, readdir, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:net'
import { dirname, join } from 'node:path'
import { run, SmapiPool, type PoolHost, type Ran } from '../../support/smapi-pool.ts'

const ENTRY = join(import.meta.dirname, '..', '..', '..', 'plugins', 'smapiv3', 'entry.py')

describe('the entry script', function () {
  this.timeout(60_000)
  let pool: SmapiPool
  let host: PoolHost
  const sr = randomUUID()

  before(async () => {
    pool = await SmapiPool.up(1)
    host = pool.hosts[0]!
    const configuration = { copies: '1' }
    await host.call('SR.create', { uuid: sr, configuration, name: 'n', description: '' })
  })

  after(async () => {
    await pool.down()
  })

  const failed = ({ exit, stdout, stderr }: Ran): { code: string; params: string[] } => {
    assert.equal(stderr, '')
    assert.ok(exit !== 0 && exit !== null)
    return JSON.parse(stdout) as { code: string; params: string[] }
  }

  it('is valid for the Python of an old dom0', async () => {
    const source = 'import ast, sys; ast.parse(open(sys.argv[1]).read(), feature_version=(3, 6))'
    const { exit, stderr } = await run(['/usr/bin/python3', '-c', source, ENTRY])
    assert.equal(exit, 0, stderr)
  })

  it('works from any directory, by a relative path, with a newline at the end of its input or without', async () => {
    const input = JSON.stringify({ dbg: '', sr })
    const expected = await host.call('SR.stat', { sr })
    const script = host.script('SR.stat')
    const bare = { free_space: 0 }
    for (const { stdout } of [
      await run([script, '--json'], { input: `${input}\n`, cwd: '/' }),
      await run(['./SR.stat', '--json'], { input, cwd: dirname(script) }),
      await run(['org.xen.xapi.storage.xosan/SR.stat', '--json'], { input, cwd: dirname(dirname(script)) }),
    ]) {
      assert.deepEqual({ ...(JSON.parse(stdout) as object), ...bare }, { ...(expected as object), ...bare })
    }
  })

  it('works under an observer that runs it as a module of its own Python', async () => {
    const directory = join(pool.directory, 'observer')
    await mkdir(directory)
    // What an observer does with its arguments: the script becomes the first of them.
    const source = `import runpy, sys\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')\n`
    await writeFile(join(directory, 'observer.py'), source)
    for (const words of [['--json'], ['dbg', sr]]) {
      const command = ['/usr/bin/python3', '-m', 'observer', host.script('SR.ls'), ...words]
      const { exit, stdout, stderr } = await run(command, {
        input: JSON.stringify({ dbg: '', sr }),
        cwd: directory,
      })
      assert.deepEqual({ exit, stdout, stderr }, { exit: 0, stdout: '[]\n', stderr: '' })
    }
  })

  it('hands over arguments and input whatever bytes they hold', async () => {
    const name = ' "\\\u0001\u001f\u007f é 漢\u{1f600} --json'
    const words = [sr, name, '\n', '4096', 'false']
    const { key } = await host.callPositional<{ key: string }>('Volume.create', ...words)
    assert.equal((await host.call<{ name: string }>('Volume.stat', { sr, key })).name, name)
    const invalidUtf8 = Buffer.from('{"sr":"\xff\xfe', 'latin1')
    failed(await run([host.script('SR.stat'), '--json'], { input: invalidUtf8 }))
  })

  it('says what is wrong with empty, malformed or missing input', async () => {
    for (const input of ['', '\n', 'null', '[]', '"x"', '{', '{}']) {
      assert.equal(
        failed(await run([host.script('SR.stat'), '--json'], { input })).code,
        'SR_BACKEND_FAILURE_1'
      )
    }
    assert.equal(failed(await run([host.script('SR.stat')])).code, 'SR_BACKEND_FAILURE_1')
    const tooMany = await run([host.script('SR.stat'), 'dbg', sr, 'more'])
    assert.match(failed(tooMany).params.join(' '), /left over: more/)
    const half = await run([host.script('SR.attach'), 'dbg', '--configuration', 'sr_uuid'])
    assert.match(failed(half).params.join(' '), /needs a key and a value/)
  })

  it('refuses a call that this version does not have', async () => {
    const script = join(dirname(host.script('SR.ls')), 'Volume.snapshot')
    await copyFile(ENTRY, script)
    await chmod(script, 0o755)
    assert.equal(failed(await run([script, '--json'], { input: '{}' })).code, 'SR_BACKEND_FAILURE_38')
  })

  it('is there for the calls of this version only', async () => {
    const names = await readdir(dirname(host.script('Datapath.attach')))
    assert.deepEqual(
      names.sort(),
      [
        '.xosan',
        'Datapath.activate',
        'Datapath.attach',
        'Datapath.close',
        'Datapath.deactivate',
        'Datapath.detach',
        'Datapath.open',
        'Plugin.Query',
      ].sort()
    )
  })

  describe('without xosand', () => {
    afterEach(async () => {
      await host.start()
    })

    it('fails at once, and still answers Plugin.Query', async () => {
      await host.signal('SIGKILL')
      const began = performance.now()
      const error = failed(await host.runJson('Volume.stat', { sr, key: randomUUID() }))
      assert.equal(error.code, 'SR_BACKEND_FAILURE_47')
      assert.match(error.params.join(' '), /xosand does not answer: Connection refused/)
      assert.ok(performance.now() - began < 5000)
      assert.equal((await host.call<{ plugin: string }>('Plugin.Query')).plugin, 'xosan')
    })

    it('fails within its deadline when xosand hangs, however it hangs', async () => {
      await host.signal('SIGKILL')
      // The same script with its deadlines shortened: the real ones are above xosand's own.
      const { readFile } = await import('node:fs/promises')
      const script = host.script('Volume.stat')
      const source = await readFile(ENTRY, 'utf8')
      assert.match(source, /^DEADLINE = 40$/m)
      await writeFile(script, source.replace(/^DEADLINE = 40$/m, 'DEADLINE = 1'))
      const servers: ((server: Server) => void)[] = [
        () => undefined,
        server => server.on('connection', socket => socket.write('{"jsonrpc":"2.0","id":1,"result":[0,')),
      ]
      for (const behave of servers) {
        const server = createServer({ allowHalfOpen: true })
        behave(server)
        const { rm } = await import('node:fs/promises')
        await rm(host.controlSocket, { force: true })
        await new Promise<void>(resolve => server.listen(host.controlSocket, resolve))
        const sockets: { destroy(): void }[] = []
        server.on('connection', socket => sockets.push(socket.on('error', () => undefined)))
        const error = failed(await host.runJson('Volume.stat', { sr, key: randomUUID() }))
        assert.match(error.params.join(' '), /no answer in time/)
        for (const socket of sockets) socket.destroy()
        await new Promise(resolve => server.close(resolve))
      }
    })
  })
})
