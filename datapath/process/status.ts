import { REGION_BYTES, byteLength, epoch } from '../../core/units.ts'
import { type VolumeStatus } from '../../rpc/datapath-api.ts'
import { type ServedVolume } from './volume.ts'
import { type GuestListeners } from './control-server.ts'

/** What this process tells of a volume that it has attached or open. */
export function volumeStatus(
  { sr, volume, device, mirror }: ServedVolume,
  guests: GuestListeners
): VolumeStatus {
  const socket = guests.socketOf(volume)
  const phase = mirror?.phase ?? 'closed'
  const replicas = mirror?.replicas() ?? []
  return {
    sr,
    volume,
    state: phase === 'replaced' ? 'holding' : phase,
    // Before a record was read there is no epoch to tell.
    epoch: mirror === null || replicas.length === 0 ? epoch(0) : mirror.epoch(),
    attached: device !== null,
    ...(socket === null ? {} : { socket }),
    connections: guests.connectionsTo(volume),
    waits: mirror?.waits() ?? [],
    replicas: replicas.map(({ host, replica, state, totalRegions, doneRegions, trouble }) => ({
      host,
      replica,
      state,
      totalBytes: byteLength(totalRegions * REGION_BYTES),
      doneBytes: byteLength(doneRegions * REGION_BYTES),
      trouble,
    })),
  }
}
