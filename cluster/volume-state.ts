import { z } from 'zod'
import { type VolumeInfo, type VolumeState } from '../core/mirror/volume-record.ts'
import { BLOCK_BYTES } from '../core/units.ts'
import { bytes, epochNumber, hostId, layerId, replicaId, storeId } from '../rpc/identifiers.ts'
import { parseRecord, serialiseRecord } from './record-text.ts'

/** Long enough for an id with a prefix; the record must stay small. */
const OPERATION_ID_LENGTH_MAX = 256

const replicaSchema = z.strictObject({
  host: hostId,
  replica: replicaId,
  store: storeId,
  inSync: z.boolean(),
})

/** Also part of an SR's record. */
export const operationSchema = z.strictObject({
  kind: z.enum(['creating', 'deleting']),
  host: hostId,
  id: z.string().min(1).max(OPERATION_ID_LENGTH_MAX),
})

const stateSchema = z
  .strictObject({
    version: z.literal(1),
    size: bytes.refine(size => size > 0 && size % BLOCK_BYTES === 0, 'not a whole number of blocks'),
    sharable: z.boolean(),
    epoch: epochNumber,
    reserved: z.strictObject({
      epoch: epochNumber,
      host: hostId.nullable(),
      operation: z.string().max(OPERATION_ID_LENGTH_MAX),
    }),
    primary: hostId.nullable(),
    layers: z.array(layerId).min(1),
    mirrors: z.array(z.array(replicaSchema).min(1)).min(1),
    operation: operationSchema.exactOptional(),
  })
  .refine(state => state.epoch <= state.reserved.epoch, 'the epoch is higher than any that was reserved')
  .refine(state => state.primary === null || state.epoch > 0, 'a primary without an epoch')
  .refine(state => allDistinct(state.layers), 'a layer is listed twice')
  .refine(
    state => state.mirrors.every(mirror => allDistinct(mirror.map(({ host }) => host))),
    'a mirror has two replicas on one host'
  )
  .refine(
    state => allDistinct(state.mirrors.flat().map(({ replica }) => replica)),
    'a replica is listed twice'
  ) satisfies z.ZodType<VolumeState>

const infoSchema = z.strictObject({
  version: z.literal(1),
  name: z.string(),
  description: z.string(),
  keys: z.record(z.string(), z.string()),
}) satisfies z.ZodType<VolumeInfo>

function allDistinct(values: readonly string[]): boolean {
  return new Set(values).size === values.length
}

/**
 * Parses the `state` of a volume and checks what must always hold in it.
 * @param key where the record was found, for the message
 * @throws RECORD_INVALID, also for a version that this code does not know
 */
export const parseVolumeState = (key: string, text: string): VolumeState =>
  parseRecord(stateSchema, key, text)

/**
 * The text of a `state`, canonical: equal states are equal texts.
 * @throws RECORD_INVALID rather than write what no host could read
 */
export const serialiseVolumeState = (key: string, state: VolumeState): string =>
  serialiseRecord(stateSchema, key, state)

/** Parses the `info` of a volume. @throws RECORD_INVALID */
export const parseVolumeInfo = (key: string, text: string): VolumeInfo => parseRecord(infoSchema, key, text)

/** The text of an `info`, canonical. @throws RECORD_INVALID */
export const serialiseVolumeInfo = (key: string, info: VolumeInfo): string =>
  serialiseRecord(infoSchema, key, info)
