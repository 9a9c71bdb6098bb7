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
/**
 * Processes remembered, 2 MiB at most: far more than the hosts of an SR run at one time, and not what a broken peer
 * can make up.
 */
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
    const answer = ++this.#lastAnswer
    const peer = this.#peer(from, now)
    if (peer === null) return { answer, renewed: false, takenAway: this.#takes }
    const echoed = peer.answers.find(sent => sent.answer === echo)
    const renewed = echoed !== undefined && now - echoed.sentAt <= this.#promiseTimeMs
    if (renewed) peer.renewedAt = now
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
  takeAwayFrom(process: Incarnation): void {
    const taken = ++this.#takes
    const peer = this.#peers.get(process)
    if (peer !== undefined) peer.takenAway = taken
  }

  /** A number that rises whenever something is taken away from a process. */
  takenAwayFrom(process: Incarnation): number {
    return this.#peers.get(process)?.takenAway ?? this.#takes
  }

  /**
   * What is known of a process; null for a new one while there is no room. Its promises are not renewed then: to refuse
   * a promise is safe, to forget one is not.
   */
  #peer(from: Incarnation, now: Millis): Heard | null {
    let peer = this.#peers.get(from)
    if (peer === undefined) {
      if (this.#peers.size >= PEERS_KEPT && !this.#forgetSilent(now)) return null
      // One that was forgotten and comes again must not look as if nothing had been taken from it.
      peer = { renewedAt: -1 as Millis, answers: [], takenAway: this.#takes }
      this.#peers.set(from, peer)
    }
    return peer
  }

  /**
   * Forgets the peers that were silent for the promise time: whatever they renewed has run out, and no answer that
   * they got may be echoed any more.
   * @returns whether there were any
   */
  #forgetSilent(now: Millis): boolean {
    const before = this.#peers.size
    for (const [incarnation, { answers }] of this.#peers) {
      if (now - answers.at(-1)!.sentAt > this.#promiseTimeMs) this.#peers.delete(incarnation)
    }
    return this.#peers.size < before
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
export function promiseUntil(confirmation: Confirmation, pulse: PeerPulse, promiseTimeMs: Millis): Millis {
  const renewed =
    pulse.incarnation === confirmation.incarnation && pulse.takenAway === confirmation.takenAway
      ? pulse.renewedSentAt
      : confirmation.sentAt
  const from = Math.max(confirmation.sentAt, renewed)
  return (from + PROMISE_SHARE_OF_PRIMARY * promiseTimeMs) as Millis
}
