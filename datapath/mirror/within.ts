import { XosanError } from '../../core/errors.ts'
import { type Clock, type Timer } from '../../core/ports/clock.ts'
import { type Millis } from '../../core/units.ts'

/**
 * Waits for a result, which nothing keeps from coming later.
 * @param late what is being done, as the subject of "did not finish"; or what is thrown instead
 * @throws DEADLINE_EXCEEDED when it has not come in time
 */
export async function within<Result>(
  clock: Clock,
  deadlineMs: Millis,
  late: string | (() => XosanError),
  result: Promise<Result>
): Promise<Result> {
  let timer: Timer | undefined
  const errorOf =
    typeof late === 'string' ? () => new XosanError('DEADLINE_EXCEEDED', { what: late, deadlineMs }) : late
  const tooLate = new Promise<never>((_, reject) => {
    timer = clock.after(deadlineMs, () => reject(errorOf()))
  })
  result.catch(() => undefined)
  try {
    return await Promise.race([result, tooLate])
  } finally {
    timer?.cancel()
  }
}
