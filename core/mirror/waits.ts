/**
 * What a volume waits for while its guest's requests are held, or while it is being opened: for the one who has to do
 * something about it. Nothing is decided by this.
 */
import { type HostId, type Millis, type ReplicaId } from '../units.ts'
import { type AcceptAnswer } from './messages.ts'
import { type Silent } from './steps.ts'
import { type ReplicaRecord } from './volume-record.ts'

export type Wait =
  /** A replica that must answer and cannot be asked, or does not accept. */
  | {
      readonly for: 'replica'
      readonly host: HostId
      readonly replica: ReplicaId
      /** What its host said, or why nothing came from it. */
      readonly reason: string
      /** The replicas that answer have lost writes, which this one may hold. */
      readonly othersLost: boolean
    }
  /** A disk is full and no other replica that counts has space, or it fails where no other one can help. */
  | {
      readonly for: 'disk'
      readonly host: HostId
      readonly replica: ReplicaId
      readonly isFull: boolean
      /** What its host said. */
      readonly reason: string
    }
  /** A replica is connected, but its promise to this primary is over. */
  | { readonly for: 'promise'; readonly host: HostId; readonly replica: ReplicaId }
  /** A replica owes a promise to the primary of before, which ends when nothing more is heard of it. */
  | {
      readonly for: 'end-of-promise'
      readonly host: HostId
      readonly replica: ReplicaId
      /** Who holds the promise; null when the replica's process does not know since it was started. */
      readonly holder: HostId | null
      readonly remainingMs: Millis
    }
  /** A change of the record. */
  | { readonly for: 'coordinator'; readonly reason: string }
  /** Regions that may differ after a takeover, before they can be read. */
  | { readonly for: 'reconcile'; readonly regions: number }
  /** Another host is the primary, and this one's guest is to be ended. */
  | { readonly for: 'deactivation'; readonly primary: HostId | null }

/** How a primary stands to a replica that must acknowledge. */
export interface ReliedReplica {
  readonly record: ReplicaRecord
  /** Why there is no session; null when there is one. */
  readonly trouble: string | null
  /** It has lost writes that this primary had acknowledged by it. */
  readonly hasLost: boolean
  readonly promiseHolds: boolean
  /** What its disk refuses, while requests wait for that; null when none do. */
  readonly refusal: { readonly isFull: boolean; readonly reason: string } | null
}

/** How a primary stands to the coordinator. */
export interface RecordCondition {
  /** A change of the record is under way, or its outcome is unknown. */
  readonly unsettled: boolean
  /** Why the coordinator did not do what it was asked last; null when it did, or when that does not matter now. */
  readonly trouble: string | null
}

const NO_ANSWER_YET = 'it has not answered yet'

/** What the held requests of an open volume wait for. */
export function waitsOfPrimary(
  relied: readonly ReliedReplica[],
  record: RecordCondition,
  unreconciled: number
): Wait[] {
  const waits: Wait[] = []
  // One that has lost writes is back, or will not help: with another one in contact it is taken out.
  const whole = relied.filter(({ hasLost }) => !hasLost)
  const othersLost = whole.length < relied.length
  for (const one of othersLost && whole.length > 0 ? whole : relied) {
    const { record: replica, trouble, promiseHolds, refusal } = one
    if (refusal !== null) {
      waits.push({ for: 'disk', host: replica.host, replica: replica.replica, ...refusal })
    } else if (trouble !== null) waits.push(replicaWait(replica, trouble, othersLost))
    else if (!promiseHolds) waits.push({ for: 'promise', host: replica.host, replica: replica.replica })
  }
  if (record.unsettled || record.trouble !== null) {
    waits.push({ for: 'coordinator', reason: record.trouble ?? NO_ANSWER_YET })
  }
  if (unreconciled > 0) waits.push({ for: 'reconcile', regions: unreconciled })
  return waits
}

/** What an opening waits for. @param answers the last one of each in-sync replica that was asked */
export function waitsOfOpening(
  answers: readonly (readonly [ReplicaRecord, AcceptAnswer | Silent])[],
  record: RecordCondition
): Wait[] {
  if (record.trouble !== null) return [{ for: 'coordinator', reason: record.trouble }]
  const accepted = answers.flatMap(([, answer]) => (answer.kind === 'accepted' ? [answer] : []))
  // One that has everything is enough.
  if (accepted.some(({ lostAt }) => lostAt === null)) return []
  return answers.flatMap(([replica, answer]): Wait[] => {
    if (answer.kind === 'accepted') return []
    if (answer.kind === 'promised') {
      const { holder, remainingMs } = answer
      return [{ for: 'end-of-promise', host: replica.host, replica: replica.replica, holder, remainingMs }]
    }
    const reason =
      answer.kind === 'higher-epoch' ? 'it has accepted a higher epoch' : `${answer.kind}: ${answer.reason}`
    return [replicaWait(replica, reason, accepted.length > 0)]
  })
}

const replicaWait = ({ host, replica }: ReplicaRecord, reason: string, othersLost: boolean): Wait => ({
  for: 'replica',
  host,
  replica,
  reason,
  othersLost,
})
