/**
 * Promises: how a replica keeps its word to a primary, and how long the primary may rely on it.
 *
 * A replica that has confirmed a primary's epoch owes it not to accept a higher one until it has heard nothing from
 * it for the promise time. Heartbeats between the two datapath processes renew the promises of all volumes at
 * once. Two rules make this safe without comparing clocks:
 *
 * - the primary counts from when it *sent* the heartbeat that was answered, the replica from when it *received* it,
 *   which is later; and the primary relies on less than the whole time;
 * - a heartbeat renews only if it echoes a recent answer. A replica whose answers do not arrive would otherwise go
 *   on renewing for a primary that has long stopped serving, and nobody could take over.
 *
 * The idea is Gray and Cheriton's lease (SOSP 1989), kept by the data path itself instead of a lock server.
 */
import { type Incarnation, type Millis } from '../units.ts'
import { PROMISE_SHARE_OF_PRIMARY } from './timing.ts'

interface Heard {
  /** When a heartbeat last renewed. */
  renewedAt: Millis
  /** Number and time of the answers that an echo may still name. */
  readonly answers: { readonly answer: number; readonly sentAt: Millis }[]
  takenAway: number
}

/** Answers kept for echoes; at one heartbeat per 300 ms these are the last five seconds. */
const ANSWERS_KEPT = 16
/** Processes remembered; a peer that restarts in a loop must not fill the memory. */
const PEERS_KEPT = 1024

/** The replica's side: one per datapath process, for all peers. */
export class PromiseGiver {
  readonly #promiseTimeMs: Millis
  readonly #peers = new Map<Incarnation, Heard>()
  #lastAnswer = 0
  /** How often something was taken from anybody. */
  #takes = 0

  constructor(promiseTimeMs: Millis) {
    this.#promiseTimeMs = promiseTimeMs
  }

  /** Takes a heartbeat and says what to answer. @param echo number of the last answer that the peer received */
  heartbeat(from: Incarnation, echo: number, now: Millis) {
    const peer = this.#peer(from, now)
    const echoed = peer.answers.find(({ answer }) => answer === echo)
    const renewed = echoed !== undefined && now - echoed.sentAt <= this.#promiseTimeMs
    if (renewed) peer.renewedAt = now
    const answer = ++this.#lastAnswer
    peer.answers.push({ answer, sentAt: now })
    if (peer.answers.length > ANSWERS_KEPT) peer.answers.shift()
    return { answer, renewed, takenAway: peer.takenAway }
  }

  /** When a heartbeat of this process last renewed, or null. */
  renewedAt(process: Incarnation): Millis | null {
    const at = this.#peers.get(process)?.renewedAt
    return at === undefined || at < 0 ? null : at
  }

  /** Notes that an epoch was accepted away from a process, which will learn it with the next answer. */
  takeAwayFrom(process: Incarnation, now: Millis): void {
    this.#peer(process, now).takenAway = ++this.#takes
  }

  /** How often something was taken away from a process. */
  takenAwayFrom(process: Incarnation): number {
    return this.#peers.get(process)?.takenAway ?? this.#takes
  }

  #peer(from: Incarnation, now: Millis): Heard {
    let peer = this.#peers.get(from)
    if (peer === undefined) {
      if (this.#peers.size >= PEERS_KEPT) this.#forgetOldest(now)
      // One that was forgotten and comes again must not look as if nothing had been taken from it.
      peer = { renewedAt: -1 as Millis, answers: [], takenAway: this.#takes }
      this.#peers.set(from, peer)
    }
    return peer
  }

  /** Forgets the peer that was silent for longest, unless a promise to it may still be owed. */
  #forgetOldest(now: Millis): void {
    for (const [incarnation, peer] of this.#peers) {
      const last = peer.answers.at(-1)?.sentAt ?? (0 as Millis)
      if (now - last > 10 * this.#promiseTimeMs) {
        this.#peers.delete(incarnation)
        return
      }
    }
  }
}

/** What the primary knows of one peer process, from the heartbeats that it answered. */
export interface PeerPulse {
  /** The process that answers now; null before the first answer. */
  readonly incarnation: Incarnation | null
  /** When the last heartbeat was sent whose answer said that it renewed. */
  readonly renewedSentAt: Millis
  readonly takenAway: number
}

/** What the primary remembers of a replica's confirmation of its epoch. */
export interface Confirmation {
  readonly incarnation: Incarnation
  readonly sentAt: Millis
  readonly takenAway: number
}

/**
 * Until when the primary may rely on a replica's promise.
 *
 * A heartbeat counts only if the process that answered it is the one that confirmed, and has taken nothing away
 * since: otherwise this very volume may be what it took.
 */
export function promiseUntil(
  confirmation: Confirmation | null,
  pulse: PeerPulse,
  promiseTimeMs: Millis
): Millis {
  if (confirmation === null) return -1 as Millis
  const renewed =
    pulse.incarnation === confirmation.incarnation && pulse.takenAway === confirmation.takenAway
      ? pulse.renewedSentAt
      : confirmation.sentAt
  const from = Math.max(confirmation.sentAt, renewed)
  return (from + PROMISE_SHARE_OF_PRIMARY * promiseTimeMs) as Millis
}
