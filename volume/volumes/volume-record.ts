import { XosanError } from '../../core/errors.ts'
import { type VolumeInfo, type VolumeState } from '../../core/mirror/volume-record.ts'
import { type SrId, type VolumeKey } from '../../core/units.ts'
import { tombstoneKey, volumeInfoKey, volumeStateKey } from '../../cluster/keys.ts'
import { serialiseTombstoneRecord } from '../../cluster/records.ts'
import {
  parseVolumeInfo,
  parseVolumeState,
  serialiseVolumeInfo,
  serialiseVolumeState,
} from '../../cluster/volume-state.ts'
import { update } from '../../cluster/update.ts'
import { catchUp, settle, type StoredVolume, type VolumeContext } from '../context.ts'
import { type Deadline } from '../deadline.ts'

/**
 * A volume from this host's copy; asks the coordinator only when it is not there.
 *
 * @throws XosanError VOLUME_NOT_FOUND, also while it is being created
 */
export async function knownVolume(
  context: VolumeContext,
  sr: SrId,
  key: VolumeKey,
  deadline: Deadline
): Promise<StoredVolume> {
  const known = context.metadata.volume(sr, key)
  if (known !== null && known.state.operation === undefined) return known
  await catchUp(context, deadline)
  const volume = context.metadata.volume(sr, key)
  if (volume === null || volume.state.operation !== undefined) {
    throw new XosanError('VOLUME_NOT_FOUND', { sr, volume: key })
  }
  return volume
}

/**
 * Changes a volume's state by compare-and-swap.
 *
 * @param change gives the new state, or the same object when nothing is to be done
 * @throws XosanError VOLUME_NOT_FOUND, and what `change` throws
 */
export async function amendState(
  context: VolumeContext,
  sr: SrId,
  volume: VolumeKey,
  change: (state: VolumeState) => VolumeState,
  deadline: Deadline
): Promise<void> {
  const key = volumeStateKey(sr, volume)
  await update(
    context,
    key,
    entry => {
      if (entry === null) throw new XosanError('VOLUME_NOT_FOUND', { sr, volume })
      const state = parseVolumeState(key, entry.value)
      const changed = change(state)
      return changed === state ? 'unchanged' : { value: serialiseVolumeState(key, changed) }
    },
    deadline.at
  )
  await settle(context, deadline)
}

/** Changes a volume's info by compare-and-swap. @throws XosanError VOLUME_NOT_FOUND */
export async function amendInfo(
  context: VolumeContext,
  sr: SrId,
  volume: VolumeKey,
  change: (info: VolumeInfo) => VolumeInfo,
  deadline: Deadline
): Promise<void> {
  const key = volumeInfoKey(sr, volume)
  await update(
    context,
    key,
    entry => {
      if (entry === null) throw new XosanError('VOLUME_NOT_FOUND', { sr, volume })
      const value = serialiseVolumeInfo(key, change(parseVolumeInfo(key, entry.value)))
      return value === entry.value ? 'unchanged' : { value }
    },
    deadline.at
  )
  await settle(context, deadline)
}

/**
 * Removes a volume's records and leaves a tombstone for each of its replicas, in one transaction: from here the
 * volume does not exist, and its files go as their hosts come to it.
 *
 * @param mayGo is given the state, and throws when the volume must stay
 */
export async function removeVolume(
  context: VolumeContext,
  sr: SrId,
  volume: VolumeKey,
  mayGo: (state: VolumeState) => void,
  deadline: Deadline
): Promise<void> {
  const key = volumeStateKey(sr, volume)
  await update(
    context,
    key,
    entry => {
      if (entry === null) return 'unchanged'
      const state = parseVolumeState(key, entry.value)
      mayGo(state)
      return {
        value: null,
        alongside: [{ key: volumeInfoKey(sr, volume), value: null }, ...tombstones(sr, volume, state)],
      }
    },
    deadline.at
  )
  await settle(context, deadline)
}

function tombstones(sr: SrId, volume: VolumeKey, state: VolumeState): { key: string; value: string }[] {
  return state.mirrors.flat().map(({ host, replica }) => {
    const key = tombstoneKey(sr, replica)
    return { key, value: serialiseTombstoneRecord(key, { version: 1, volume, host, replica }) }
  })
}
