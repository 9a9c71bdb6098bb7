import { type Millis } from '../units.ts'

/** The durations of the mirror's protocol, all in milliseconds. */
export interface MirrorTiming {
  /** Between two heartbeats to one peer. */
  readonly heartbeatIntervalMs: Millis
  /**
   * How long a replica keeps its word after it last heard the primary. It bounds fail-over from below (a new
   * primary waits it out) and false alarms from above (a host that stalls for longer loses its volumes).
   */
  readonly promiseTimeMs: Millis
  /** A replica whose process has not answered heartbeats for this long is taken out; less than the promise. */
  readonly replicaSilenceMs: Millis
  /**
   * A replica that has not answered a request for this long is taken out although its process answers heartbeats. Far
   * longer than silence: a disk may have gigabytes of written pages to bring out before a flush is done, and a copy
   * that is slow is worth a wait that guests endure.
   */
  readonly requestTimeMs: Millis
  /**
   * After a connection was reset: how long the primary tries again before it takes the replica out; one that says that
   * it is at work has the time of a request.
   */
  readonly reconnectGraceMs: Millis
  /** Deadline of one control message between hosts. */
  readonly callTimeoutMs: Millis
  /**
   * How long a takeover that could go on waits for a further replica which is about to accept, so that it need not be
   * left behind. Guests wait meanwhile.
   */
  readonly preparationMs: Millis
  /** First pause before something is tried again; doubles up to sixteen times as much. */
  readonly retryDelayMs: Millis
  /** Between two looks for write intents that may be cleared. */
  readonly clearIntervalMs: Millis
  /** Between two attempts to bring back a replica that is away. */
  readonly rejoinIntervalMs: Millis
}

const ms = (value: number): Millis => value as Millis

/**
 * The shipped values; `docs/internals/failure-detection.md` has the whole reasoning. Promise 4 s: a new primary serves about 4 s after the old one's last sign of life, well within
 * the 15 s that XenServer's HA leaves, and a dom0 that stalls for 3 s under load does not lose its volumes.
 * Silence 2.5 s: a secondary that hangs is out before the primary's own 0.8 x 4 s have passed, so the guest's
 * stall ends with a record and not with a lapse. Preparation 2 s: after the promise of a dead primary, and calls to
 * its host that get no answer, another host still serves within 10 s.
 */
export const DEFAULT_TIMING: MirrorTiming = {
  heartbeatIntervalMs: ms(300),
  promiseTimeMs: ms(4000),
  replicaSilenceMs: ms(2500),
  requestTimeMs: ms(15_000),
  reconnectGraceMs: ms(400),
  callTimeoutMs: ms(1500),
  preparationMs: ms(2000),
  retryDelayMs: ms(50),
  clearIntervalMs: ms(2000),
  rejoinIntervalMs: ms(500),
}

/** The share of the promise time that the primary relies on; the rest covers clocks that run at different speeds. */
export const PROMISE_SHARE_OF_PRIMARY = 0.8

/** The share of the time of a call in which a replica answers; the rest is for the way there and back. */
export const ANSWER_SHARE_OF_CALL = 0.5
