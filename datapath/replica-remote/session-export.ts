import { z } from 'zod'
import { XosanError } from '../../core/errors.ts'
import { type SessionName } from '../../core/mirror/messages.ts'
import { byteLength, epoch, sessionNumber } from '../../core/units.ts'
import { layerId, replicaId, srId, storeId, volumeKey } from '../../rpc/identifiers.ts'

const PREFIX = 'session'

const decimal = z
  .string()
  .regex(/^(0|[1-9][0-9]{0,15})$/)
  .transform(Number)
  .refine(Number.isSafeInteger)

const parts = z.tuple([
  z.literal(PREFIX),
  srId,
  volumeKey,
  replicaId,
  storeId,
  layerId,
  decimal.transform(byteLength),
  decimal.transform(epoch),
  decimal.transform(sessionNumber),
])

/**
 * The NBD export that stands for one session:
 * `session/<sr>/<volume>/<replica>/<store>/<top layer>/<size>/<epoch>/<session>`.
 *
 * Of the layers it names the one that is written, which is what a replica checks: so the name keeps its length however
 * many snapshots there are (NBD allows 4,096 bytes).
 */
export function sessionExportName({ address, epoch, session }: SessionName): string {
  const { sr, volume, replica, store, layers, size } = address
  return [PREFIX, sr, volume, replica, store, layers.at(-1), size, epoch, session].join('/')
}

/**
 * The session that an export stands for, with its top layer alone.
 * @returns null when it is no session's name @throws XosanError INVALID_ARGUMENT when it is a malformed one
 */
export function parseSessionExportName(name: string): SessionName | null {
  if (!name.startsWith(`${PREFIX}/`)) return null
  const parsed = parts.safeParse(name.split('/'))
  if (!parsed.success) {
    throw new XosanError('INVALID_ARGUMENT', { what: 'the export name', reason: 'it names no session' })
  }
  const [, sr, volume, replica, store, layer, size, epochValue, session] = parsed.data
  return { address: { sr, volume, replica, store, layers: [layer], size }, epoch: epochValue, session }
}
