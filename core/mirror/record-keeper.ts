/**
 * What a primary knows of its volume's record, including what it cannot know.
 *
 * A compare-and-swap whose answer was lost may have happened, or may happen later. Until that is settled the record
 * is one of two versions, and each question is answered on the safe side: a replica that is in-sync in either
 * must acknowledge writes and owe promises; only one that is in-sync in both may be a source or let intents be
 * cleared. It is settled by another compare-and-swap, because only a new revision makes the lost one
 * impossible; a read of the old version proves nothing.
 */
import { type Millis, type ReplicaId } from '../units.ts'
import { type Steps, swapRecord, wait } from './steps.ts'
import { replicasOf } from './volume-change.ts'
import { type VolumeState } from './volume-record.ts'

export class RecordKeeper {
  #state: VolumeState
  #revision: number
  #unsettled: VolumeState | null = null

  constructor(state: VolumeState, revision: number) {
    this.#state = state
    this.#revision = revision
  }

  /** The version that is known to have been the record at `revision`. */
  get state(): VolumeState {
    return this.#state
  }

  get revision(): number {
    return this.#revision
  }

  /** True while a compare-and-swap is under way or its outcome is unknown. */
  get unsettled(): boolean {
    return this.#unsettled !== null
  }

  /** Notes that a version may become the record from now on. */
  begin(next: VolumeState): void {
    this.#unsettled = next
  }

  /** Notes the record at a revision, which settles what was open. */
  settle(state: VolumeState, revision: number): void {
    this.#state = state
    this.#revision = revision
    this.#unsettled = null
  }

  /** Notes that what was begun certainly did nothing. */
  abandon(): void {
    this.#unsettled = null
  }

  /** Whether a replica must answer before a write is acknowledged: in-sync in either version. */
  mustAcknowledge(replica: ReplicaId): boolean {
    return inSyncIn(this.#state, replica) || (this.#unsettled !== null && inSyncIn(this.#unsettled, replica))
  }

  /** Whether a replica may be read and be a source: in-sync in both versions. */
  mayBeRead(replica: ReplicaId): boolean {
    return inSyncIn(this.#state, replica) && (this.#unsettled === null || inSyncIn(this.#unsettled, replica))
  }

  /** Whether every configured replica is in-sync, so that nobody needs the write intents any more. */
  get allInSync(): boolean {
    return this.#unsettled === null && replicasOf(this.#state).every(replica => replica.inSync)
  }
}

function inSyncIn(state: VolumeState, id: ReplicaId): boolean {
  return replicasOf(state).some(replica => replica.replica === id && replica.inSync)
}

export type ChangeOutcome =
  | { readonly kind: 'changed' }
  /** The change makes no sense on the record as it is now: somebody else has changed it. */
  | { readonly kind: 'refused' }
  /** The volume was deleted. */
  | { readonly kind: 'missing' }
  /** Given up as asked, with nothing left open. */
  | { readonly kind: 'given-up'; readonly reason: string }

/** The longest pause between two tries, as a multiple of the first. */
const BACKOFF_MAX = 16

/**
 * Changes the record until the outcome is certain.
 *
 * @param decide the next version for the record as it is, or null when the change no longer applies
 * @param isDone whether a version already contains the change: then a lost answer was a success
 * @param mayGiveUp asked before each new try while nothing is open; a change of unknown outcome is always settled
 */
export function* changeRecord(
  keeper: RecordKeeper,
  options: {
    readonly decide: (state: VolumeState) => VolumeState | null
    readonly isDone: (state: VolumeState) => boolean
    readonly mayGiveUp: () => boolean
    readonly retryDelayMs: Millis
  }
): Steps<ChangeOutcome> {
  let uncertain = false
  let delay = 1
  for (;;) {
    if (options.isDone(keeper.state)) return { kind: 'changed' }
    const next = options.decide(keeper.state)
    if (next === null) return { kind: 'refused' }
    keeper.begin(next)
    const answer = yield* swapRecord(keeper.revision, next)
    switch (answer.kind) {
      case 'committed':
        keeper.settle(next, answer.revision)
        return { kind: 'changed' }
      case 'conflict':
        keeper.settle(answer.state, answer.revision)
        uncertain = false
        continue
      case 'missing':
        keeper.abandon()
        return { kind: 'missing' }
      case 'unknown':
        uncertain = true
        break
      case 'unavailable':
        if (!uncertain) keeper.abandon()
        break
    }
    if (!uncertain && options.mayGiveUp()) return { kind: 'given-up', reason: answer.reason }
    yield* wait((options.retryDelayMs * delay) as Millis)
    delay = Math.min(delay * 2, BACKOFF_MAX)
  }
}
