import { REGION_BYTES, byteLength, epoch } from '../../core/units.ts'
import { type VolumeStatus } from '../../rpc/datapath-api.ts'
import { type ServedVolume } from './datapath-node.ts'
import { type GuestSockets } from './guest-sockets.ts'

/** What this process tells of a volume that it has attached or open. */
export function volumeStatus(
  { sr, volume, device, mirror }: ServedVolume,
  guests: GuestSockets
): VolumeStatus {
  const socket = guests.socketOf(volume)
  const phase = mirror?.phase ?? 'closed'
  const replicas = mirror?.replicas() ?? []
  const reason = HOLDING[phase]
  return {
    sr,
    volume,
    state: phase === 'replaced' ? 'holding' : phase,
    // Before a record was read there is no epoch to tell.
    epoch: mirror === null || replicas.length === 0 ? epoch(0) : mirror.epoch(),
    attached: device !== null,
    ...(socket === null ? {} : { socket }),
    connections: guests.connectionsTo(volume),
    ...(reason === undefined ? {} : { holding: reason }),
    replicas: replicas.map(({ host, replica, state, totalRegions, doneRegions }) => ({
      host,
      replica,
      state,
      totalBytes: byteLength(totalRegions * REGION_BYTES),
      doneBytes: byteLength(doneRegions * REGION_BYTES),
    })),
  }
}

const HOLDING: Readonly<Record<string, string>> = {
  replaced: 'another host has become the primary; deactivate the volume here',
  holding: 'an in-sync replica, its promise, or a change of the record is awaited',
}
