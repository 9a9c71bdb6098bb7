import { z } from 'zod'
import {
  type Epoch,
  type ByteLength,
  type HostId,
  type LayerId,
  type ReplicaId,
  type SrId,
  type StoreId,
  type VolumeKey,
} from '../core/units.ts'

/**
 * The text form of RFC 4122, in lower case only: two spellings of one id would be two keys. Any version digit is
 * accepted, as xapi gives special hosts and SRs ids that no generator made.
 */
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

const uuidText = z.string().regex(UUID, 'not a UUID in lower case')

/** True for a UUID as XOSAN writes it. */
export const isUuid = (text: string): boolean => UUID.test(text)

export const hostIdSchema = uuidText.transform(text => text as HostId)
export const srIdSchema = uuidText.transform(text => text as SrId)
export const volumeKeySchema = uuidText.transform(text => text as VolumeKey)
export const layerIdSchema = uuidText.transform(text => text as LayerId)
export const replicaIdSchema = uuidText.transform(text => text as ReplicaId)
export const storeIdSchema = uuidText.transform(text => text as StoreId)

const naturalNumber = z.int().min(0)
export const byteLengthSchema = naturalNumber.transform(value => value as ByteLength)
export const epochSchema = naturalNumber.transform(value => value as Epoch)
