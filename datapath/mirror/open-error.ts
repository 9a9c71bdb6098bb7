import { XosanError } from '../../core/errors.ts'
import { type OpenOutcome } from '../../core/mirror/open-procedure.ts'
import { type SrId, type VolumeKey } from '../../core/units.ts'

/** Why a volume was not opened, in the words of the operator. */
export function openError(
  outcome: Exclude<OpenOutcome, { kind: 'opened' }>,
  { sr, volume }: { readonly sr: SrId; readonly volume: VolumeKey }
): XosanError {
  switch (outcome.kind) {
    case 'active-elsewhere':
      return new XosanError('ACTIVATED_ON_ANOTHER_HOST', { volume, host: outcome.host })
    case 'missing':
      return new XosanError('VOLUME_NOT_FOUND', { volume, sr })
    case 'deadline':
    case 'refused':
      return new XosanError('NO_REPLICA_REACHABLE', { volume, reason: outcome.reason })
  }
}
