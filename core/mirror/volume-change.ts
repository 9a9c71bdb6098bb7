/**
 * The changes that the right to write goes through, each a function from one record to the next. None of them
 * looks at anything but the record, so each can be tried again on a newer one after a lost compare-and-swap.
 */
import { type ByteLength, type Epoch, type HostId, type ReplicaId, nextEpoch } from '../units.ts'
import { type ReplicaRecord, type VolumeState } from './volume-record.ts'

/** All replicas of a volume, of every stripe. */
export const replicasOf = (state: VolumeState): readonly ReplicaRecord[] => state.mirrors.flat()

/** The replicas that hold every acknowledged write. */
export const inSyncReplicas = (state: VolumeState): readonly ReplicaRecord[] =>
  replicasOf(state).filter(replica => replica.inSync)

/** Gives a host a new highest epoch; whoever was given an earlier one and did not take it yet has lost it. */
export function reserveEpoch(state: VolumeState, host: HostId, operation: string): VolumeState {
  return { ...state, reserved: { epoch: nextEpoch(state.reserved.epoch), host, operation } }
}

/**
 * Changes the size of a volume that nobody has. Replicas learn of it when they accept an epoch, so an opening whose replicas
 * have accepted already must ask them again: its reservation is void.
 */
export function growVolume(state: VolumeState, size: ByteLength, operation: string): VolumeState {
  const reserved = { ...state.reserved, epoch: nextEpoch(state.reserved.epoch), operation }
  return { ...state, size, reserved }
}

/**
 * Makes a host the primary at the epoch that it reserved. Replicas that were in-sync and did not accept the epoch
 * are in-sync no longer: they may go on without the writes that come now.
 *
 * @returns null when the epoch was given to somebody else meanwhile, or when no in-sync replica accepted
 */
export function takeVolume(
  state: VolumeState,
  host: HostId,
  epoch: Epoch,
  accepted: ReadonlySet<ReplicaId>
): VolumeState | null {
  const mirrors = state.mirrors.map(mirror =>
    mirror.map(replica => ({ ...replica, inSync: replica.inSync && accepted.has(replica.replica) }))
  )
  const isOvertaken = state.reserved.epoch !== epoch || state.reserved.host !== host
  if (isOvertaken || !mirrors.every(hasInSync)) return null
  return { ...state, epoch, primary: host, mirrors }
}

/**
 * Changes which replicas are in-sync, under a new epoch. The epoch rises so that the survivors store a higher one
 * than whatever the others hold, and so that a contender's reservation from before is void.
 *
 * @returns null when the host is no longer primary at the epoch
 * @throws RangeError when no in-sync replica would be left: whoever takes one out has seen to it that another one stays
 */
export function changeMembership(
  state: VolumeState,
  host: HostId,
  from: Epoch,
  operation: string,
  inSync: (replica: ReplicaRecord) => boolean
): VolumeState | null {
  if (state.primary !== host || state.epoch !== from) return null
  const mirrors = state.mirrors.map(mirror =>
    mirror.map(replica => ({ ...replica, inSync: inSync(replica) }))
  )
  if (!mirrors.every(hasInSync)) throw new RangeError('no replica would be left that is in-sync')
  const epoch = nextEpoch(state.reserved.epoch)
  return { ...state, epoch, reserved: { epoch, host, operation }, mirrors }
}

/** Puts a new replica id in the place of a lost one, not in-sync. Same rules and result as changeMembership. */
export function replaceReplica(
  state: VolumeState,
  host: HostId,
  from: Epoch,
  operation: string,
  lost: ReplicaId,
  replacement: Pick<ReplicaRecord, 'replica' | 'store'>
): VolumeState | null {
  const next = changeMembership(
    state,
    host,
    from,
    operation,
    replica => replica.inSync && replica.replica !== lost
  )
  if (next === null) return null
  return {
    ...next,
    mirrors: next.mirrors.map(mirror =>
      mirror.map(replica =>
        replica.replica === lost ? { ...replica, ...replacement, inSync: false } : replica
      )
    ),
  }
}

/** Ends the right to write of the host that has it. The epoch stays: it is the one that the replicas have stored. */
export const closeVolume = (state: VolumeState): VolumeState => ({ ...state, primary: null })

const hasInSync = (mirror: readonly ReplicaRecord[]): boolean => mirror.some(({ inSync }) => inSync)
