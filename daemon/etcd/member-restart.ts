/** etcd ended and started again, so that it reads other authorities; and whether it serves. */
import { type EtcdAdmin } from '../../cluster/etcd/etcd-admin.ts'
import { hasCode } from '../../core/errors.ts'
import { type Clock, pause } from '../../core/ports/clock.ts'
import { type Millis, millis } from '../../core/units.ts'

/** A member needs some seconds to end and to begin; one that takes longer than this has more trouble than its restart. */
export const RESTART_MS = 60_000
const LOOK_MS = millis(500)

interface Restart {
  readonly clock: Clock
  /** Whether this host's member answers and knows the leader. */
  readonly serves: () => Promise<boolean>
  readonly restart: () => Promise<void>
  readonly closed: () => boolean
}

/**
 * Restarts this host's member.
 * @returns whether it serves again; false after a minute in which it does not, too
 */
export async function restartNow({ clock, restart, serves, closed }: Restart): Promise<boolean> {
  await restart()
  const deadline = clock.now() + RESTART_MS
  while (!closed() && clock.now() < deadline) {
    if (await serves()) return true
    await pause(clock, LOOK_MS)
  }
  return false
}

/** Whether a member answers and knows the leader. @param admin is closed */
export async function memberServes(
  admin: Pick<EtcdAdmin, 'status' | 'close'>,
  member: Parameters<EtcdAdmin['status']>[0],
  withinMs: Millis
): Promise<boolean> {
  try {
    return (await admin.status(member, withinMs)).leader !== '0'
  } catch {
    return false
  } finally {
    admin.close()
  }
}

/** Failures after which the next look tells more. */
export const isWaiting = (error: unknown): boolean =>
  hasCode(error, 'COORDINATOR_UNAVAILABLE') || hasCode(error, 'COORDINATOR_OUTCOME_UNKNOWN')
