/**
 * xosand of a simulated host: the production's `ControlPlane` with everything that is around it in `daemon/main.ts`
 * replaced. A process of its own beside the datapath process; the host's power ends both.
 */
import { Catalogue } from '../../catalogue/catalogue.ts'
import { XosanError } from '../../core/errors.ts'
import { type Coordinator } from '../../core/ports/coordinator.ts'
import { byteLength, millis, type SrId, type VolumeKey } from '../../core/units.ts'
import { type HostRecord, type StoreRecord } from '../../cluster/records.ts'
import { ControlPlane } from '../../daemon/control-plane.ts'
import { Datapaths } from '../../daemon/datapaths.ts'
import { RemoteHosts } from '../../daemon/hosts.ts'
import { type LogFacts } from '../../daemon/log.ts'
import { type HostStores } from '../../daemon/stores.ts'
import { controlHandlers } from '../../datapath/process/control-server.ts'
import { type DatapathNode } from '../../datapath/process/datapath-node.ts'
import { datapathApi, type DatapathMethod } from '../../rpc/datapath-api.ts'
import { peerApi, type PeerMethod } from '../../rpc/peer-api.ts'
import { UNNAMED_CALLER } from '../../trust/caller.ts'
import { type HeldVolume } from '../../volume/references.ts'
import { answerSmapiCall } from '../../volume/smapi.ts'
import { type NetworkHost, type SimulatedNetwork } from './network.ts'
import { type SimulatedCoordinator } from './simulated-coordinator.ts'
import { SimulatedDatabase } from './simulated-database.ts'
import { type HostCompanion, type SimulatedHost } from './simulated-host.ts'
import { type ServedMethod, SimulatedRpcCaller } from './simulated-rpc.ts'
import { SimulatedProcess, type SeededRandom, type World } from './world.ts'

const PEER_PORT = 1
const DATAPATH_PORT = 2
/** Shorter than in production, so that what is left half-done meets more of what goes on; in milliseconds. */
const JANITOR_INTERVAL_MS = millis(2_000)
const COORDINATOR_CALL_MS = 2_000
/** Of every disk, in bytes. */
const DISK_BYTES = 2 ** 40

interface DaemonOptions {
  readonly world: World
  readonly network: SimulatedNetwork
  readonly coordinator: SimulatedCoordinator
  readonly host: SimulatedHost
  readonly sr: SrId
  readonly daemons: () => readonly SimulatedDaemon[]
  /** The daemon of a host has got an answer, from whomever: it may die before it does anything with it. */
  readonly noticed: (daemon: SimulatedDaemon) => void
  /** Guests of a volume on this host's datapath process have lost their connections. */
  readonly disconnected: (host: SimulatedHost, volume: VolumeKey) => void
  /** How many guests of a volume are connected to this host's datapath process. */
  readonly connectionsTo: (host: SimulatedHost, volume: VolumeKey) => number
}

/** What an entry script told xapi. */
export type SmapiAnswer =
  | { readonly kind: 'done'; readonly value: unknown }
  | { readonly kind: 'failed'; readonly error: string }
  /** xosand was not there, or ended meanwhile: nobody knows what was done. */
  | { readonly kind: 'lost' }

export class SimulatedDaemon implements HostCompanion {
  readonly host: SimulatedHost
  readonly database = new SimulatedDatabase()
  readonly #options: DaemonOptions
  readonly #random: SeededRandom
  readonly #served = new WeakMap<DatapathNode, Readonly<Record<string, ServedMethod>>>()
  /** In the run directory: outlives the process, not the boot. */
  #references: readonly HeldVolume[] = []
  #process: SimulatedProcess | null = null
  #client: Coordinator | null = null
  #plane: ControlPlane | null = null

  constructor(options: DaemonOptions) {
    this.#options = options
    this.host = options.host
    this.#random = options.world.random.fork()
    this.host.companion = this
  }

  get name(): string {
    return `${this.host.name}d`
  }
  get process(): SimulatedProcess | null {
    return this.#process
  }
  /** The running process's own; null while there is none. */
  get plane(): ControlPlane | null {
    return this.#plane
  }
  get running(): boolean {
    return this.#process?.paused === false
  }

