/**
 * Which steps of the protocol universes took: beside the lines that ran, in which order a volume's phases and a replica's
 * standings followed each other, and which answers each message got. Cheap to watch, and seen from outside: a mirror is
 * asked for its phase whenever it says that something has changed.
 */
import { type VolumeMirror } from '../../datapath/mirror/volume-mirror.ts'

const pairs = (kind: string, list: readonly string[]): string[] => list.map(name => `${kind}: ${name}`)

const DISK_ANSWERS = ['gone', 'failed', 'REPLICA_BUSY', 'PEER_UNREACHABLE']
/** A replica that is gone says so to `confirm`, which goes before. */
const SESSION_ERRORS = ['EPOCH_STALE', 'SESSION_STALE', 'REPLICA_BUSY', 'PEER_UNREACHABLE', 'DISK_FAILED']

/**
 * Messages about a session: to open it, and while it is open. Whether it is, and whether its replica answers, is asked in one place for all of
 * them, so what they may end with instead of an answer is counted for all together.
 */
const OF_SESSION = new Set(['session', 'intents', 'digests', 'clear', 'finish'])
/** Messages about an epoch that the asker has, which one place answers, too. */
const OF_EPOCH = new Set(['confirm', 'raise'])

/**
 * Every step that the code can take, as far as its authors know. Phases and standings are looked at when somebody is told
 * that something has changed: of two changes in one turn only the last one is seen.
 */
export const POSSIBLE: readonly string[] = [
  ...pairs('phase', [
    'opening > serving',
    'opening > holding',
    'opening > closing',
    'opening > closed',
    'opening > replaced',
    // Told to end before it was seen to open.
    'closed > closing',
    'serving > holding',
    'serving > opening',
    'serving > closing',
    'serving > replaced',
    'holding > serving',
    'holding > opening',
    'holding > closing',
    'holding > replaced',
    'closing > closed',
    // While it closes, all its replicas lose power, or another host takes the volume; then it goes on closing.
    'closing > opening',
    'closing > replaced',
    'replaced > closing',
    'replaced > closed',
  ]),
  ...pairs('replica', [
    'in-sync > stale',
    'in-sync > rebuilding',
    'stale > rebuilding',
    'stale > in-sync',
    'rebuilding > in-sync',
    'rebuilding > stale',
    'stale > replaced',
    'in-sync > replaced',
  ]),
  // Who is busy says that it is preparing.
  ...pairs('accept', [
    'accepted',
    'promised',
    'preparing',
    'higher-epoch',
    'gone',
    'failed',
    'PEER_UNREACHABLE',
  ]),
  ...pairs('confirm', ['ok', 'refused']),
  ...pairs('raise', ['ok', 'refused']),
  ...pairs('confirm or raise', DISK_ANSWERS),
  ...pairs('session', ['ok']),
  ...pairs('intents', ['ok']),
  ...pairs('digests', ['ok']),
  ...pairs('clear', ['ok']),
  ...pairs('finish', ['ok']),
  ...pairs('about a session', SESSION_ERRORS),
  // Nobody waits until it is busy; a replica that is in the place of a lost one was put there by an administrator.
  ...pairs('create', ['ok', 'PEER_UNREACHABLE']),
  ...pairs('activate', [
    'ok',
    'ACTIVATED_ON_ANOTHER_HOST',
    'NO_REPLICA_REACHABLE',
    'DEADLINE_EXCEEDED',
    'COORDINATOR_UNAVAILABLE',
    'RECORD_INVALID',
    'no answer',
  ]),
]

/** What a step is counted as: a kind of its own, or together with those that are decided in the same place. */
function groupOf(kind: string, step: string): string {
  if (OF_SESSION.has(kind) && step !== 'ok') return 'about a session'
  if (OF_EPOCH.has(kind) && DISK_ANSWERS.includes(step)) return 'confirm or raise'
  return kind
}

/** Counts the steps of one universe. */
export class Transitions {
  readonly counts: Record<string, number> = {}
  readonly #followed = new WeakSet<VolumeMirror>()

  saw(kind: string, step: string): void {
    const name = `${groupOf(kind, step)}: ${step}`
    this.counts[name] = (this.counts[name] ?? 0) + 1
  }

  /** Follows a mirror for as long as its process lives. */
  async follow(mirror: VolumeMirror): Promise<void> {
    if (this.#followed.has(mirror)) return
    this.#followed.add(mirror)
    let phase = mirror.phase
    const standings = new Map<string, string>()
    for (;;) {
      if (mirror.phase !== phase) this.saw('phase', `${phase} > ${mirror.phase}`)
      phase = mirror.phase
      const replicas = mirror.replicas()
      for (const [replica, before] of standings) {
        if (replicas.some(other => other.replica === replica)) continue
        this.saw('replica', `${before} > replaced`)
        standings.delete(replica)
      }
      for (const { replica, state } of replicas) {
        const before = standings.get(replica) ?? state
        if (before !== state) this.saw('replica', `${before} > ${state}`)
        standings.set(replica, state)
      }
      await mirror.changed()
    }
  }
}
