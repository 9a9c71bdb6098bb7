/**
 * One member at a time is ended for a moment, so that a majority goes on. Whose turn it is says an entry in etcd itself;
 * a holder that died with it is passed over when the entry has not changed for a while.
 */
import { type EtcdAdmin, type Turn } from '../../cluster/etcd/etcd-admin.ts'
import { hasCode } from '../../core/errors.ts'
import { type Clock, pause } from '../../core/ports/clock.ts'
import { type HostId, type Millis, millis } from '../../core/units.ts'

/** A member needs some seconds to end and to begin; one that takes longer than this has more trouble than its restart. */
export const RESTART_MS = 60_000
const LOOK_MS = millis(500)
/** Nobody decides anything, so a restart takes nothing away, and may be what is missing. */
const NOBODY_DECIDES_MS = 15_000
/** A member that is down for good must not keep the others from learning of new certificates. */
const OTHERS_WAIT_MS = 120_000

export interface RestartOptions extends Restart {
  readonly self: HostId
  readonly admin: Pick<EtcdAdmin, 'turn' | 'passTurn'>
  /** Whether a host is a member of the cluster: the turn of one that was removed is nobody's. */
  readonly isMember: (host: string) => boolean
  /** Whether the others could decide without this host's member. */
  readonly othersDecide: () => Promise<boolean>
}

interface Restart {
  readonly clock: Clock
  /** Whether this host's member answers and knows the leader. */
  readonly serves: () => Promise<boolean>
  readonly restart: () => Promise<void>
  readonly closed: () => boolean
}

/** Restarts this host's member when it is its turn. Returns early when `closed` says so. */
export async function restartInTurn(options: RestartOptions): Promise<void> {
  const held = await takeTurn(options)
  if (options.closed()) return
  await restartNow(options)
  if (held) await giveBack(options)
}

/**
 * Restarts this host's member without asking for its turn.
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

/** @returns false when nobody decides, so that there is no turn to have */
async function takeTurn(options: RestartOptions): Promise<boolean> {
  const { self, clock, admin, isMember, othersDecide, closed } = options
  const begunAt = clock.now()
  let seen = { revision: 0, at: begunAt }
  let answeredAt = begunAt
  let rested = begunAt
  while (!closed()) {
    try {
      const turn = await admin.turn()
      answeredAt = clock.now()
      if (turn !== null && turn.revision !== seen.revision) seen = { revision: turn.revision, at: answeredAt }
      const nobodys = turn === null || turn.holder === self || !isMember(turn.holder)
      const free = nobodys || answeredAt - seen.at > RESTART_MS
      if (!free) rested = answeredAt
      // Said again and again while waiting for the others, so that nobody passes over this host.
      if (free && (await admin.passTurn(turn, self))) {
        if ((await othersDecide()) || clock.now() - rested > OTHERS_WAIT_MS) return true
      }
    } catch (error) {
      if (!isWaiting(error)) throw error
      if (clock.now() - answeredAt > NOBODY_DECIDES_MS) return false
    }
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

async function giveBack({ self, admin, clock, closed }: RestartOptions): Promise<void> {
  const deadline = clock.now() + RESTART_MS
  while (!closed() && clock.now() < deadline) {
    try {
      const turn: Turn | null = await admin.turn()
      if (turn?.holder !== self || (await admin.passTurn(turn, null))) return
    } catch (error) {
      if (!isWaiting(error)) throw error
    }
    await pause(clock, LOOK_MS)
  }
}

/** Failures after which the next look tells more. */
export const isWaiting = (error: unknown): boolean =>
  hasCode(error, 'COORDINATOR_UNAVAILABLE') || hasCode(error, 'COORDINATOR_OUTCOME_UNKNOWN')
