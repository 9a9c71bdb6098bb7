import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createReadStream, openSync, closeSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { openEmbeddedCoordinator } from '../../cluster/embedded/embedded-coordinator.ts'
import { hostKey, volumeStateKey } from '../../cluster/keys.ts'
import { serialiseHostRecord } from '../../cluster/records.ts'
import { parseVolumeState, serialiseVolumeState } from '../../cluster/volume-state.ts'
import { hasCode } from '../../core/errors.ts'
import { type VolumeState } from '../../core/mirror/volume-record.ts'
import { type Coordinator } from '../../core/ports/coordinator.ts'
import {
  byteLength,
  epoch,
  type HostId,
  type LayerId,
  millis,
  type ReplicaId,
  type SrId,
  type StoreId,
  type VolumeKey,
} from '../../core/units.ts'
import { datapathSocket } from '../../daemon/datapaths.ts'
import { createNodeClock } from '../../daemon/ports/node-clock.ts'
import { nodeRandom } from '../../daemon/ports/node-random.ts'
import { NbdClient } from '../../datapath/replica-remote/nbd-client.ts'
import { RpcClient } from '../../rpc/client.ts'
import {
  datapathApi,
  type DatapathMethod,
  type DatapathParams,
  type DatapathResult,
  type VolumeStatus,
} from '../../rpc/datapath-api.ts'
// The build script is JavaScript: it must run before anything is compiled.
import { buildAll } from '../../scripts/build.mjs'

const clock = createNodeClock()
const root = fileURLToPath(new URL('../..', import.meta.url))

/** Half of what is shipped: so long must tests wait for what is silent. A busy machine must not seem dead either. */
const TIMING = { promiseTimeMs: 3000, replicaSilenceMs: 1800, callTimeoutMs: 1500 }
/** For whatever should happen at once, on a machine that is busy with other things. */
const PATIENCE_MS = 30_000

/** One host of the pool: its directories, and its datapath process while that runs. */
export class PoolHost {
  readonly host = randomUUID() as string as HostId
  readonly store = randomUUID() as string as StoreId
  readonly address: string
  readonly directory: string
  readonly #program: string
  #process: ChildProcess | null = null
  #client: RpcClient

  constructor(directory: string, address: string, program: string) {
    this.directory = directory
    this.address = address
    this.#program = program
    this.#client = new RpcClient({ address: datapathSocket(this.#run, 0), clock })
  }

