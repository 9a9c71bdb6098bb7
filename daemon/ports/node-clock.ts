import { openSync, readSync } from 'node:fs'
import { type Clock, type Timer } from '../../core/ports/clock.ts'
import { type Millis, millis } from '../../core/units.ts'

/**
 * `performance.now()` is CLOCK_MONOTONIC, which stands still while the machine is suspended. `/proc/uptime` is
 * CLOCK_BOOTTIME, which does not (proc_uptime(5), clock_gettime(2)): what it runs ahead is the time suspended.
 */
const UPTIME_FILE = '/proc/uptime'

/** `/proc/uptime` shows hundredths of a second, cut off: two readings of the difference may differ by that much. */
const UPTIME_GRAIN_MS = 10

/**
 * How old a reading of `/proc/uptime` may be. A suspend can go unnoticed for so long after the wake-up, at most; the
 * promise keeps a margin hundreds of times as long. A reading takes some microseconds, too much for every request.
 */
const READING_AGE_MAX_MS = 1

/** Longest delay that Node's timers take. */
const TIMER_MS_MAX = 2 ** 31 - 1

/** Reads the machine's up-time with suspends, in milliseconds. */
function uptimeReader(): () => number {
  const file = openSync(UPTIME_FILE, 'r')
  const buffer = Buffer.alloc(64)
  return () =>
    Number.parseFloat(buffer.toString('latin1', 0, readSync(file, buffer, 0, buffer.length, 0))) * 1000
}

/**
 * The clock of a real process: milliseconds that only go forward and count through suspends.
 *
 * @param sources replaced in tests; both in milliseconds, `uptime` counting through suspends
 */
export function createNodeClock(
  sources: { monotonic: () => number; uptime: () => number } = {
    monotonic: () => performance.now(),
    uptime: uptimeReader(),
  }
): Clock {
  let readAt = sources.monotonic()
  let ahead = sources.uptime() - readAt
  const ahead0 = ahead

  const now = (): Millis => {
    const monotonic = sources.monotonic()
    if (monotonic - readAt >= READING_AGE_MAX_MS) {
      readAt = monotonic
      const measured = sources.uptime() - monotonic
      // Less than the grain is noise; following it would make durations jitter.
      if (measured > ahead + UPTIME_GRAIN_MS) ahead = measured
    }
    return millis(monotonic + ahead - ahead0)
  }

  const after = (delayMs: Millis, action: () => void): Timer => {
    const due = now() + delayMs
    const arm = () => setTimeout(fire, Math.min(Math.max(Math.ceil(due - now()), 0), TIMER_MS_MAX))
    // Node's timers count whole milliseconds of their own and may run up to one early.
    const fire = () => {
      if (now() < due) timer = arm()
      else action()
    }
    let timer = arm()
    return { cancel: () => clearTimeout(timer) }
  }

  return { now, after }
}
