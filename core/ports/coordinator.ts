/**
 * The strongly consistent store that decides membership and epochs: a flat set of keys with text values (JSON).
 * Every change gives the whole store a new, higher revision; each entry remembers the revision of its last change.
 * Linearizable: what one client was told is seen by every later call of any client.
 *
 * All calls end by themselves within the client's configured call time, with:
 * - COORDINATOR_UNAVAILABLE: the call certainly did nothing, now and later;
 * - COORDINATOR_OUTCOME_UNKNOWN (transact only): the change may have happened, or may still happen later.
 */
export interface Coordinator {
  /** One entry, or null. `revision` is the store's at that moment. */
  read(key: string): Promise<{ readonly entry: Entry | null; readonly revision: number }>
  /** All entries whose key starts with a prefix, sorted by key, as of one revision. */
  list(prefix: string): Promise<{ readonly entries: readonly Entry[]; readonly revision: number }>
  /** Applies all changes at once if every condition holds, else none. */
  transact(conditions: readonly Condition[], changes: readonly Change[]): Promise<TransactResult>
  /**
   * Reports every change of keys with a prefix after a revision, in order, each once; changes of one revision
   * come in one batch. Also reports progress without events now and then, so that a follower knows how far it
   * is. Goes on through interruptions by itself; ends only by `close`, or by `failed` with
   * COORDINATOR_COMPACTED when the history after `afterRevision` is gone: then list again and watch from there.
   */
  watch(prefix: string, afterRevision: number, listener: WatchListener): Watch
  /** Ends all watches and releases what the client holds. */
  close(): Promise<void>
}

export interface Entry {
  readonly key: string
  readonly value: string
  /** Revision of the store at which this entry last changed. */
  readonly revision: number
}

/** Holds when the entry's revision is exactly this one; 0 means that the key does not exist. */
export interface Condition {
  readonly key: string
  readonly revision: number
}

/** Sets a value, or removes the key when `value` is null. */
export interface Change {
  readonly key: string
  readonly value: string | null
}

export interface TransactResult {
  readonly committed: boolean
  /** The store's revision after the change, or at the moment of the refusal. */
  readonly revision: number
  /** When refused: the entries that the conditions name, as they are now (missing ones left out). */
  readonly current: readonly Entry[]
}

export interface WatchListener {
  /** @param events empty for mere progress; an event with `value` null is a removal */
  changed(revision: number, events: readonly WatchEvent[]): void
  failed(error: Error): void
}

export interface WatchEvent {
  readonly key: string
  readonly value: string | null
}

export interface Watch {
  close(): void
}
