import { hasCode } from '../../core/errors.ts'
import { type Clock, pause } from '../../core/ports/clock.ts'
import { millis } from '../../core/units.ts'
import { type Deadline } from '../../volume/deadline.ts'

const AGAIN_MS = millis(200)
/** Without a member that is lost, nobody decides while another one is restarted. */
const PATIENCE_MS = 30_000

/**
 * Asks the coordinator until it answers.
 * @throws XosanError what it says; COORDINATOR_UNAVAILABLE after half a minute; DEADLINE_EXCEEDED
 */
export async function patiently<T>(clock: Clock, deadline: Deadline, ask: () => Promise<T>): Promise<T> {
  const givenUpAt = clock.now() + PATIENCE_MS
  for (;;) {
    try {
      return await deadline.race(ask())
    } catch (error) {
      if (!hasCode(error, 'COORDINATOR_UNAVAILABLE') || clock.now() > givenUpAt) throw error
    }
    await pause(clock, AGAIN_MS)
  }
}
