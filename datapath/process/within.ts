import { XosanError } from '../../core/errors.ts'
import { type Clock, type Timer } from '../../core/ports/clock.ts'
import { type Millis } from '../../core/units.ts'

/**
 * Waits for a result, which nothing keeps from coming later.
 * @param what is being done, as the subject of "did not finish"
 * @throws DEADLINE_EXCEEDED when it has not come in time
 */
export async function within<Result>(
  clock: Clock,
  deadlineMs: Millis,
  what: string,
  result: Promise<Result>
): Promise<Result> {
  let timer: Timer | undefined
  const late = new Promise<never>((_, reject) => {
    timer = clock.after(deadlineMs, () => reject(new XosanError('DEADLINE_EXCEEDED', { what, deadlineMs })))
  })
  result.catch(() => undefined)
  try {
    return await Promise.race([result, late])
  } finally {
    timer?.cancel()
  }
}
