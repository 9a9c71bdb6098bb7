import { randomUUID } from 'node:crypto'
import { tombstoneKey, volumeInfoKey, volumeStateKey } from '../../../cluster/keys.ts'
import { serialiseTombstoneRecord } from '../../../cluster/records.ts'
import { serialiseVolumeInfo, serialiseVolumeState } from '../../../cluster/volume-state.ts'
import { type VolumeInfo, type VolumeState } from '../../../core/mirror/volume-record.ts'
import { type Change } from '../../../core/ports/coordinator.ts'
import {
  type HostId,
  type LayerId,
  type ReplicaId,
  type SrId,
  type StoreId,
  type VolumeKey,
  byteLength,
  epoch,
} from '../../../core/units.ts'

export const newSr = (): SrId => randomUUID() as SrId
export const newHost = (): HostId => randomUUID() as HostId
export const newVolume = (): VolumeKey => randomUUID() as VolumeKey

/** A volume with one replica on each of some hosts. */
export function sampleState(hosts: readonly HostId[], changes: Partial<VolumeState> = {}): VolumeState {
  return {
    version: 1,
    size: byteLength(4 * 1024 * 1024),
    sharable: false,
    epoch: epoch(0),
    reserved: { epoch: epoch(0), host: null, operation: '' },
    primary: null,
    layers: [randomUUID() as LayerId],
    mirrors: [
      hosts.map(host => ({
        host,
        replica: randomUUID() as ReplicaId,
        store: randomUUID() as StoreId,
        inSync: true,
      })),
    ],
    ...changes,
  }
}

export const sampleInfo = (name: string): VolumeInfo => ({
  version: 1,
  name,
  description: '',
  keys: { type: 'user' },
})

/** The changes that create a volume. */
export function volumeChanges(sr: SrId, volume: VolumeKey, state: VolumeState, name: string): Change[] {
  const stateKey = volumeStateKey(sr, volume)
  const infoKey = volumeInfoKey(sr, volume)
  return [
    { key: stateKey, value: serialiseVolumeState(stateKey, state) },
    { key: infoKey, value: serialiseVolumeInfo(infoKey, sampleInfo(name)) },
  ]
}

export function tombstoneChange(sr: SrId, volume: VolumeKey, host: HostId): Change {
  const replica = randomUUID() as ReplicaId
  const key = tombstoneKey(sr, replica)
  return { key, value: serialiseTombstoneRecord(key, { version: 1, volume, host, replica }) }
}
