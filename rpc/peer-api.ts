/** What xosand answers to xosand on other hosts. */
import { z } from 'zod'
import { renewalApi } from '../trust/renewal-api.ts'
import { datapathApi } from './datapath-api.ts'
import { bytes, hostId, srId, storeId, volumeKey } from './identifiers.ts'

const space = { total: bytes, free: bytes }
/** Directory in which stores are kept; null for the host's own default. */
const path = z.string().startsWith('/').max(4096).nullable()

/** Method name -> schemas of its parameters and its result. All are idempotent. */
export const peerApi = {
  ...renewalApi,
  /** Revokes all certificates of a host, at the host that holds the authority. */
  'trust.revoke': { params: z.object({ host: hostId }), result: z.null() },
  'host.ping': { params: z.object({}), result: z.object({ host: hostId, version: z.string() }) },
  /** Checks that stores can be made in a directory. */
  'host.checkPath': { params: z.object({ path }), result: z.object({ path: z.string(), ...space }) },
  /** Makes a store, durably, and tells the datapath processes of it. */
  'host.prepareStore': {
    params: z.object({ sr: srId, store: storeId, path }),
    result: z.object({ directory: z.string(), ...space }),
  },
  /** Removes a store that holds no replica. */
  'host.removeStore': {
    params: z.object({ sr: srId, store: storeId, directory: z.string().startsWith('/') }),
    result: z.null(),
  },
  /** Space of a store's file system. @throws STORE_MISSING */
  'host.stat': { params: z.object({ sr: srId, store: storeId }), result: z.object(space) },
  /** Whether the asked host is still at an operation that it has begun. */
  'host.isAtWork': {
    params: z.object({ operation: z.string().max(256) }),
    result: z.object({ atWork: z.boolean() }),
  },
  /** Whether a guest of the asked host has activated a volume. */
  'host.isActivated': {
    params: z.object({ sr: srId, volume: volumeKey }),
    result: z.object({ activated: z.boolean() }),
  },
  /** What the asked host's datapath processes tell of their volumes. */
  'host.volumes': {
    params: z.object({}),
    result: z.object({ volumes: z.array(datapathApi['volume.status'].result) }),
  },
  /** Starts a resync at the asked host. */
  'host.resync': { params: z.object({ sr: srId, volume: volumeKey }), result: z.null() },
} as const

export type PeerMethod = keyof typeof peerApi
export type PeerParams<M extends PeerMethod> = z.input<(typeof peerApi)[M]['params']>
export type PeerResult<M extends PeerMethod> = z.output<(typeof peerApi)[M]['result']>
