import { XosanError } from '../../core/errors.ts'
import { type SrId } from '../../core/units.ts'
import { srKey } from '../../cluster/keys.ts'
import { parseSrRecord, type SrRecord } from '../../cluster/records.ts'
import { catchUp, type VolumeContext } from '../context.ts'
import { type Deadline } from '../deadline.ts'

/**
 * The record of an SR from this host's copy; asks the coordinator only when it is not there.
 *
 * @throws XosanError SR_NOT_FOUND, also while it is being created or destroyed
 */
export async function knownSr(context: VolumeContext, sr: SrId, deadline: Deadline): Promise<SrRecord> {
  const known = context.metadata.sr(sr)
  if (known !== null && known.operation === undefined) return known
  await catchUp(context, deadline)
  const record = context.metadata.sr(sr)
  if (record === null || record.operation !== undefined) throw new XosanError('SR_NOT_FOUND', { sr })
  return record
}

/**
 * The record of an SR as the coordinator has it now, with its revision, for changes that depend on it.
 *
 * @throws XosanError SR_NOT_FOUND, SR_BUSY
 */
export async function currentSr(
  context: VolumeContext,
  sr: SrId,
  deadline: Deadline
): Promise<{ readonly record: SrRecord; readonly revision: number }> {
  const { entry } = await deadline.race(context.coordinator.read(srKey(sr)))
  if (entry === null) throw new XosanError('SR_NOT_FOUND', { sr })
  const record = parseSrRecord(entry.key, entry.value)
  refuseBusy(record)
  return { record, revision: entry.revision }
}

/** @throws XosanError SR_BUSY while the SR is being created or destroyed */
export function refuseBusy(record: SrRecord): void {
  if (record.operation === undefined) return
  const operation = record.operation.kind === 'creating' ? 'created' : 'destroyed'
  throw new XosanError('SR_BUSY', { sr: record.sr, operation })
}
