/** What xosand answers on its control socket to the `xosan` command and to the SMAPIv3 entry scripts. */
import { z } from 'zod'
import { bytes, count, epochNumber, hostId, replicaId, srId, volumeKey } from './identifiers.ts'
import { fingerprint, memberSchema } from '../trust/member-text.ts'
import { waits } from './waits.ts'

/** A member of etcd, as clients find it. */
const etcdMember = z.object({
  host: hostId,
  address: z.union([z.ipv4(), z.ipv6()]),
  port: z.int().min(1).max(65_535),
})

/** The cluster that a host is in, or is about to be in or to leave. */
const clusterSummary = z.object({
  sr: srId,
  generation: count,
  phase: z.enum(['forming', 'joining', 'joined', 'leaving']),
  coordinator: z.enum(['embedded', 'etcd']),
  /** Empty when the coordinator is not etcd. */
  etcdMembers: z.array(etcdMember),
})

const hostSummary = z.object({
  uuid: hostId,
  name: z.string(),
  address: z.string(),
  /** Whether its xosand answers. */
  state: z.enum(['up', 'down']),
  /** Space of its stores, as last reported, in bytes. */
  total: bytes,
  free: bytes,
})
export type HostSummary = z.infer<typeof hostSummary>

const replicaSummary = z.object({
  host: hostId,
  hostName: z.string(),
  replica: replicaId,
  state: z.enum(['in-sync', 'stale', 'rebuilding']),
  /** Bytes of the resync under way and those done; both 0 when none is. */
  totalBytes: bytes,
  doneBytes: bytes,
  /** Why its host's part is not connected to the primary; null when it is, and while nobody has the volume open. */
  trouble: z.string().nullable(),
})

const volumeSummary = z.object({
  sr: srId,
  key: volumeKey,
  name: z.string(),
  size: bytes,
  /** Space that its replica on this host takes, or null when that is not known here. */
  physical: bytes.nullable(),
  /** The host that serves it, or null when it is closed. */
  primary: hostId.nullable(),
  epoch: epochNumber,
  /** `unknown` when the primary's datapath process cannot be asked. */
  state: z.enum(['closed', 'opening', 'serving', 'holding', 'closing', 'unknown']),
  /** What its guest's requests, or its opening, wait for; empty while it serves. */
  waits,
  /** The same for people, with what to do next: a sentence for each. */
  holding: z.array(z.string()),
  replicas: z.array(replicaSummary),
})
export type VolumeSummary = z.infer<typeof volumeSummary>

const pem = z.string().max(8192)
/** The members as the coordinator lists them: a host that was away may not know by what the others are known now. */
const members = z.array(memberSchema).max(256)

const srSummary = z.object({ sr: srId, name: z.string(), copies: count, volumes: count })

/** Method name -> schemas of its parameters and its result. */
export const controlApi = {
  status: {
    params: z.object({}),
    result: z.object({
      host: z.object({ uuid: hostId, name: z.string(), address: z.string() }),
      pid: count,
      version: z.string(),
      /** Null while the host is in none, and in a lab whose hosts speak in clear. */
      cluster: clusterSummary.nullable(),
      coordinator: z.object({ reachable: z.boolean(), revision: count, catalogueRevision: count }),
      datapaths: z.array(z.object({ index: count, up: z.boolean(), pid: count.nullable(), volumes: count })),
      srs: z.array(srSummary),
      /** What needs an administrator's eye, as sentences. */
      warnings: z.array(z.string()),
    }),
  },
  /** Whether this host could join a cluster now. The pool's other hosts are asked by way of the pool. */
  'cluster.check': {
    params: z.object({}),
    result: z.object({
      version: z.string(),
      /** The SR whose cluster it is in. */
      sr: srId.nullable(),
      /** Whether it has replicas of that SR, or may have some: then it is not taken out for another. */
      holdsData: z.boolean(),
      /** Milliseconds since 1970. */
      timeOfDay: z.number(),
      /** It holds no data. */
      witness: z.boolean(),
    }),
  },
  /** Makes what another host, which is root's as well, needs to join: good once, for minutes. */
  'cluster.invite': {
    params: z.object({ host: hostId, address: z.union([z.ipv4(), z.ipv6()]) }),
    result: z.object({ ticket: z.string().max(8192), etcdMembers: z.array(etcdMember).max(16) }),
  },
  /** Joins a cluster. Ends when the host can be spoken to; done already, it does nothing. */
  'cluster.join': {
    params: z.object({ ticket: z.string().max(8192), etcdMembers: z.array(etcdMember).max(16) }),
    result: z.null(),
  },
  /** Leaves the cluster of an SR and forgets its keys. xosand ends for that, and starts anew. */
  'cluster.leave': { params: z.object({ sr: srId }), result: z.null() },
  /**
   * Trusts an authority that succeeds another one: beside those before or, `alone`, instead of them. Ends when etcd on
   * this host does, too. `by`: the host whose authority it is.
   */
  'cluster.trust': {
    params: z.object({ sr: srId, by: hostId, authorityPem: pem, alone: z.boolean(), members }),
    result: z.null(),
  },
  /**
   * Asks this host for a key to certify by the last authority that it trusts; null when its certificate is of that, and
   * good. `listed`: what is on its record.
   */
  'cluster.request': {
    params: z.object({ sr: srId, listed: z.array(fingerprint).max(64) }),
    result: z.object({ csrPem: pem, inUse: fingerprint }).nullable(),
  },
  /** Gives this host the certificate of the key that it was asked for last. */
  'cluster.certify': {
    params: z.object({ sr: srId, certificatePem: pem, members }),
    result: z.null(),
  },
  /** Ends the membership of a host, by name or UUID: its certificates are worthless from now on. */
  'host.remove': {
    params: z.object({ host: z.string().min(1).max(255) }),
    /**
     * `revoked`: etcd refuses it, too; else as soon as the host of the authority is back. `successor`: the host that holds
     * the authority from now on, when the one that was removed did.
     */
    result: z.object({ host: hostId, revoked: z.boolean(), successor: hostId.nullable() }),
  },
  /** Writes this host's key and certificates into a new directory, as NBD tools read them. */
  'trust.export': {
    params: z.object({ directory: z.string().startsWith('/').max(4096) }),
    result: z.null(),
  },
  'host.ls': { params: z.object({}), result: z.array(hostSummary) },
  'volume.ls': { params: z.object({ sr: srId.optional() }), result: z.array(volumeSummary) },
  'volume.show': { params: z.object({ volume: volumeKey }), result: volumeSummary },
  /** Starts to bring the volume's stale replicas up to date; `volume.show` tells how far it is. */
  'volume.resync': { params: z.object({ volume: volumeKey }), result: z.null() },
  /**
   * One SMAPIv3 call. The result is a pair: the exit code, and the JSON value to print. In that order at the end of
   * the response the entry script, which cannot afford a JSON parser, finds both by position.
   */
  'smapi.call': {
    params: z.object({
      plugin: z.enum(['volume', 'datapath']),
      /** Base name of the entry script, e.g. `SR.create`. */
      name: z.string().max(100),
      /** What followed it on the command line. */
      arguments: z.array(z.string()).max(1000),
      stdin: z.string(),
    }),
    result: z.tuple([z.union([z.literal(0), z.literal(1)]), z.json()]),
  },
} as const

export type ControlMethod = keyof typeof controlApi
export type ControlParams<M extends ControlMethod> = z.input<(typeof controlApi)[M]['params']>
export type ControlResult<M extends ControlMethod> = z.output<(typeof controlApi)[M]['result']>
