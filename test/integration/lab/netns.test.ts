/** Needs root, which is what a lab with namespaces needs; says so when it is skipped. */
import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, realpathSync } from 'node:fs'
import { mkdtemp, readlink, readdir, rm, writeFile } from 'node:fs/promises'
import { networkInterfaces, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { labCommand, labCut, labCutOneWay, labJoin, labLinks, labShape } from '../../../cli/lab/lab-links.ts'
import { type LabReport, labDown, labHost, labUp } from '../../../cli/lab/lab.ts'
import { findProgram } from '../../../cli/lab/find-program.ts'
import { ip } from '../../../cli/lab/network/iproute.ts'
import { namespacesOf, networkName, removeNetwork } from '../../../cli/lab/network/namespaces.ts'
import { projectRoot } from '../../../daemon/supervision/programs.ts'
import { LabProbe } from '../../support/lab-probe.ts'
// The build script is JavaScript: it must run before anything is compiled.
import { buildAll } from '../../../scripts/build.mjs'

const run = promisify(execFile)
const quiet = (): void => undefined

const built = join(projectRoot(), 'node_modules', '.cache', `xosan-netns-test-${process.pid}`)
const stubs = join(built, 'stubs')
const command = join(built, 'command', 'xosan.js')
const probeProgram = join(built, 'command', 'net-probe.js')

/** A packet between two namespaces takes microseconds; one that has not come by then, beside others that have, is lost. */
const LOST_AFTER_MS = 300

const missing =
  process.geteuid?.() !== 0
    ? 'needs root'
    : (['ip', 'tc', 'nsenter'] as const)
        .filter(name => findProgram(name) === null)
        .map(name => `${name} not installed`)
        .join(', ')

if (missing === '') describe('a lab with network namespaces', theLab)
else describe.skip(`a lab with network namespaces [skipped: ${missing}]`, () => it('has links'))

function theLab(this: Mocha.Suite): void {
  this.timeout(120_000)
  let parent: string
  let directory: string
  let report: LabReport
  const probes: LabProbe[] = []

  const up = (): Promise<LabReport> =>
    labUp(directory, { hosts: 2, datapaths: 1, programs: stubs, netns: true }, quiet)
  const upBare = (path: string, hosts = 2): Promise<LabReport> =>
    labUp(path, { hosts, datapaths: 1, programs: stubs, netns: true, bare: true }, quiet)
  const probe = async (name: string): Promise<LabProbe> => {
    const started = await LabProbe.start(
      directory,
      report.hosts.find(host => host.name === name)!,
      probeProgram
    )
    probes.push(started)
    return started
  }
  const link = async (name: string) => (await labLinks(directory)).find(({ host }) => host === name)!

  before(async () => {
    await buildAll(stubs, {
      xosand: 'test/support/stub-program.ts',
      'xosan-datapath': 'test/support/stub-program.ts',
      'xosan-etcd-gate': 'test/support/stub-program.ts',
      'xosan-lab-host': 'cli/lab/supervisor.ts',
    })
    await buildAll(join(built, 'command'), {
      xosan: 'cli/main.ts',
      'net-probe': 'test/support/net-probe.ts',
    })
  })
  const make = async (): Promise<void> => {
    parent = await mkdtemp(join(tmpdir(), 'xosan-netns-'))
    directory = join(parent, 'lab')
  }
  const remove = async (): Promise<void> => {
    for (const started of probes.splice(0)) await started.stop()
    for (const name of await readdir(parent)) await labDown(join(parent, name), false, quiet).catch(quiet)
    // A lab that could not be ended in order must not stay on the machine of whoever runs the tests.
    await removeNetwork(networkName(directory))
    await rm(parent, { recursive: true, force: true })
  }
  after(() => rm(built, { recursive: true, force: true }))

  describe('has links', () => {
    let h1: LabProbe
    let h2: LabProbe
    let h3: LabProbe

    // One lab for all: each test leaves it whole.
    before(async () => {
      await make()
      report = await upBare(directory, 3)
      ;[h1, h2, h3] = [await probe('h1'), await probe('h2'), await probe('h3')]
    })
    afterEach(async () => {
      await labJoin(directory, null)
      for (const each of [h1, h2, h3]) each.forget()
    })
    after(remove)

    it('connects the hosts with what dom0 would use: cubic, and acknowledgements at once', async () => {
      h1.do({ do: 'write', to: h2.address, text: 'hello' })
      await h2.hears('hello')
      const shown = async (...words: string[]): Promise<string> => {
        const [program, ...rest] = await labCommand(directory, 'h1', words)
        return (await run(program!, rest)).stdout
      }
      assert.match(await shown('ss', '-tin', 'dport', '=', '9000'), /\bcubic\b/)
      assert.match(await shown('ip', 'route', 'get', h2.address), /quickack 1/)
      // Nothing is ever asked by ARP, whose answers a one-way cut would lose some time later.
      const known = JSON.parse(await shown('ip', '-j', 'neigh', 'show')) as { dst: string; state: string[] }[]
      assert.deepEqual(
        known.map(({ dst, state }) => [dst, ...state]).sort(),
        [h2, h3].map(({ address }) => [address, 'PERMANENT'])
      )
    })

    it('cuts a host from all others without a word, and joins it again', async () => {
      h1.do({ do: 'write', to: h2.address, text: 'before' })
      await h2.hears('before')

      await labCut(directory, 'h1')
      assert.deepEqual([(await link('h1')).state, (await link('h2')).state], ['cut', 'up'])
      h1.do({ do: 'send', to: h2.address, text: 'lost 1' })
      h2.do({ do: 'send', to: h1.address, text: 'lost 2' })
      // These two have not met yet; nothing may wait for the link until they have.
      h1.do({ do: 'send', to: h3.address, text: 'lost 3' })
      h1.do({ do: 'write', to: h2.address, text: 'late 1' })
      h2.do({ do: 'write', to: h1.address, text: 'late 2' })
      h3.do({ do: 'write', to: h1.address, text: 'late 3' })
      await delay(LOST_AFTER_MS)
      h2.do({ do: 'send', to: h3.address, text: 'passes' })
      await h3.hears('passes')
      assert.deepEqual(
        [h2.hasHeard('lost'), h2.hasHeard('late'), h1.hasHeard('lost'), h1.hasHeard('late')],
        [false, false, false, false]
      )

      await labJoin(directory, 'h1')
      assert.equal((await link('h1')).state, 'up')
      await Promise.all([h2.hears('late 1'), h1.hears('late 2'), h1.hears('late 3')])
      assert.deepEqual(
        [h1, h2, h3].map(each => each.hasHeard('lost')),
        [false, false, false]
      )
      assert.deepEqual([...h1.failures(), ...h2.failures(), ...h3.failures()], [])
    })

    for (const [from, to, healed] of [
      ['h1', 'h2', 'h1'],
      ['h2', 'h1', 'h1'],
    ] as const) {
      it(`loses what ${from} sends to ${to} and nothing else, until ${healed} is joined`, async () => {
        const [sender, receiver, third] = from === 'h1' ? [h1, h2, h3] : [h2, h1, h3]
        sender.do({ do: 'write', to: receiver.address, text: 'before' })
        await receiver.hears('before')

        await labCutOneWay(directory, from, to)
        assert.deepEqual([(await link(from)).losesTo, (await link(to)).losesTo], [[to], []])
        sender.do({ do: 'send', to: receiver.address, text: 'lost' })
        sender.do({ do: 'write', to: receiver.address, text: 'late' })
        receiver.do({ do: 'send', to: sender.address, text: 'datagram passes' })
        receiver.do({ do: 'write', to: sender.address, text: 'stream passes' })
        sender.do({ do: 'write', to: third.address, text: 'others pass' })
        await Promise.all([
          sender.hears('datagram passes'),
          sender.hears('stream passes'),
          third.hears('others pass'),
        ])
        await delay(LOST_AFTER_MS)
        assert.deepEqual([receiver.hasHeard('lost'), receiver.hasHeard('late')], [false, false])

        await labJoin(directory, healed)
        assert.deepEqual((await link(from)).losesTo, [])
        await receiver.hears('late')
        assert.ok(!receiver.hasHeard('lost'))
        assert.deepEqual([...sender.failures(), ...receiver.failures()], [])
      })
    }

    it('limits a link in both directions, and takes the limit away', async () => {
      const limit = 100e6
      const figures: string[] = []
      for (const pair of [[h1, h2] as const, [h2, h1] as const]) {
        await labShape(directory, null, 'h1')
        const free = await pair[0].rateTo(pair[1], 700)
        await labShape(directory, limit, 'h1')
        assert.equal((await link('h1')).bitsPerSecond, limit)
        assert.equal((await link('h2')).bitsPerSecond, null)
        const limited = await pair[0].rateTo(pair[1], 1200)
        figures.push(`${(limited / 1e6).toFixed(0)} of ${(free / 1e6).toFixed(0)} Mbit/s`)
        assert.ok(limited > 0.5 * limit && limited < 1.1 * limit && free > 2 * limit, figures.join(', '))
      }
      await labShape(directory, null, null)
      assert.equal((await link('h1')).bitsPerSecond, null)
    })
  })

  describe('as a whole', () => {
    beforeEach(make)
    afterEach(remove)

    it("runs each host's programs in a network of its own, and adds nothing to the machine's", async () => {
      const before = Object.keys(networkInterfaces())
      report = await up()
      assert.deepEqual(Object.keys(networkInterfaces()), before)
      const own = await readlink('/proc/self/ns/net')
      const networks = await Promise.all(
        report.hosts.map(async ({ address, pids }) => {
          assert.match(address, /^10\.78\.\d+\.\d+$/)
          const each = Object.values(pids).map(pid => readlink(`/proc/${String(pid)}/ns/net`))
          const [first, ...others] = await Promise.all(each)
          assert.equal(others.length, 2)
          assert.ok(others.every(other => other === first))
          return first
        })
      )
      assert.equal(new Set([own, ...networks]).size, 3)

      await labDown(directory, false, quiet)
      assert.deepEqual(await namespacesOf(networkName(directory)), [])
      assert.ok(!existsSync(directory))
    })

    it('keeps cuts and limits while a host is killed, with all that ran in its network, and started again', async () => {
      report = await up()
      const h1 = await probe('h1')
      await labShape(directory, 1e9, 'h1')
      await labCutOneWay(directory, 'h1', 'h2')
      await labCut(directory, 'h1')
      const before = await labLinks(directory)
      const control = await labHost(directory, 'h1')
      await control.kill()
      assert.ok(h1.ended)
      await control.start()
      assert.equal((await control.status()).condition, 'up')
      assert.deepEqual(await labLinks(directory), before)
      assert.deepEqual(
        before.map(({ state, losesTo, bitsPerSecond }) => [state, losesTo, bitsPerSecond]),
        [
          ['cut', ['h2'], 1e9],
          ['up', [], null],
        ]
      )
    })

    it('makes the network again when the machine has booted', async () => {
      report = await up()
      for (const { name } of report.hosts) await (await labHost(directory, name)).kill()
      await removeNetwork(networkName(directory))
      assert.deepEqual(new Set((await labLinks(directory)).map(({ state }) => state)), new Set(['missing']))
      await assert.rejects(labCut(directory, 'h1'), { code: 'LAB_NETWORK_BROKEN' })

      const control = await labHost(directory, 'h1')
      await control.start()
      assert.equal((await control.status()).condition, 'up')
      assert.deepEqual(
        (await up()).hosts.map(({ uuid }) => uuid),
        report.hosts.map(({ uuid }) => uuid)
      )
      const [h1, h2] = [await probe('h1'), await probe('h2')]
      h1.do({ do: 'write', to: h2.address, text: 'hello' })
      await h2.hears('hello')
    })

    it('gives a witness a link like the others', async () => {
      const wanted = { hosts: 1, datapaths: 1, programs: stubs, netns: true, bare: true, witness: true }
      report = await labUp(directory, wanted, quiet)
      assert.deepEqual(
        (await labLinks(directory)).map(({ host, state }) => [host, state]),
        [
          ['h1', 'up'],
          ['w1', 'up'],
        ]
      )
      const [h1, w1] = [await probe('h1'), await probe('w1')]
      h1.do({ do: 'write', to: w1.address, text: 'hello' })
      await w1.hears('hello')
      await labCut(directory, 'w1')
      assert.deepEqual([(await link('h1')).state, (await link('w1')).state], ['up', 'cut'])
    })

    it('does not touch the network of another lab', async () => {
      const other = join(parent, 'other')
      await upBare(directory)
      await upBare(other)
      await labCut(directory, 'h1')
      const before = await labLinks(directory)
      await labDown(other, false, quiet)
      assert.deepEqual(await labLinks(directory), before)
    })

    it('is removed by `lab down` after `lab up` was killed in the middle', async () => {
      const network = networkName(directory)
      // One moment early, one late.
      for (const namespaces of [1, 5]) {
        const words = [
          'lab',
          'up',
          '--netns',
          '--bare',
          '--hosts',
          '6',
          '--programs',
          stubs,
          '--dir',
          directory,
        ]
        const child = spawn(process.execPath, [command, ...words], { stdio: 'ignore' })
        const exit = once(child, 'exit')
        while (child.exitCode === null && (await namespacesOf(network)).length < namespaces) await delay(1)
        child.kill('SIGKILL')
        assert.deepEqual(await exit, [null, 'SIGKILL'])
        assert.ok((await namespacesOf(network)).length < 7, 'it was not in the middle any more')
        await labDown(directory, false, quiet)
        assert.deepEqual(await namespacesOf(network), [])
        assert.ok(!existsSync(directory))
      }
    })

    it('goes on from where `lab up` was killed', async () => {
      const words = ['lab', 'up', '--netns', '--bare', '--hosts', '2', '--datapaths', '1']
      const child = spawn(process.execPath, [command, ...words, '--programs', stubs, '--dir', directory])
      const exit = once(child, 'exit')
      while (child.exitCode === null && (await namespacesOf(networkName(directory))).length < 2)
        await delay(1)
      child.kill('SIGKILL')
      await exit
      report = await up()
      assert.deepEqual(
        (await labLinks(directory)).map(({ state }) => state),
        ['up', 'up']
      )
      const [h1, h2] = [await probe('h1'), await probe('h2')]
      h1.do({ do: 'write', to: h2.address, text: 'hello' })
      await h2.hears('hello')
    })

    it('completes what was half made of a network when `lab up` was killed', async () => {
      const network = networkName(directory)
      await upBare(directory)
      // A port is taken up last: so a link looks before.
      await ip('-n', `${network}-sw`, 'link', 'set', 'p1', 'down')
      // And so the name of a namespace for a moment.
      await ip('netns', 'del', `${network}-h2`)
      await writeFile(join('/run/netns', `${network}-h2`), '')
      report = await upBare(directory)
      const [h1, h2] = [await probe('h1'), await probe('h2')]
      h1.do({ do: 'write', to: h2.address, text: 'hello' })
      await h2.hears('hello')
    })

    it('is removed, or made anew, when its directory was removed under it', async () => {
      const network = networkName(directory)
      await upBare(directory)
      await rm(directory, { recursive: true })
      await labDown(directory, false, quiet)
      assert.deepEqual(await namespacesOf(network), [])

      await upBare(directory)
      await labCut(directory, 'h1')
      await rm(directory, { recursive: true })
      await upBare(directory)
      assert.equal((await link('h1')).state, 'up')
    })

    it('says what to do when something is missing', async () => {
      const fails = async (
        how: { asNobody?: true; without?: string },
        words: readonly string[],
        wanted: { code: string; message: RegExp; exit: number }
      ): Promise<void> => {
        const ours = [process.execPath, command, 'lab', ...words, '--json']
        // Hides the program behind something that cannot be executed, for this one process only.
        const hiding = [
          'unshare',
          '--mount',
          'sh',
          '-c',
          'mount --bind /dev/null "$1"; shift; exec "$@"',
          'sh',
        ]
        // In a user namespace without a mapping nobody is root, and the files stay readable wherever this clone is.
        const user = how.asNobody === true ? ['unshare', '--user'] : []
        const other = how.without === undefined ? user : [...hiding, how.without]
        const [program, ...rest] = [...other, ...ours]
        await assert.rejects(run(program!, rest), error => {
          const { stdout, code } = error as { stdout: string; code: number }
          const said = JSON.parse(stdout) as { error: { code: string; message: string; next: string } }
          assert.equal(said.error.code, wanted.code)
          assert.match(said.error.message, wanted.message)
          assert.notEqual(said.error.next, '')
          assert.equal(code, wanted.exit)
          return true
        })
      }
      const upWords = ['up', '--netns', '--programs', stubs, '--dir', directory]
      const hidden = realpathSync(findProgram('ip')!)
      await fails({ asNobody: true }, upWords, { code: 'ROOT_REQUIRED', message: /root/, exit: 1 })
      await fails({ without: hidden }, upWords, { code: 'PROGRAM_MISSING', message: /ip.*iproute2/, exit: 1 })
      assert.ok(!existsSync(directory))
      await upBare(directory)
      const at = ['--dir', directory]
      await fails({}, ['cut', 'h7', ...at], { code: 'INVALID_ARGUMENT', message: /h1, h2/, exit: 2 })
      await fails({}, ['cut', 'h1', 'h2', ...at], { code: 'INVALID_ARGUMENT', message: /--one-way/, exit: 2 })
      const plain = join(parent, 'plain')
      await labUp(plain, { hosts: 1, datapaths: 1, programs: stubs, bare: true }, quiet)
      await fails({}, ['cut', 'h1', '--dir', plain], {
        code: 'INVALID_ARGUMENT',
        message: /--netns/,
        exit: 2,
      })
    })

    it('ends `lab exec` with the exit code of the command', async () => {
      await upBare(directory)
      const words = ['lab', 'exec', 'h2', '--dir', directory, '--', 'sh', '-c', 'ip -br addr; exit 7']
      await assert.rejects(run(process.execPath, [command, ...words]), error => {
        const { stdout, code } = error as { stdout: string; code: number }
        assert.match(stdout, /10\.78\.\d+\.2\/24/)
        assert.equal(code, 7)
        return true
      })
    })
  })
}
