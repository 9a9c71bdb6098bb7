import { tombstoneKey, volumeStateKey } from '../../cluster/keys.ts'
import { parseVolumeState } from '../../cluster/volume-state.ts'
import { XosanError } from '../../core/errors.ts'
import { type ReplicaAddress } from '../../core/mirror/messages.ts'
import { replicasOf } from '../../core/mirror/volume-change.ts'
import { type Coordinator } from '../../core/ports/coordinator.ts'

/**
 * Refuses to make a replica that the metadata does not know, by the volume's record or by a tombstone of its own, which is
 * there first when an empty replica is to become part of a volume later.
 *
 * A request to make one may come late: when whoever was making the volume has given up, and the tombstone has been
 * carried out already. Nobody would ever delete what is made then. To be asked in the turn of the volume's files:
 * deleting comes after it there, so what is known now will be deleted when it is no longer wanted. Without a record a
 * tombstone says nothing of that: its deleting may be over, and only the tombstone itself still be to be removed.
 *
 * @throws VOLUME_NOT_FOUND, COORDINATOR_UNAVAILABLE
 */
export async function requireWanted(
  coordinator: Coordinator,
  { sr, volume, replica }: Pick<ReplicaAddress, 'sr' | 'volume' | 'replica'>
): Promise<void> {
  const key = volumeStateKey(sr, volume)
  const { entry: record } = await coordinator.read(key)
  if (record !== null) {
    const named = replicasOf(parseVolumeState(key, record.value))
    if (named.some(known => known.replica === replica)) return
    const { entry: tombstone } = await coordinator.read(tombstoneKey(sr, replica))
    if (tombstone !== null) return
  }
  throw new XosanError('VOLUME_NOT_FOUND', { sr, volume })
}
