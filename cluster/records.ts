/** The records beside those of volumes: hosts, SRs, stores, tombstones. `keys.ts` says where each lives. */
import { z } from 'zod'
import { XosanError } from '../core/errors.ts'
import { type Operation } from '../core/mirror/volume-record.ts'
import {
  type ByteLength,
  type HostId,
  type ReplicaId,
  type SrId,
  type StoreId,
  type VolumeKey,
} from '../core/units.ts'
import { bytes, hostId, replicaId, srId, storeId, volumeKey } from '../rpc/identifiers.ts'
import { memberSchema } from '../trust/member-text.ts'
import { type Member } from '../trust/members.ts'
import { memberKey } from './keys.ts'
import { parseRecord, serialiseRecord } from './record-text.ts'
import { operationSchema } from './volume-state.ts'

/** Where a host can be reached. */
export interface HostRecord {
  readonly version: 1
  readonly host: HostId
  readonly name: string
  /** IP address or name that the other hosts connect to. */
  readonly address: string
  readonly ports: {
    /** Of xosand, for the other hosts. */
    readonly peer: number
    /** Control port of each datapath process, by its index. */
    readonly datapath: readonly number[]
    /** NBD port of each datapath process, by its index. */
    readonly nbd: readonly number[]
    /** Of the host's member of etcd, where it has one or may get one. */
    readonly etcd?: { readonly client: number; readonly peer: number }
  }
  /**
   * How many datapath processes the host runs; a volume's key selects one (`core/placement/datapath-index.ts`). None:
   * a witness, which holds no data.
   */
  readonly datapaths: number
}

/** How much of each store stays free when new volumes are placed. */
export type HeadroomRecord =
  { readonly unit: 'fraction'; readonly amount: number } | { readonly unit: 'bytes'; readonly amount: number }

/** An SR and what its creator chose. */
export interface SrRecord {
  readonly version: 1
  readonly sr: SrId
  readonly name: string
  readonly description: string
  /** Raised when the SR is recovered from what is left of it; a lower one is quarantined on contact. */
  readonly generation: number
  readonly configuration: {
    /** Directory of an existing file system on every host; absent: the host's own default. */
    readonly path?: string
    /** Replicas that each volume should have. */
    readonly copies: number
    readonly headroom: HeadroomRecord
  }
  readonly hosts: readonly HostId[]
  readonly createdBy: HostId
  /** Holds the key of the cluster's authority; absent: who created it. */
  readonly authority?: HostId
  /** Present while another host takes the place of the one that held the key: all that are removed by that, it first. */
  readonly succession?: { readonly removed: readonly HostId[]; readonly by: HostId }
  /** Present while it is being created or destroyed: then no volume may be made in it. */
  readonly operation?: Operation
}

/** A host's data directory for an SR. */
export interface StoreRecord {
  readonly version: 1
  readonly host: HostId
  readonly store: StoreId
  readonly directory: string
  /** Of the file system, in bytes, as the host last reported it. */
  readonly space: { readonly total: ByteLength; readonly free: ByteLength }
}

/** Allows a host to delete the files of exactly one replica. */
export interface TombstoneRecord {
  readonly version: 1
  readonly volume: VolumeKey
  readonly host: HostId
  readonly replica: ReplicaId
}

/** By which certificates a host is known (`trust/members.ts`). */
export interface MemberRecord extends Member {
  readonly version: 1
}

/** More datapath processes than this would not fit into the memory of a dom0. */
const DATAPATHS_MAX = 64

const portSchema = z.int().min(1).max(65_535)
const pathSchema = z.string().startsWith('/').max(4096)
const nameSchema = z.string()

const hostSchema = z
  .strictObject({
    version: z.literal(1),
    host: hostId,
    name: nameSchema,
    address: z.string().min(1).max(255),
    ports: z.strictObject({
      peer: portSchema,
      datapath: z.array(portSchema),
      nbd: z.array(portSchema),
      etcd: z.strictObject({ client: portSchema, peer: portSchema }).exactOptional(),
    }),
    datapaths: z.int().min(0).max(DATAPATHS_MAX),
  })
  .refine(
    ({ datapaths, ports }) => ports.datapath.length === datapaths && ports.nbd.length === datapaths,
    'not one port of each kind for every datapath process'
  ) satisfies z.ZodType<HostRecord>

const srSchema = z.strictObject({
  version: z.literal(1),
  sr: srId,
  name: nameSchema,
  description: z.string(),
  generation: z.int().min(1),
  configuration: z.strictObject({
    path: pathSchema.exactOptional(),
    copies: z.int().min(1),
    headroom: z.discriminatedUnion('unit', [
      z.strictObject({ unit: z.literal('fraction'), amount: z.number().min(0).lt(1) }),
      z.strictObject({ unit: z.literal('bytes'), amount: z.int().min(0) }),
    ]),
  }),
  hosts: z.array(hostId),
  createdBy: hostId,
  authority: hostId.exactOptional(),
  succession: z.strictObject({ removed: z.array(hostId).min(1), by: hostId }).exactOptional(),
  operation: operationSchema.exactOptional(),
}) satisfies z.ZodType<SrRecord>

const storeSchema = z.strictObject({
  version: z.literal(1),
  host: hostId,
  store: storeId,
  directory: pathSchema,
  space: z.strictObject({ total: bytes, free: bytes }),
}) satisfies z.ZodType<StoreRecord>

const tombstoneSchema = z.strictObject({
  version: z.literal(1),
  volume: volumeKey,
  host: hostId,
  replica: replicaId,
}) satisfies z.ZodType<TombstoneRecord>

const memberRecordSchema = memberSchema.extend({ version: z.literal(1) }) satisfies z.ZodType<MemberRecord>

/** Parses a record found under a key. @throws RECORD_INVALID; so do all below */
export const parseHostRecord = (key: string, text: string): HostRecord => parseRecord(hostSchema, key, text)
export const parseSrRecord = (key: string, text: string): SrRecord => parseRecord(srSchema, key, text)
export const parseStoreRecord = (key: string, text: string): StoreRecord =>
  parseRecord(storeSchema, key, text)
export const parseTombstoneRecord = (key: string, text: string): TombstoneRecord =>
  parseRecord(tombstoneSchema, key, text)
/** A host is known by the record under its own key: one that names another host could stand in for that host's. */
export function parseMemberRecord(key: string, text: string): MemberRecord {
  const record = parseRecord(memberRecordSchema, key, text)
  if (key === memberKey(record.host)) return record
  throw new XosanError('RECORD_INVALID', { key, reason: `it names host ${record.host}` })
}

/** The canonical text of a record. @throws RECORD_INVALID rather than write what no host could read; so do all below */
export const serialiseHostRecord = (key: string, record: HostRecord): string =>
  serialiseRecord(hostSchema, key, record)
export const serialiseSrRecord = (key: string, record: SrRecord): string =>
  serialiseRecord(srSchema, key, record)
export const serialiseStoreRecord = (key: string, record: StoreRecord): string =>
  serialiseRecord(storeSchema, key, record)
export const serialiseTombstoneRecord = (key: string, record: TombstoneRecord): string =>
  serialiseRecord(tombstoneSchema, key, record)
export const serialiseMemberRecord = (key: string, record: MemberRecord): string =>
  serialiseRecord(memberRecordSchema, key, record)
