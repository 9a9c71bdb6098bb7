/**
 * What a datapath process answers, to xosand on `<run directory>/datapath-<index>.sock` and, for the replica.*
 * methods, to other hosts' xosand on its control port. Both programs take parameters and results from here.
 */
import { z } from 'zod'
import {
  bootId,
  bytes,
  count,
  deadlineMs,
  epochNumber,
  hostId,
  incarnation,
  layerId,
  replicaId,
  srId,
  storeId,
  volumeKey,
} from './identifiers.ts'
import { waits } from './waits.ts'

const replicaStatus = z.object({
  host: hostId,
  replica: replicaId,
  state: z.enum(['in-sync', 'stale', 'rebuilding']),
  /** Bytes that a resync under way has to bring over, and those done; both 0 when none is. */
  totalBytes: bytes,
  doneBytes: bytes,
  /** Why there is no session with it; null when there is one. */
  trouble: z.string().nullable(),
})

const volumeStatus = z.object({
  sr: srId,
  volume: volumeKey,
  state: z.enum(['closed', 'opening', 'serving', 'holding', 'closing']),
  epoch: epochNumber,
  attached: z.boolean(),
  /** Path of the NBD socket for the guest, while attached. */
  socket: z.string().optional(),
  connections: count,
  /** What its guest's requests, or its opening, wait for; empty while it serves. */
  waits,
  replicas: z.array(replicaStatus),
})
export type VolumeStatus = z.infer<typeof volumeStatus>

const volumeName = { sr: srId, volume: volumeKey }
const nothing = z.null()

/** `directory` is the store itself, which holds `store.json`; a relative path would depend on who reads it. */
const storeEntry = z.object({ sr: srId, store: storeId, directory: z.string().startsWith('/') })
/** `<state directory>/stores.json`: written by xosand, read by the datapath processes at `store.reload`. */
export const storesFile = z.object({ version: z.literal(1), stores: z.array(storeEntry) })
export type StoresFile = z.infer<typeof storesFile>

/** Method name -> schemas of its parameters and its result. All are idempotent. */
export const datapathApi = {
  'datapath.status': {
    params: z.object({}),
    result: z.object({
      incarnation,
      boot: bootId,
      index: count,
      pid: count,
      volumes: z.array(volumeStatus),
    }),
  },
  /** Reads `stores.json` again. */
  'store.reload': { params: z.object({}), result: nothing },
  /** Looks again at which cluster the host is in, its keys, and where the coordinator is; ends when the host leaves. */
  'cluster.reload': { params: z.object({}), result: nothing },
  /** Makes the guest's NBD socket; I/O waits there until the volume is activated. */
  'volume.attach': {
    params: z.object(volumeName),
    result: z.object({ socket: z.string(), exportName: z.string() }),
  },
  /** Opens the volume as its primary: ends with ACTIVATED_ON_ANOTHER_HOST, NO_REPLICA_REACHABLE or success. */
  'volume.activate': {
    params: z.object({ ...volumeName, deadlineMs }),
    result: z.object({ epoch: epochNumber }),
  },
  'volume.deactivate': { params: z.object({ ...volumeName, deadlineMs }), result: nothing },
  'volume.detach': { params: z.object(volumeName), result: nothing },
  /** Starts to bring stale replicas up to date and returns. */
  'volume.resync': { params: z.object(volumeName), result: nothing },
  'volume.status': { params: z.object(volumeName), result: volumeStatus },
  'replica.create': {
    params: z.object({
      ...volumeName,
      replica: replicaId,
      store: storeId,
      layers: z.array(layerId).min(1),
      size: bytes,
    }),
    result: nothing,
  },
  /** Does nothing when the replica is not there, or another one is in its place. */
  'replica.delete': { params: z.object({ ...volumeName, replica: replicaId }), result: nothing },
  /** Space that this host's replica of the volume takes. */
  'replica.stat': { params: z.object(volumeName), result: z.object({ physicalBytes: bytes }) },
} as const

export type DatapathMethod = keyof typeof datapathApi
export type DatapathParams<M extends DatapathMethod> = z.input<(typeof datapathApi)[M]['params']>
export type DatapathResult<M extends DatapathMethod> = z.output<(typeof datapathApi)[M]['result']>
