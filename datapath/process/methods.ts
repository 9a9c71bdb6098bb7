import { type z } from 'zod'
import { XosanError } from '../../core/errors.ts'
import { byteLength, type HostId, type VolumeKey } from '../../core/units.ts'
import { type datapathApi, type DatapathMethod, type DatapathResult } from '../../rpc/datapath-api.ts'
import { type RpcServer } from '../../rpc/server.ts'
import { type Json } from '../../rpc/wire.ts'
import { type Caller } from '../../trust/caller.ts'
import { type DatapathNode } from './datapath-node.ts'

/** What answers each method. */
export type DatapathHandlers<M extends DatapathMethod> = {
  [Name in M]: (params: z.output<(typeof datapathApi)[Name]['params']>) => Promise<DatapathResult<Name>>
}

export type ReplicaMethod = 'replica.create' | 'replica.delete' | 'replica.stat'

/** A method's schema and handler belong together by the name that both were looked up by. */
export function register(
  server: RpcServer,
  method: string,
  schema: z.ZodType,
  handler: (params: never, caller: Caller) => Promise<unknown>
): void {
  server.register(method, schema, async (params, caller) => (await handler(params as never, caller)) as Json)
}

/**
 * A host speaks for itself: what it says in the name of another would renew or take away that one's promises.
 * @param host that the message is from, as it says itself
 * @throws XosanError PEER_NOT_TRUSTED
 */
export function requireSpeaker(caller: Caller, host: HostId): void {
  if (caller.host === null || caller.host === host) return
  throw new XosanError('PEER_NOT_TRUSTED', {
    host: caller.host,
    reason: `it sent a message in the name of host ${host}`,
  })
}

/** @throws XosanError INVALID_ARGUMENT for a volume that another process of this host owns: no other may open its files */
export function requireOurs(volume: VolumeKey, isOurs: (volume: VolumeKey) => boolean): void {
  if (isOurs(volume)) return
  throw new XosanError('INVALID_ARGUMENT', {
    what: `The volume ${volume}`,
    reason: 'another datapath process of this host serves it',
  })
}

/** The methods that other hosts' xosand may call as well. */
export function replicaMethods(
  node: DatapathNode,
  isOurs: (volume: VolumeKey) => boolean
): DatapathHandlers<ReplicaMethod> {
  return {
    'replica.create': async ({ sr, volume, replica, store, layers, size }) => {
      requireOurs(volume, isOurs)
      // xosand makes replicas of new volumes only; one that takes the place of another is made by its primary.
      await node.makeReplica({ sr, volume, replica, layers, size }, store)
      return null
    },
    'replica.delete': async ({ sr, volume, replica }) => {
      requireOurs(volume, isOurs)
      await node.replicas.delete(sr, volume, replica)
      return null
    },
    'replica.stat': async ({ sr, volume }) => {
      requireOurs(volume, isOurs)
      return { physicalBytes: byteLength(await node.replicas.physicalBytes(sr, volume)) }
    },
  }
}