  get #run(): string {
    return join(this.directory, 'run')
  }

  get storeDirectory(): string {
    return join(this.directory, 'store')
  }

  get record(): string {
    const ports = { peer: 7700, datapath: [7710], nbd: [7730] }
    const { host, address } = this
    return serialiseHostRecord(hostKey(host), {
      version: 1,
      host,
      name: address,
      address,
      ports,
      datapaths: 1,
    })
  }

  async prepare(sr: SrId, coordinator: string): Promise<void> {
    const state = join(this.directory, 'state')
    for (const directory of [this.#run, state, this.storeDirectory])
      await mkdir(directory, { recursive: true })
    const { host, store, storeDirectory: directory } = this
    const write = (file: string, value: object) => writeFile(file, JSON.stringify(value))
    await write(join(directory, 'store.json'), { format: 1, sr, host, store })
    await write(join(state, 'stores.json'), { version: 1, stores: [{ sr, store, directory }] })
    await write(this.#config, {
      host: { uuid: host, name: this.address, address: this.address },
      runDirectory: this.#run,
      stateDirectory: state,
      defaultPath: this.directory,
      datapaths: 1,
      peers: 'loopback',
      coordinator: { kind: 'embedded', path: coordinator },
      timing: TIMING,
    })
  }

  get #config(): string {
    return join(this.directory, 'config.json')
  }

  get log(): string {
    return join(this.directory, 'datapath.log')
  }

  /** Starts the process and waits until it answers. */
  async start(): Promise<void> {
    const child = this.spawn()
    this.#process = child
    const end = performance.now() + PATIENCE_MS
    for (;;) {
      try {
        await this.call('datapath.status', {}, 1000)
        return
      } catch (error) {
        assert.equal(child.exitCode, null, `the process ended: ${await readFile(this.log, 'utf8')}`)
        if (performance.now() > end) throw error
        await delay(20)
      }
    }
  }

  /** Waits until the log has a line with this message. */
  async logged(message: string): Promise<void> {
    const end = performance.now() + PATIENCE_MS
    while (!(await readFile(this.log, 'utf8')).includes(`"${message}"`)) {
      assert.ok(performance.now() < end, `${this.log} tells: ${message}`)
      await delay(20)
    }
  }

  /** A further process with the same configuration. */
  spawn(): ChildProcess {
    const log = openSync(this.log, 'a')
    const words = [this.#program, '--config', this.#config, '--index', '0']
    const child = spawn(process.execPath, words, { stdio: ['ignore', log, log] })
    closeSync(log)
    return child
  }

  /** @param name SIGKILL and SIGTERM: resolves when the process is gone */
  async signal(name: 'SIGKILL' | 'SIGTERM' | 'SIGSTOP' | 'SIGCONT'): Promise<void> {
    const child = this.#process
    if (child === null || child.exitCode !== null || child.signalCode !== null) return
    const exited = once(child, 'exit')
    child.kill(name)
    if (name === 'SIGKILL' || name === 'SIGTERM') await exited
  }

  async call<M extends DatapathMethod>(
    method: M,
    params: DatapathParams<M>,
    deadlineMs = PATIENCE_MS
  ): Promise<DatapathResult<M>> {
    const { result } = datapathApi[method]
    return (await this.#client.call<unknown>(method, params, result, { deadlineMs })) as DatapathResult<M>
  }

  /** @param where the guest's socket, or an export of the port for peers */
  async connect(
    where: { readonly path: string } | { readonly exportName: string },
    deadlineMs = 120_000
  ): Promise<NbdClient> {
    const address = 'path' in where ? where : { host: this.address, port: 7730 }
    const exportName = 'path' in where ? 'any name' : where.exportName
    return NbdClient.connect(
      {
        address,
        exportName,
        peer: this.address,
        clock,
        requestDeadlineMs: millis(deadlineMs),
        bytesInFlightMax: 64 * 1024 * 1024,
        sequenced: false,
      },
      millis(PATIENCE_MS)
    )
  }

  async dispose(): Promise<void> {
    this.#client.close()
    await this.signal('SIGCONT')
    await this.signal('SIGKILL')
  }
}

/** A volume of the pool and which hosts hold its replicas. */
export interface PoolVolume {
  readonly sr: SrId
  readonly volume: VolumeKey
  readonly layer: LayerId
  readonly hosts: readonly PoolHost[]
}

/** Datapath processes of several hosts on loopback addresses with one coordinator; no xosand. */
export class DatapathPool {
  readonly sr = randomUUID() as string as SrId
  readonly hosts: readonly PoolHost[]
  readonly coordinator: Coordinator
  readonly #directory: string
  readonly #programs: string

  private constructor(
    directory: string,
    programs: string,
    hosts: readonly PoolHost[],
    coordinator: Coordinator
  ) {
    this.#directory = directory
    this.#programs = programs
    this.hosts = hosts
    this.coordinator = coordinator
  }

  static async start(count: number): Promise<DatapathPool> {
    const directory = await mkdtemp(join(tmpdir(), 'xosan-dp-'))
    const programs = join(root, 'node_modules', '.cache', `xosan-datapath-test-${process.pid}`)
    await buildAll(programs, { 'xosan-datapath': 'datapath/process/main.ts' })
    // Own addresses for each run, so that tests beside this one do not meet.
    const part = () => 1 + Math.floor(Math.random() * 250)
    const net = `127.${part()}.${part()}`
    const hosts = Array.from(
      { length: count },
      (_, index) =>
        new PoolHost(join(directory, `h${index}`), `${net}.${index + 1}`, join(programs, 'xosan-datapath.js'))
    )
    const path = join(directory, 'coordinator', 'coordinator.db')
    const coordinator = await openEmbeddedCoordinator({ path, clock, random: nodeRandom }).catch(
      async (error: unknown) => {
        for (const made of [directory, programs]) await rm(made, { recursive: true, force: true })
        throw error
      }
    )
    const pool = new DatapathPool(directory, programs, hosts, coordinator)
    try {
      for (const host of hosts) {
        await host.prepare(pool.sr, path)
        await coordinator.transact([], [{ key: hostKey(host.host), value: host.record }])
      }
      await Promise.all(hosts.map(host => host.start()))
      return pool
    } catch (error) {
      await pool.dispose()
      throw error
    }
  }

  /** Keeps processes that start from reaching the coordinator; those that have reached it are not disturbed. */
  async hideCoordinator(): Promise<void> {
    await rename(join(this.#directory, 'coordinator'), join(this.#directory, 'hidden'))
    await writeFile(join(this.#directory, 'coordinator'), '')
  }

  async showCoordinator(): Promise<void> {
    await rm(join(this.#directory, 'coordinator'))
    await rename(join(this.#directory, 'hidden'), join(this.#directory, 'coordinator'))
  }

  /** Makes a volume with a replica on each of some hosts. @param size in bytes */
  async createVolume(size: number, hosts: readonly PoolHost[]): Promise<PoolVolume> {
    const { sr } = this
    const volume = randomUUID() as string as VolumeKey
    const layer = randomUUID() as string as LayerId
    const replicas = hosts.map(({ host, store }) => ({
      host,
      store,
      replica: randomUUID() as string as ReplicaId,
      inSync: true,
    }))
    const key = volumeStateKey(sr, volume)
    const state: VolumeState = {
      version: 1,
      size: byteLength(size),
      sharable: false,
      epoch: epoch(0),
      reserved: { epoch: epoch(0), host: null, operation: '' },
      primary: null,
      layers: [layer],
      mirrors: [replicas],
    }
    // First, as in the product: a replica is made only where a record names it.
    await this.coordinator.transact([], [{ key, value: serialiseVolumeState(key, state) }])
    for (const [index, host] of hosts.entries()) {
      const { replica, store } = replicas[index]!
      await host.call('replica.create', { sr, volume, replica, store, layers: [layer], size })
    }
    return { sr, volume, layer, hosts }
  }

  async state({ sr, volume }: PoolVolume): Promise<VolumeState> {
    const key = volumeStateKey(sr, volume)
    return parseVolumeState(key, (await this.coordinator.read(key)).entry!.value)
  }

  /** Attaches and activates, as xapi does: again and again while another host is the primary. @returns the guest's socket */
  async open({ sr, volume }: PoolVolume, host: PoolHost, deadlineMs = PATIENCE_MS): Promise<string> {
    const { socket } = await host.call('volume.attach', { sr, volume })
    const end = performance.now() + PATIENCE_MS
    for (;;) {
      try {
        await host.call('volume.activate', { sr, volume, deadlineMs }, deadlineMs + 1000)
        return socket
      } catch (error) {
        // The last primary was alive a moment ago: nobody can tell yet that it is dead.
        if (!hasCode(error, 'ACTIVATED_ON_ANOTHER_HOST') || performance.now() > end) throw error
        await delay(100)
      }
    }
  }

  async close({ sr, volume }: PoolVolume, host: PoolHost): Promise<void> {
    await host.call('volume.deactivate', { sr, volume, deadlineMs: PATIENCE_MS })
    await host.call('volume.detach', { sr, volume })
  }

  /** Waits until what a host tells of a volume fits. */
  async until(
    { sr, volume }: PoolVolume,
    host: PoolHost,
    what: string,
    holds: (status: VolumeStatus) => boolean
  ): Promise<VolumeStatus> {
    const end = performance.now() + PATIENCE_MS
    for (;;) {
      const status = await host.call('volume.status', { sr, volume })
      if (holds(status)) return status
      assert.ok(performance.now() < end, `${what}: not within ${PATIENCE_MS} ms: ${JSON.stringify(status)}`)
      await delay(20)
    }
  }

  async dispose(): Promise<void> {
    await Promise.all(this.hosts.map(host => host.dispose()))
    await this.coordinator.close()
    await rm(this.#programs, { recursive: true, force: true })
    await rm(this.#directory, { recursive: true, force: true })
  }
}

/** The raw file of a host's replica. */
export const rawFile = ({ volume, layer }: PoolVolume, { storeDirectory }: PoolHost): string =>
  join(storeDirectory, 'volumes', volume, `${layer}.raw`)

/** @throws AssertionError when two raw files differ, with the place of the first difference */
export async function assertSameBytes(a: string, b: string): Promise<void> {
  const [left, right] = [createReadStream(a), createReadStream(b)].map(stream =>
    stream[Symbol.asyncIterator]()
  )
  for (let at = 0; ;) {
    const [one, other] = await Promise.all([left!.next(), right!.next()])
    assert.equal(one.done, other.done, 'files of one length')
    if (one.done === true) return
    const [x, y] = [one.value as Buffer, other.value as Buffer]
    if (!x.equals(y))
      assert.fail(`${a} and ${b} differ at ${at + x.findIndex((byte, index) => byte !== y[index])}`)
    at += x.length
  }
}
