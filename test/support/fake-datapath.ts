import { volumeStateKey } from '../../cluster/keys.ts'
import { parseVolumeState, serialiseVolumeState } from '../../cluster/volume-state.ts'
import { XosanError } from '../../core/errors.ts'
import { type VolumeState } from '../../core/mirror/volume-record.ts'
import { type Coordinator } from '../../core/ports/coordinator.ts'
import { nextEpoch, type HostId, type SrId, type VolumeKey } from '../../core/units.ts'
import { nodeRandom } from '../../daemon/ports/node-random.ts'
import { datapathApi, type DatapathMethod } from '../../rpc/datapath-api.ts'
import { RpcServer } from '../../rpc/server.ts'
import { type Json } from '../../rpc/wire.ts'

interface Options {
  readonly host: HostId
  readonly address: string
  readonly ports: readonly number[]
  readonly socket: (index: number) => string
  readonly coordinator: Coordinator
}

interface Name {
  readonly sr: SrId
  readonly volume: VolumeKey
}

/**
 * Stands for the datapath processes of one host: keeps in memory what it was told, and takes and gives back volumes
 * in the record as an open and a close do, without any data.
 */
export class FakeDatapath {
  /** Calls in the order in which they came, as `method volume`. */
  readonly calls: string[] = []
  readonly replicas = new Map<string, string>()
  readonly attached = new Set<VolumeKey>()
  readonly serving = new Set<VolumeKey>()
  readonly reloads: number[] = []
  /** Runs before a call is answered; may throw, or never resolve. */
  before: (method: DatapathMethod, params: Record<string, unknown>) => Promise<void> | void = () => undefined
  readonly #options: Options
  #servers: RpcServer[] = []
  #incarnation = nodeRandom.uuid()

  constructor(options: Options) {
    this.#options = options
  }

  async start(): Promise<void> {
    this.#incarnation = nodeRandom.uuid()
    this.#servers = this.#options.ports.map((_, index) => this.#server(index))
    for (const [index, server] of this.#servers.entries()) {
      await server.listenUnix(this.#options.socket(index))
      await server.listenTcp(this.#options.address, this.#options.ports[index]!)
    }
  }

  async stop(): Promise<void> {
    await Promise.all(this.#servers.map(server => server.close()))
    this.#servers = []
  }

  /** As after SIGKILL and a new start: what was attached is forgotten, the replicas are not. */
  async crashAndStart(): Promise<void> {
    await this.stop()
    this.attached.clear()
    this.serving.clear()
    await this.start()
  }

  /** As when its promises have lapsed: others may take the volume. */
  async release(sr: SrId, volume: VolumeKey): Promise<void> {
    await this.#deactivate({ sr, volume })
  }

  #server(index: number): RpcServer {
    const server = new RpcServer({ log: () => undefined })
    for (const method of Object.keys(datapathApi) as DatapathMethod[]) {
      server.register<unknown>(method, datapathApi[method].params, async params => {
        const given = params as Record<string, unknown>
        this.calls.push(`${method} ${typeof given['volume'] === 'string' ? given['volume'] : ''}`.trim())
        await this.before(method, given)
        return this.#answer(index, method, given as never)
      })
    }
    return server
  }

  async #answer(index: number, method: DatapathMethod, params: Name & { replica: string }): Promise<Json> {
    const { volume } = params
    switch (method) {
      case 'datapath.status':
        return {
          incarnation: this.#incarnation,
          boot: this.#incarnation,
          index,
          pid: process.pid,
          // All volumes are told by the first one; which process owns which is not what is tested with this fake.
          volumes:
            index === 0 ? [...new Set([...this.attached, ...this.serving])].map(v => this.#status(v)) : [],
        }
      case 'cluster.reload':
        return null
      case 'store.reload':
        this.reloads.push(index)
        return null
      case 'volume.attach':
        this.#srs.set(volume, params.sr)
        this.attached.add(volume)
        return { socket: `/run/fake/${volume}.sock`, exportName: volume }
      case 'volume.activate':
        return { epoch: await this.#activate(params) }
      case 'volume.deactivate':
        await this.#deactivate(params)
        return null
      case 'volume.detach':
        this.attached.delete(volume)
        return null
      case 'volume.resync':
        return null
      case 'volume.status':
        return this.#status(volume)
      case 'replica.create':
        this.replicas.set(params.replica, volume)
        return null
      case 'replica.delete':
        this.replicas.delete(params.replica)
        return null
      case 'replica.stat':
        return { physicalBytes: 4096 }
    }
  }

  readonly #srs = new Map<VolumeKey, SrId>()

  #status(volume: VolumeKey): Json {
    return {
      sr: this.#srs.get(volume) ?? nodeRandom.uuid(),
      volume,
      state: this.serving.has(volume) ? 'serving' : 'closed',
      epoch: 0,
      attached: this.attached.has(volume),
      connections: 0,
      replicas: [],
    }
  }

  async #activate({ sr, volume }: Name): Promise<number> {
    const { host } = this.#options
    let taken = 0
    await this.#change({ sr, volume }, state => {
      if (state.primary !== null && state.primary !== host) {
        throw new XosanError('ACTIVATED_ON_ANOTHER_HOST', { volume, host: state.primary })
      }
      taken = nextEpoch(state.reserved.epoch)
      const epoch = nextEpoch(state.reserved.epoch)
      return { ...state, primary: host, epoch, reserved: { epoch, host, operation: 'fake' } }
    })
    this.#srs.set(volume, sr)
    this.serving.add(volume)
    return taken
  }

  async #deactivate({ sr, volume }: Name): Promise<void> {
    this.serving.delete(volume)
    const { host } = this.#options
    await this.#change({ sr, volume }, state =>
      state.primary === host ? { ...state, primary: null } : state
    )
  }

  async #change({ sr, volume }: Name, change: (state: VolumeState) => VolumeState): Promise<void> {
    const key = volumeStateKey(sr, volume)
    for (;;) {
      const { entry } = await this.#options.coordinator.read(key)
      if (entry === null) return
      const value = serialiseVolumeState(key, change(parseVolumeState(key, entry.value)))
      const { committed } = await this.#options.coordinator.transact(
        [{ key, revision: entry.revision }],
        [{ key, value }]
      )
      if (committed) return
    }
  }
}
