/**
 * A pool of real xosand processes on one machine, with one embedded coordinator, fake datapath processes, and entry
 * scripts that are run as xapi runs them.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { randomInt, randomUUID } from 'node:crypto'
import { openEmbeddedCoordinator } from '../../cluster/embedded/embedded-coordinator.ts'
import { type Coordinator } from '../../core/ports/coordinator.ts'
import { millis, type HostId } from '../../core/units.ts'
import { createNodeClock } from '../../daemon/ports/node-clock.ts'
import { nodeRandom } from '../../daemon/ports/node-random.ts'
import { installPlugins } from '../../plugins/smapiv3/install.ts'
import { RpcClient } from '../../rpc/client.ts'
import { type Json } from '../../rpc/wire.ts'
// The build script is JavaScript: it must run before anything is compiled.
import { buildAll } from '../../scripts/build.mjs'
import { FakeDatapath } from './fake-datapath.ts'

const PROGRAMS = join(import.meta.dirname, '..', '..', 'node_modules', '.cache', `xosan-smapi-${process.pid}`)
const DATAPATHS = 2
/** The space that V8 takes for young objects grows for minutes, and would look like a leak. */
const NODE_FLAGS = ['--max-semi-space-size=1']

export interface Ran {
  readonly exit: number | null
  readonly stdout: string
  readonly stderr: string
}

interface RunOptions {
  /** Text on stdin; it is closed after it. */
  readonly input?: string | Buffer
  readonly cwd?: string
  /** Put before the script, e.g. another interpreter. */
  readonly interpreter?: readonly string[]
}

/** Runs a program with an empty environment and waits until both its outputs have ended. */
export async function run(
  command: readonly string[],
  { input = '', cwd = '/' }: RunOptions = {}
): Promise<Ran> {
  const child = spawn(command[0]!, command.slice(1), { env: {}, cwd, stdio: 'pipe' })
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  child.stdin.on('error', () => undefined)
  child.stdin.end(input)
  const [exit] = (await once(child, 'close')) as [number | null]
  return { exit, stdout, stderr }
}

export class PoolHost {
  readonly name: string
  readonly uuid = randomUUID() as HostId
  readonly address: string
  readonly directory: string
  readonly datapath: FakeDatapath
  #child: ChildProcess | null = null

  constructor(directory: string, name: string, address: string, coordinator: Coordinator) {
    this.name = name
    this.address = address
    this.directory = join(directory, name)
    this.datapath = new FakeDatapath({
      host: this.uuid,
      address,
      ports: Array.from({ length: DATAPATHS }, (_, index) => 7710 + index),
      socket: index => join(this.directory, 'run', `datapath-${index}.sock`),
      coordinator,
    })
  }

  get controlSocket(): string {
    return join(this.directory, 'run', 'control.sock')
  }

  get storePath(): string {
    return join(this.directory, 'store')
  }

  async prepare(coordinatorFile: string): Promise<void> {
    for (const folder of ['run', 'state', 'store', 'plugins']) {
      await mkdir(join(this.directory, folder), { recursive: true, mode: 0o700 })
    }
    const config = {
      host: { uuid: this.uuid, name: this.name, address: this.address },
      runDirectory: join(this.directory, 'run'),
      stateDirectory: join(this.directory, 'state'),
      defaultPath: this.storePath,
      datapaths: DATAPATHS,
      peers: 'loopback',
      coordinator: { kind: 'embedded', path: coordinatorFile },
      timing: { janitorIntervalMs: 300 },
    }
    await writeFile(join(this.directory, 'config.json'), JSON.stringify(config))
    await installPlugins(join(this.directory, 'plugins'), { controlSocket: this.controlSocket })
    await this.datapath.start()
  }

