import { millis, type VolumeKey } from '../../core/units.ts'
import { datapathApi, type DatapathMethod } from '../../rpc/datapath-api.ts'
import { type RpcServer } from '../../rpc/server.ts'
import { type DatapathNode } from './datapath-node.ts'
import { type GuestSockets } from './guest-sockets.ts'
import {
  type DatapathHandlers,
  type ReplicaMethod,
  register,
  replicaMethods,
  requireOurs,
} from './methods.ts'
import { volumeStatus } from './status.ts'
import { type StoreFinder } from './store-finder.ts'

/** The guests' sockets, as what xosand asks needs them. */
export type GuestListeners = Pick<
  GuestSockets,
  'open' | 'close' | 'disconnect' | 'socketOf' | 'connectionsTo'
>

interface ControlOptions {
  readonly index: number
  readonly node: DatapathNode
  readonly guests: GuestListeners
  readonly stores: Pick<StoreFinder, 'reload'>
  /** Looks again at which cluster the host is in. */
  readonly reloadCluster: () => Promise<void>
  readonly isOurs: (volume: VolumeKey) => boolean
}

/** Serves what this host's xosand asks: every method of `rpc/datapath-api.ts`. */
export function serveControl(server: RpcServer, options: ControlOptions): void {
  const handlers = controlHandlers(options)
  for (const method of Object.keys(datapathApi) as DatapathMethod[]) {
    register(server, method, datapathApi[method].params, handlers[method])
  }
}

/** What answers each method, without a socket. */
export const controlHandlers = (options: ControlOptions): DatapathHandlers<DatapathMethod> => ({
  ...volumeMethods(options),
  ...replicaMethods(options.node, options.isOurs),
})

function volumeMethods({
  index,
  node,
  guests,
  stores,
  reloadCluster,
  isOurs,
}: ControlOptions): DatapathHandlers<Exclude<DatapathMethod, ReplicaMethod>> {
  return {
    'datapath.status': async () => {
      const { incarnation, boot } = node.identity
      const volumes = node.volumes().map(served => volumeStatus(served, guests))
      return Promise.resolve({ incarnation, boot, index, pid: process.pid, volumes })
    },
    'store.reload': async () => {
      await stores.reload()
      return null
    },
    'cluster.reload': async () => {
      await reloadCluster()
      return null
    },
    'volume.attach': async ({ sr, volume }) => {
      requireOurs(volume, isOurs)
      const device = await node.attach(sr, volume)
      return { socket: await guests.open(volume, device), exportName: volume }
    },
    'volume.activate': async ({ sr, volume, deadlineMs }) => {
      requireOurs(volume, isOurs)
      if (node.volume(volume)?.mirror?.phase === 'replaced') {
        // Another host has written since: who was connected here before must not go on with what it remembers.
        guests.disconnect(volume, 'another host had the volume')
      }
      const mirror = await node.activate(sr, volume, millis(deadlineMs))
      return { epoch: mirror.epoch() }
    },
    'volume.deactivate': async ({ volume, deadlineMs }) => {
      try {
        await node.deactivate(volume, millis(deadlineMs))
      } finally {
        // The guest is done with it. What it may still have asked will not be answered by this activation.
        guests.disconnect(volume, 'the volume was deactivated')
      }
      return null
    },
    'volume.detach': async ({ volume }) => {
      await guests.close(volume)
      await node.detach(volume)
      return null
    },
    'volume.resync': async ({ sr, volume }) => {
      requireOurs(volume, isOurs)
      node.resync(sr, volume)
      return Promise.resolve(null)
    },
    'volume.status': async ({ sr, volume }) => {
      const served = node.volume(volume) ?? { sr, volume, device: null, mirror: null }
      return Promise.resolve(volumeStatus(served, guests))
    },
  }
}
