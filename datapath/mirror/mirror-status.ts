/** What can be told of a volume on its primary. */
import { type AcceptAnswer } from '../../core/mirror/messages.ts'
import { type Silent, type Step } from '../../core/mirror/steps.ts'
import { inSyncReplicas, replicasOf } from '../../core/mirror/volume-change.ts'
import { type ReplicaRecord } from '../../core/mirror/volume-record.ts'
import { type Wait, waitsOfOpening, waitsOfPrimary } from '../../core/mirror/waits.ts'
import { type HostId, type ReplicaId } from '../../core/units.ts'
import { type MirrorContext } from './mirror-context.ts'

export type MirrorPhase = 'closed' | 'opening' | 'serving' | 'holding' | 'closing' | 'replaced'

export interface ReplicaStatus {
  readonly host: HostId
  readonly replica: ReplicaId
  readonly state: 'in-sync' | 'stale' | 'rebuilding'
  /** Regions to bring over and those done; both 0 when no resync is under way. */
  readonly totalRegions: number
  readonly doneRegions: number
  /** Why there is no session with it, or why it cannot be brought up to date; null when all is well. */
  readonly trouble: string | null
}

export function replicasOfMirror(context: MirrorContext): ReplicaStatus[] {
  if (!context.opened) return []
  return replicasOf(context.keeper.state).map(({ host, replica, inSync }) => {
    const progress = context.plan.progress(replica)
    const state = inSync ? 'in-sync' : progress === null ? 'stale' : 'rebuilding'
    const [totalRegions, doneRegions] = [progress?.total ?? 0, progress?.done ?? 0]
    const isConnected = context.links.get(replica)?.session != null
    // One that is being rebuilt may be connected, and the source not be able to read what it lacks.
    const trouble = isConnected && inSync ? null : (context.troubles.get(replica) ?? null)
    return { host, replica, state, totalRegions, doneRegions, trouble }
  })
}

/** Whether requests of the guest cannot go on now, other than by taking their time. */
export function isHolding(context: MirrorContext): boolean {
  const { state } = context
  if (state.refusedCount > 0) return true
  if (state.heldCount > 0 || state.withheldCount > 0 || !state.serving) return true
  return context
    .relied()
    .some(({ session, record }) => session === null && !state.caughtUp(record.replica, state.lastNumber))
}

/**
 * Follows what procedures ask of the coordinator and of the replicas, to tell what they wait for. An answer that comes
 * from a replica again takes the place of the one before.
 */
export class Inquiries {
  #recordTrouble: string | null = null
  #answers = new Map<ReplicaId, readonly [ReplicaRecord, AcceptAnswer | Silent]>()

  /** Why the coordinator did not do what it was asked last; null when it did. */
  get recordTrouble(): string | null {
    return this.#recordTrouble
  }

  /** Each in-sync replica that was asked to accept, with its last answer. */
  get answers(): (readonly [ReplicaRecord, AcceptAnswer | Silent])[] {
    return [...this.#answers.values()]
  }

  /** Takes note of a step that was done. @param answer as `performStep` gave it */
  note(step: Step, answer: unknown): void {
    switch (step.do) {
      case 'read-record':
      case 'swap-record': {
        const { kind, reason = null } = answer as { readonly kind: string; readonly reason?: string }
        this.#recordTrouble = kind === 'unavailable' || kind === 'unknown' ? reason : null
        break
      }
      case 'accept': {
        const counted = new Set(inSyncReplicas(step.state).map(({ replica }) => replica))
        for (const replica of this.#answers.keys()) if (!counted.has(replica)) this.#answers.delete(replica)
        this.#answers.set(step.replica.replica, [step.replica, answer as AcceptAnswer | Silent])
        break
      }
      case 'all':
        for (const [index, one] of step.steps.entries()) this.note(one, (answer as unknown[])[index])
        break
      case 'raise':
      case 'wait':
      case 'now':
      case 'fraction':
      case 'uuid':
        break
    }
  }

  forgetAnswers(): void {
    this.#answers.clear()
  }
}

function refusalOf({ links, state }: MirrorContext, replica: ReplicaId) {
  const refusal = links.get(replica)?.refusal ?? null
  if (refusal === null || state.refusals(replica).length === 0) return null
  return { isFull: refusal.code === 'NO_SPACE', reason: refusal.message }
}

/** What the volume waits for; nothing while it serves. */
export function waitsOf(context: MirrorContext, phase: MirrorPhase): Wait[] {
  const { inquiries, links, options, opened, state } = context
  const trouble = inquiries.recordTrouble
  if (phase === 'replaced') {
    const { primary } = context.keeper.state
    return [{ for: 'deactivation', primary: primary === options.identity.host ? null : primary }]
  }
  if (phase === 'opening' && links.size === 0) {
    return waitsOfOpening(inquiries.answers, { unsettled: false, trouble })
  }
  if (!opened || phase === 'serving' || phase === 'closed') return []
  const now = options.clock.now()
  const relied = context.relied().map(({ record, session, hasLost }) => ({
    record,
    hasLost,
    trouble: session === null ? (context.troubles.get(record.replica) ?? 'it is not connected yet') : null,
    promiseHolds: state.promiseHolds(record.replica, now),
    refusal: refusalOf(context, record.replica),
  }))
  // Without a replica to take out, what the coordinator did not do some time ago is of no interest any more.
  const asksCoordinator = phase === 'closing' || relied.some(replica => replica.trouble !== null)
  const record = { unsettled: context.keeper.unsettled, trouble: asksCoordinator ? trouble : null }
  return waitsOfPrimary(relied, record, context.unreconciled.count)
}
