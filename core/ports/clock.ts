import { type Millis } from '../units.ts'

/** A timer that was set. */
export interface Timer {
  /** Forgets the timer; does nothing when it has run already. */
  cancel(): void
}

/**
 * Time as the protocol may use it: durations on a clock that only goes forward and counts through suspends.
 * The time of day does not exist here: clocks of hosts disagree and jump.
 */
export interface Clock {
  /** Milliseconds since some moment in the past. */
  now(): Millis
  /** Runs an action once, no earlier than after the delay (in milliseconds). */
  after(delayMs: Millis, action: () => void): Timer
}

/** Resolves after a delay. */
export const pause = async (clock: Clock, delayMs: Millis): Promise<void> =>
  new Promise(resolve => clock.after(delayMs, resolve))
