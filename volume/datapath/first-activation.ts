/**
 * A volume that nobody ever opened holds only zeros, so a replica of it can be anywhere without a copy. When it is
 * first activated on a host that has none, one is made there in place of another, and reads are local from then on.
 */
import { isPristine, type ReplicaRecord, type VolumeState } from '../../core/mirror/volume-record.ts'
import { planFirstActivationMove } from '../../core/placement/first-activation.ts'
import { type ReplicaId, type SrId, type VolumeKey } from '../../core/units.ts'
import { tombstoneKey, volumeStateKey } from '../../cluster/keys.ts'
import { serialiseTombstoneRecord, type TombstoneRecord } from '../../cluster/records.ts'
import { transactUntilKnown } from '../../cluster/update.ts'
import { parseVolumeState, serialiseVolumeState } from '../../cluster/volume-state.ts'
import { settle, type VolumeContext } from '../context.ts'
import { Deadline } from '../deadline.ts'
import { liveHosts } from '../live-hosts.ts'
import { currentSr } from '../sr/sr-record.ts'
import { knownVolume } from '../volumes/volume-record.ts'

/** What the move may cost an activation; without it the volume works all the same. */
const MOVE_MS = 5000

/**
 * Moves a replica of a pristine volume to this host, if it has none and has room. What goes wrong is logged, and the
 * volume is activated with the replicas that it has.
 *
 * The new replica begins with a tombstone of its own, which goes in the transaction that makes it part of the volume:
 * whatever happens before leaves files that the janitor may delete.
 */
export async function moveEmptyReplicaHere(
  context: VolumeContext,
  sr: SrId,
  volume: VolumeKey,
  activation: Deadline
): Promise<void> {
  const { state } = await knownVolume(context, sr, volume, activation)
  if (!isPristine(state) || state.mirrors.flat().some(({ host }) => host === context.host)) return
  const deadline = new Deadline(context.clock, 'moving an empty replica', activation.remainingMs(MOVE_MS))
  try {
    const { record } = await currentSr(context, sr, deadline)
    const hosts = await liveHosts(context, sr, deadline)
    const plan = planFirstActivationMove(state, context.host, hosts, record.configuration.headroom)
    if (plan === null) return
    const made: ReplicaRecord = {
      host: context.host,
      store: plan.to.store,
      replica: context.random.uuid() as ReplicaId,
      inSync: true,
    }
    context.replicasInTheMaking.add(made.replica)
    try {
      await move(context, { sr, volume, state, replaced: plan.replace, made }, deadline)
    } finally {
      context.replicasInTheMaking.delete(made.replica)
    }
  } catch (error) {
    context.warn('no replica could be moved to this host before the first activation', {
      volume,
      reason: String(error),
    })
  }
}

interface Move {
  readonly sr: SrId
  readonly volume: VolumeKey
  /** As it was when the move was planned. */
  readonly state: VolumeState
  readonly replaced: ReplicaRecord
  readonly made: ReplicaRecord
}

async function move(context: VolumeContext, plan: Move, deadline: Deadline): Promise<void> {
  const { sr, volume, replaced, made } = plan
  const { layers, size } = plan.state
  const tombstoneOfMade = tombstone(sr, { version: 1, volume, host: made.host, replica: made.replica })
  const begun = await transactUntilKnown(
    context,
    [{ key: tombstoneOfMade.key, revision: 0 }],
    [tombstoneOfMade],
    deadline.at
  )
  // Refused when the answer to an earlier attempt of the same was lost.
  const revision = begun.committed ? begun.revision : (begun.current[0]?.revision ?? 0)
  await context
    .agent(made.host)
    .replica(
      'replica.create',
      { sr, volume, replica: made.replica, store: made.store, layers: [...layers], size },
      deadline.remainingMs()
    )
  const stateKey = volumeStateKey(sr, volume)
  const changes = [
    { key: tombstoneOfMade.key, value: null },
    tombstone(sr, { version: 1, volume, host: replaced.host, replica: replaced.replica }),
  ]
  for (;;) {
    const { entry } = await deadline.race(context.coordinator.read(stateKey))
    const moved = entry === null ? null : withReplica(parseVolumeState(stateKey, entry.value), plan)
    if (entry === null || moved === null) return
    // Whoever carries the tombstone out changes it first: then these files may be gone, and it is too late.
    const { committed, current } = await transactUntilKnown(
      context,
      [
        { key: stateKey, revision: entry.revision },
        { key: tombstoneOfMade.key, revision },
      ],
      [{ key: stateKey, value: serialiseVolumeState(stateKey, moved) }, ...changes],
      deadline.at
    )
    const isClaimed = current.find(({ key }) => key === tombstoneOfMade.key)?.revision !== revision
    if (committed || isClaimed) break
  }
  await settle(context, deadline)
}

/** The state with the new replica in the place of the other; null when the move is no longer possible. */
function withReplica(state: VolumeState, { state: planned, replaced, made }: Move): VolumeState | null {
  const isUnchanged = isPristine(state) && state.operation === undefined && state.size === planned.size
  if (!isUnchanged || !state.mirrors.flat().some(({ replica }) => replica === replaced.replica)) return null
  return {
    ...state,
    mirrors: state.mirrors.map(mirror =>
      mirror.map(current => (current.replica === replaced.replica ? made : current))
    ),
  }
}

function tombstone(sr: SrId, record: TombstoneRecord): { key: string; value: string } {
  const key = tombstoneKey(sr, record.replica)
  return { key, value: serialiseTombstoneRecord(key, record) }
}
