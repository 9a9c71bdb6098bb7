import { type z } from 'zod'
import { type HostId } from '../../core/units.ts'
import { type peerApi, type PeerMethod, type PeerParams, type PeerResult } from '../../rpc/peer-api.ts'
import { type Caller } from '../../trust/caller.ts'
import { type Operations } from '../../volume/operations.ts'
import { type References } from '../../volume/references.ts'
import { type HostAgent, type ReplicaMethod } from '../../volume/context.ts'
import { type DatapathParams, type DatapathResult } from '../../rpc/datapath-api.ts'
import { type Datapaths } from '../datapaths.ts'
import { type HostStores } from '../stores.ts'

/** What this host does for the others' xosand, and for its own. */
export type PeerMethods = {
  readonly [M in PeerMethod]: (
    params: z.output<(typeof peerApi)[M]['params']>,
    caller: Caller
  ) => Promise<PeerResult<M>>
}

/** Those that are about certificates. */
export type TrustMethods = Pick<PeerMethods, Extract<PeerMethod, `trust.${string}`>>

interface PeerOptions {
  readonly host: HostId
  readonly version: string
  readonly stores: HostStores
  readonly datapaths: Datapaths
  readonly operations: Operations
  readonly references: References
  readonly trust: TrustMethods
  /** Deletes the replicas that tombstones name, before a store is removed. */
  readonly carryOutTombstones: () => Promise<void>
}

/** A datapath process answers that it has begun, or why it does not. */
const RESYNC_MS = 10_000

export function peerMethods(options: PeerOptions): PeerMethods {
  const { host, version, stores, datapaths, operations, references, trust, carryOutTombstones } = options
  return {
    ...trust,
    'host.ping': async () => ({ host, version }),
    'host.checkPath': async ({ path }) => stores.checkPath(path),
    'host.prepareStore': async ({ sr, store, path }) => stores.prepare(sr, store, path),
    'host.removeStore': async ({ sr, store, directory }) => {
      await carryOutTombstones()
      await stores.remove(sr, store, directory)
      return null
    },
    'host.stat': async ({ sr, store }) => stores.space(sr, store),
    'host.isAtWork': async ({ operation }) => ({ atWork: operations.isUnderWay(operation) }),
    'host.isActivated': async ({ volume }) => ({ activated: references.isHeld(volume, 'activated') }),
    'host.volumes': async () => ({
      volumes: (await datapaths.status()).flatMap(({ status }) => status?.volumes ?? []),
    }),
    'host.resync': async ({ sr, volume }) => datapaths.call('volume.resync', { sr, volume }, RESYNC_MS),
  }
}

/** This host, asked in the same words as any other, without a connection. */
export class LocalHost implements HostAgent {
  readonly #host: HostId
  readonly #methods: PeerMethods
  readonly #datapaths: Datapaths

  constructor(host: HostId, methods: PeerMethods, datapaths: Datapaths) {
    this.#host = host
    this.#methods = methods
    this.#datapaths = datapaths
  }

  async peer<M extends PeerMethod>(method: M, params: PeerParams<M>): Promise<PeerResult<M>> {
    // Parameters of this process need no parsing; the schema's input type only lacks the brands.
    return this.#methods[method](params as never, { host: this.#host })
  }

  async replica<M extends ReplicaMethod>(
    method: M,
    params: DatapathParams<M>,
    deadlineMs: number
  ): Promise<DatapathResult<M>> {
    return this.#datapaths.call(method, params, deadlineMs)
  }
}
