/** How much the mirror does at once of what it could do all at once. The simulator, whose volumes are small, has less. */
export interface MirrorBatches {
  /** Write intents that are cleared in one round: all at once they would hold up the event loop. */
  readonly regionsPerRound: number
  /**
   * Bytes that are copied to a replica that is being rebuilt before it is flushed; as much again may follow while that
   * is under way.
   */
  readonly copiedBytes: number
}

/**
 * The shipped values. After a full copy of a large volume there are millions of intents to clear.
 *
 * As for copies, the last flush counts as one request, and so must have a bounded size: a disk that has to seek for every
 * region brings out some 13 MB/s, and so twice this in 10 s, before the 15 s are over that a request may take. With half
 * as many a fast disk would spend its time on flushes.
 */
export const DEFAULT_BATCHES: MirrorBatches = { regionsPerRound: 16_384, copiedBytes: 64 * 2 ** 20 }
