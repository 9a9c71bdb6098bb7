import { z } from 'zod'
import {
  type BootId,
  type ByteLength,
  type Epoch,
  type HostId,
  type Incarnation,
  type LayerId,
  type ReplicaId,
  type SrId,
  type StoreId,
  type VolumeKey,
} from '../core/units.ts'

/**
 * RFC 4122 text form in lower case, any version: XenServer's own identifiers carry none. One spelling only, because
 * these become keys, file names and export names, where two spellings would be two things.
 */
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

const uuid = z.string().regex(UUID, 'must be a UUID in lower case')

export const hostId = uuid.transform(text => text as HostId)
export const srId = uuid.transform(text => text as SrId)
export const volumeKey = uuid.transform(text => text as VolumeKey)
export const layerId = uuid.transform(text => text as LayerId)
export const replicaId = uuid.transform(text => text as ReplicaId)
export const storeId = uuid.transform(text => text as StoreId)
export const bootId = uuid.transform(text => text as BootId)
export const incarnation = uuid.transform(text => text as Incarnation)

const natural = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)

export const bytes = natural.transform(value => value as ByteLength)
export const epochNumber = natural.transform(value => value as Epoch)
export const count = natural
/** Time that the callee may take, in milliseconds; longer than an hour is a mistake in the caller. */
export const deadlineMs = z.number().min(1).max(3_600_000)