  start(): void {
    if (this.#process !== null || !this.host.poweredOn) return
    const { world, coordinator, host, noticed, daemons } = this.#options
    const process = new SimulatedProcess(world, host.clockRate)
    const { clock } = process
    this.#process = process
    this.#client = coordinator.client(host.name, action =>
      process.deliver(() => {
        action()
        noticed(this)
      })
    )
    const log = (level: string) => (message: string, facts?: LogFacts) =>
      world.log(this.name, `${level}${message} ${briefly(facts ?? {})}`)
    const remoteHosts = new RemoteHosts({
      records: () => plane.metadata.hosts(),
      connect: (record, port) => {
        const other = daemons().find(({ host: { id } }) => id === record.host)!
        const unreachable = (reason: string) =>
          new XosanError('PEER_UNREACHABLE', { host: record.name, reason })
        return this.#caller(other, port === PEER_PORT ? 'xosand' : 'datapath', unreachable)
      },
    })
    const ownDatapath = this.#caller(
      this,
      'datapath',
      reason => new XosanError('DATAPATH_UNREACHABLE', { index: 0, reason })
    )
    const plane: ControlPlane = new ControlPlane({
      host: host.id,
      version: 'simulated',
      defaultPath: '/',
      coordinatorCallMs: COORDINATOR_CALL_MS,
      janitorIntervalMs: JANITOR_INTERVAL_MS,
      clock,
      random: this.#random.fork(),
      log: { error: log('ERROR '), warn: log(''), info: log(''), debug: () => undefined },
      coordinator: this.#client,
      catalogue: new Catalogue(this.database.asOpened()),
      datapaths: new Datapaths([ownDatapath], clock),
      stores: this.#stores(),
      references: {
        load: () => this.#references,
        save: async volumes => {
          this.#references = volumes
        },
      },
      cluster: IN_ITS_CLUSTER,
      trust: NO_TRUST,
      otherHost: id => remoteHosts.agent(id),
    })
    this.#plane = plane
    world.log(this.name, 'xosand starts')
    process.deliver(() => {
      plane.follower.start()
      plane.janitor.start()
    })
  }

  /** The process dies; what it had saved, and the transactions of the catalogue, stay. */
  kill(): void {
    if (this.#process === null) return
    this.#options.world.log(this.name, 'xosand dies')
    this.#process.kill()
    void this.#client?.close()
    this.#process = null
    this.#client = null
    this.#plane = null
  }

  /** How often it was stopped. */
  stops = 0

  stop(): void {
    this.#options.world.log(this.name, 'xosand is stopped')
    this.stops++
    this.#process?.pause()
  }

  goOn(): void {
    if (this.#process?.paused !== true) return
    this.#options.world.log(this.name, 'xosand goes on')
    this.#process.resume()
  }

  powerWasCut(): void {
    this.kill()
    this.#references = []
  }

  /** Calls an entry script on this host, as xapi does. Never rejects. */
  async smapi(
    plugin: 'volume' | 'datapath',
    name: string,
    parameters: Readonly<Record<string, unknown>>
  ): Promise<SmapiAnswer> {
    const process = this.#process
    const plane = this.#plane
    if (process === null || plane === null) return { kind: 'lost' }
    return new Promise(resolve => {
      void process.ended.then(() => resolve({ kind: 'lost' }))
      process.deliver(() => {
        const call = { plugin, name, arguments: ['--json'], stdin: JSON.stringify(parameters) }
        void answerSmapiCall(plane.context, call).then(([code, value]) => {
          if (!process.alive) return
          if (code === 0) resolve({ kind: 'done', value })
          else resolve({ kind: 'failed', error: errorOf(value) })
        })
      })
    })
  }

  /** What the other hosts must know of this one before there can be an SR. */
  records(): { readonly host: HostRecord; readonly store: StoreRecord } {
    const { id, name, store } = this.host
    const ports = { peer: PEER_PORT, datapath: [DATAPATH_PORT], nbd: [DATAPATH_PORT] }
    const space = { total: byteLength(DISK_BYTES), free: byteLength(DISK_BYTES) }
    return {
      host: { version: 1, host: id, name, address: name, ports, datapaths: 1 },
      store: { version: 1, host: id, store, directory: `/${name}`, space },
    }
  }

  /** The end of a link that a process of this host is. */
  #end(whose: 'xosand' | 'datapath'): NetworkHost {
    const { host } = this
    const process = (): SimulatedProcess | null => (whose === 'xosand' ? this.#process : host.process)
    return {
      id: host.id,
      name: host.name,
      get process() {
        return process()
      },
      get poweredOn() {
        return host.poweredOn
      },
    }
  }

  #caller(
    to: SimulatedDaemon,
    whose: 'xosand' | 'datapath',
    unreachable: (reason: string) => XosanError
  ): SimulatedRpcCaller {
    const { network, noticed } = this.#options
    return new SimulatedRpcCaller({
      network,
      from: this.#end('xosand'),
      to: to.#end(whose),
      served: () => (whose === 'xosand' ? to.#servedByDaemon() : to.#servedByDatapath()),
      unreachable,
      answered: () => noticed(this),
    })
  }

  #servedByDaemon(): Readonly<Record<string, ServedMethod>> {
    const methods = this.#plane!.peerMethods
    return Object.fromEntries(
      (Object.keys(peerApi) as PeerMethod[]).map(method => [
        method,
        {
          params: peerApi[method].params,
          answer: async (params: never) => methods[method](params, UNNAMED_CALLER),
        },
      ])
    )
  }

  #servedByDatapath(): Readonly<Record<string, ServedMethod>> {
    const { host } = this
    const node = host.node!
    const known = this.#served.get(node)
    if (known !== undefined) return known
    const sockets = new Map<VolumeKey, string>()
    const disconnect = (volume: VolumeKey): void => this.#options.disconnected(host, volume)
    const handlers = controlHandlers({
      index: 0,
      node,
      guests: {
        open: async volume => {
          sockets.set(volume, `/nbd/${volume}`)
          return `/nbd/${volume}`
        },
        close: async volume => {
          if (sockets.delete(volume)) disconnect(volume)
        },
        disconnect,
        socketOf: volume => sockets.get(volume) ?? null,
        connectionsTo: volume => this.#options.connectionsTo(host, volume),
      },
      stores: { reload: async () => Promise.resolve() },
      reloadCluster: async () => Promise.resolve(),
      isOurs: () => true,
    })
    const served = Object.fromEntries(
      (Object.keys(datapathApi) as DatapathMethod[]).map(method => [
        method,
        {
          params: datapathApi[method].params,
          answer: async (params: never) => handlers[method](params),
        },
      ])
    )
    this.#served.set(node, served)
    return served
  }

  #stores(): HostStores {
    const { host, sr } = { ...this.#options }
    const space = async () => ({
      total: byteLength(DISK_BYTES),
      free: byteLength(DISK_BYTES - host.disk.used),
    })
    return {
      ensure: async () => Promise.resolve(),
      idAt: async () => Promise.resolve(host.store),
      space,
      checkPath: async () => ({ path: '/', ...(await space()) }),
      prepare: async () => ({ directory: `/${host.name}`, ...(await space()) }),
      remove: async () => Promise.resolve(),
      attached: async () => Promise.resolve([{ sr, store: host.store, directory: `/${host.name}` }]),
      volumeNames: async () => Promise.resolve(volumesOnDisk(host)),
    }
  }
}

/** The volumes that have a directory on a host's disk. */
export const volumesOnDisk = (host: SimulatedHost): string[] =>
  [...host.disk.names.keys()].flatMap(name => /^volumes\/([^/]+)$/.exec(name)?.[1] ?? [])

/** The pool was made before the world began. */
const IN_ITS_CLUSTER = {
  entered: true,
  serves: () => true,
  form: async () => Promise.resolve(null),
  joinExisting: async () => Promise.resolve(),
  dissolve: async () => Promise.resolve(),
}

const noTrust = async (): Promise<never> =>
  Promise.reject(new XosanError('UNSUPPORTED', { what: 'Trust', reason: 'it is no part of this world' }))
const NO_TRUST = { 'trust.renew': noTrust, 'trust.retire': noTrust, 'trust.revoke': noTrust }

/** The code and sentence of a failure as xapi is told of it. */
const errorOf = (answer: unknown): string => (answer as { backtrace: { error: string } }).backtrace.error

const briefly = (facts: LogFacts): string =>
  Object.entries(facts)
    .map(([name, value]) => `${name}=${String(value).replace(/([0-9a-f]{8})-[0-9a-f-]{27}/g, '$1')}`)
    .join(' ')
