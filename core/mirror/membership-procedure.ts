/**
 * Membership: how the primary takes a replica out of the in-sync set, or back into it.
 *
 * The record changes first, then the survivors store the new epoch, and only then are held writes acknowledged. In
 * this order whoever opens the volume next cannot pick the replica that missed them: neither by the record, nor
 * (when the record is lost and rebuilt from the replicas) by the epochs that the replicas have stored.
 *
 * If the process dies between the record and the epochs, the record alone is right, and the next open raises all
 * epochs. If a survivor does not answer, it is the next one to be taken out.
 */
import { type Epoch, type HostId, type Millis, type ReplicaId } from '../units.ts'
import { type RecordKeeper, changeRecord } from './record-keeper.ts'
import { type Steps, raiseAll } from './steps.ts'
import { inSyncReplicas } from './volume-change.ts'
import { type VolumeState } from './volume-record.ts'

export type MembershipOutcome =
  /** `behind`: in-sync replicas that did not store the new epoch, and must be asked again or taken out. */
  | { readonly kind: 'changed'; readonly behind: readonly ReplicaId[] }
  /** This host is not the primary any more, or the volume was deleted. */
  | { readonly kind: 'replaced' }
  | { readonly kind: 'given-up'; readonly reason: string }

/**
 * @param change the next record for the one that is; null when this host is not the primary at the epoch any more
 * @param mayGiveUp asked between tries while nothing is open
 */
export function* changeMembershipOf(
  keeper: RecordKeeper,
  host: HostId,
  change: (state: VolumeState, from: Epoch) => VolumeState | null,
  mayGiveUp: () => boolean,
  retryDelayMs: Millis
): Steps<MembershipOutcome> {
  const from = keeper.state.epoch
  const outcome = yield* changeRecord(keeper, {
    decide: state => change(state, from),
    // Nobody else raises the epoch of a volume while this host is its primary.
    isDone: state => state.primary === host && state.epoch > from,
    mayGiveUp,
    retryDelayMs,
  })
  if (outcome.kind === 'given-up') return outcome
  if (outcome.kind !== 'changed') return { kind: 'replaced' }
  const answers = yield* raiseAll(inSyncReplicas(keeper.state), keeper.state, from)
  const behind: ReplicaId[] = []
  for (const [replica, answer] of answers) if (answer.kind !== 'ok') behind.push(replica)
  return { kind: 'changed', behind }
}