  /** Starts xosand and waits until it answers. */
  async start(): Promise<void> {
    const log = createWriteStream(join(this.directory, 'xosand.log'), { flags: 'a' })
    await once(log, 'open')
    const program = join(PROGRAMS, 'xosand.js')
    const words = [...NODE_FLAGS, program, '--config', join(this.directory, 'config.json')]
    const child = spawn(process.execPath, words, {
      env: {},
      stdio: ['ignore', 'ignore', log],
    })
    log.close()
    this.#child = child
    const client = new RpcClient({ address: this.controlSocket, clock: createNodeClock() })
    const { controlApi } = await import('../../rpc/control-api.ts')
    try {
      for (;;) {
        if (child.exitCode !== null) throw new Error(`xosand of ${this.name} ended with ${child.exitCode}`)
        try {
          await client.call('status', {}, controlApi.status.result, { deadlineMs: 2000 })
          return
        } catch {
          await delay(20)
        }
      }
    } finally {
      client.close()
    }
  }

  get pid(): number {
    return this.#child!.pid!
  }

  /** Sends a signal to xosand; SIGKILL waits for its end. */
  async signal(name: NodeJS.Signals): Promise<void> {
    const child = this.#child!
    const ended = once(child, 'exit')
    if (child.exitCode !== null || child.signalCode !== null) return
    child.kill(name)
    if (name === 'SIGKILL' || name === 'SIGTERM') await ended
  }

  script(name: string): string {
    const plugin = name.startsWith('Datapath.') ? 'datapath/xosan' : 'volume/org.xen.xapi.storage.xosan'
    return join(this.directory, 'plugins', plugin, name)
  }

  /** Runs an entry script with named parameters, as xapi-storage-script does. */
  async runJson(name: string, parameters: Json, options: RunOptions = {}): Promise<Ran> {
    const input = JSON.stringify({ dbg: 'test', ...(parameters as object) })
    return run([...(options.interpreter ?? []), this.script(name), '--json'], { input, ...options })
  }

  /** @returns what it printed @throws when it failed */
  async call<T = Json>(name: string, parameters: Json = {}): Promise<T> {
    return answer(name, await this.runJson(name, parameters)) as T
  }

  /** Runs an entry script with positional parameters, as static-vdis does. */
  async callPositional<T = Json>(name: string, ...words: string[]): Promise<T> {
    return answer(name, await run([this.script(name), 'test', ...words])) as T
  }
}

function answer(name: string, { exit, stdout, stderr }: Ran): unknown {
  if (exit !== 0 || stderr !== '') throw new Error(`${name} ended with ${exit}: ${stdout}${stderr}`)
  return JSON.parse(stdout)
}

export class SmapiPool {
  readonly directory: string
  readonly coordinator: Coordinator
  readonly hosts: readonly PoolHost[]

  private constructor(directory: string, coordinator: Coordinator, hosts: readonly PoolHost[]) {
    this.directory = directory
    this.coordinator = coordinator
    this.hosts = hosts
  }

  static async up(count: number): Promise<SmapiPool> {
    await buildAll(PROGRAMS, { xosand: 'daemon/main.ts' })
    const directory = await mkdtemp(join(tmpdir(), 'xosan-'))
    const coordinatorFile = join(directory, 'coordinator', 'coordinator.db')
    const clock = createNodeClock()
    const coordinator = await openEmbeddedCoordinator({
      path: coordinatorFile,
      clock,
      random: nodeRandom,
      callTimeMs: millis(10_000),
    })
    const subnet = `127.${randomInt(1, 255)}.${randomInt(0, 256)}`
    const hosts = Array.from(
      { length: count },
      (_, index) => new PoolHost(directory, `h${index + 1}`, `${subnet}.${index + 1}`, coordinator)
    )
    for (const host of hosts) await host.prepare(coordinatorFile)
    await Promise.all(hosts.map(host => host.start()))
    return new SmapiPool(directory, coordinator, hosts)
  }

  async down(): Promise<void> {
    await Promise.all(
      this.hosts.map(async host => {
        await host.signal('SIGKILL')
        await host.datapath.stop()
      })
    )
    await this.coordinator.close()
    await rm(this.directory, { recursive: true })
    await rm(PROGRAMS, { recursive: true, force: true })
  }
}

/** Waits until something holds. @throws when it does not within 15 s */
export async function until(what: string, holds: () => Promise<boolean> | boolean): Promise<void> {
  const end = performance.now() + 15_000
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`not within 15 s: ${what}`)
    await delay(20)
  }
}
