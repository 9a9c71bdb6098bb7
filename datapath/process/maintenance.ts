import { type Clock } from '../../core/ports/clock.ts'
import { type Millis } from '../../core/units.ts'
import { type VolumeMirror } from '../mirror/volume-mirror.ts'

/** How long a maintenance opening may find no progress before it is given up, in milliseconds. */
const IDLE_MS = 30_000 as Millis

/**
 * Resolves when all replicas of a mirror are in-sync, when it is replaced or no longer wanted, or when nothing has come
 * forward for half a minute.
 *
 * @param lookEveryMs how often to look when nothing seems to change, in milliseconds
 */
export async function untilInSync(
  mirror: VolumeMirror,
  clock: Clock,
  lookEveryMs: Millis,
  isWanted: () => boolean
): Promise<void> {
  let before = progressOf(mirror)
  let movedAt = clock.now()
  while (isWanted() && mirror.phase !== 'replaced' && !mirror.allInSync) {
    if (clock.now() - movedAt > IDLE_MS) break
    await mirror.changedWithin(lookEveryMs)
    const progress = progressOf(mirror)
    if (progress !== before) movedAt = clock.now()
    before = progress
  }
}

const progressOf = (mirror: VolumeMirror): string =>
  mirror
    .replicas()
    .map(({ state, doneRegions }) => `${state} ${doneRegions}`)
    .join()
