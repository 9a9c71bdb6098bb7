import { setTimeout as delay } from 'node:timers/promises'
import { reasonOf } from '../../../core/errors.ts'

const POLL_MS = 100

/** Ends a wait for something that may never come. @throws Error with what was waited for */
export async function within<T>(what: string, deadlineMs: number, awaited: Promise<T>): Promise<T> {
  const timer = new AbortController()
  const late = async (): Promise<never> => {
    await delay(deadlineMs, undefined, { signal: timer.signal })
    throw new Error(`${what}: not within ${deadlineMs / 1000} s`)
  }
  const ending = late()
  ending.catch(() => undefined)
  try {
    return await Promise.race([awaited, ending])
  } finally {
    timer.abort()
    // It may fail later, when nobody waits for it any more.
    awaited.catch(() => undefined)
  }
}

/**
 * Looks again and again until something holds.
 *
 * @param look returns null when it does, else what is missing; what it throws is missing, too
 * @throws Error with what is missing still at the end
 */
export async function until(
  what: string,
  deadlineMs: number,
  look: () => Promise<string | null>
): Promise<void> {
  const end = performance.now() + deadlineMs
  for (;;) {
    const missing = await look().catch((error: unknown) => reasonOf(error))
    if (missing === null) return
    if (performance.now() >= end) throw new Error(`${what}: not within ${deadlineMs / 1000} s: ${missing}`)
    await delay(POLL_MS)
  }
}
