/**
 * xosand without its sockets: the volume operations, the copy of the metadata that they read, and the janitor that ends
 * what was left half-done. Everything outside comes in through ports, so that the simulator runs this very code.
 */
import { type Catalogue } from '../catalogue/catalogue.ts'
import { CatalogueFollower } from '../catalogue/follower.ts'
import { type Clock } from '../core/ports/clock.ts'
import { type Coordinator } from '../core/ports/coordinator.ts'
import { type Random } from '../core/ports/random.ts'
import { type HostId, type Millis } from '../core/units.ts'
import { type ClusterFormation, type HostAgent, type VolumeContext } from '../volume/context.ts'
import { KeyedQueue } from '../volume/keyed-queue.ts'
import { Operations } from '../volume/operations.ts'
import { References, type ReferenceStore } from '../volume/references.ts'
import { type Datapaths } from './datapaths.ts'
import { Janitor } from './janitor.ts'
import { type Log } from './log.ts'
import { CatalogueMetadata } from './metadata.ts'
import { reconcileDatapaths } from './reconcile.ts'
import { LocalHost, peerMethods, type PeerMethods, type TrustMethods } from './rpc/peer-methods.ts'
import { type HostStores } from './stores.ts'
import { MeasuredUsage } from './usage.ts'

export interface ControlPlaneOptions {
  readonly host: HostId
  readonly version: string
  /** Directory that keeps stores when the device-config names no `path`. */
  readonly defaultPath: string
  readonly coordinatorCallMs: number
  readonly janitorIntervalMs: Millis
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly coordinator: Coordinator
  readonly catalogue: Catalogue
  readonly datapaths: Datapaths
  readonly stores: HostStores
  readonly references: ReferenceStore
  readonly cluster: ClusterFormation
  readonly trust: TrustMethods
  /** Another host. @throws XosanError PEER_UNREACHABLE when no host of that id is known */
  readonly otherHost: (host: HostId) => HostAgent
}

export class ControlPlane {
  readonly follower: CatalogueFollower
  readonly metadata: CatalogueMetadata
  readonly usage: MeasuredUsage
  readonly janitor: Janitor
  /** What volume operations are given. */
  readonly context: VolumeContext
  /** What this host does for the others'. */
  readonly peerMethods: PeerMethods

  constructor(options: ControlPlaneOptions) {
    const { host, version, coordinator, catalogue, clock, random, log, datapaths, stores } = options
    this.follower = new CatalogueFollower({
      catalogue,
      coordinator,
      clock,
      random,
      unreadable: ({ key, reason }) => log.error('a record cannot be read', { key, reason }),
      interrupted: error =>
        error === null
          ? log.info('following the coordinator')
          : log.warn('not following the coordinator', { reason: error.message }),
    })
    this.metadata = new CatalogueMetadata(catalogue, this.follower, clock)
    const operations = new Operations(host, random)
    const references = new References(options.references)
    this.peerMethods = peerMethods({
      host,
      version,
      stores,
      datapaths,
      operations,
      references,
      trust: options.trust,
      carryOutTombstones: async () => {
        // The volumes may have been destroyed a moment ago, on another host.
        await this.metadata.synchronise(options.coordinatorCallMs)
        await this.janitor.carryOutTombstones(Number.POSITIVE_INFINITY)
      },
    })
    const localHost = new LocalHost(host, this.peerMethods, datapaths)
    const agent = (id: HostId): HostAgent => (id === host ? localHost : options.otherHost(id))
    this.usage = new MeasuredUsage({ host, clock, agent })
    this.context = {
      host,
      defaultPath: options.defaultPath,
      version,
      cluster: options.cluster,
      coordinator,
      metadata: this.metadata,
      agent,
      datapath: datapaths,
      stores,
      usage: this.usage,
      references,
      datapathQueue: new KeyedQueue(),
      operations,
      replicasInTheMaking: new Set(),
      clock,
      random,
      warn: (message, facts) => log.warn(message, facts),
    }
    this.janitor = new Janitor({
      context: this.context,
      stores,
      log,
      intervalMs: options.janitorIntervalMs,
      reconcile: async () => reconcileDatapaths(this.context, datapaths, log),
    })
    this.follower.subscribe(({ keys }) => this.janitor.noticed(keys))
  }
}
