import { createHash, timingSafeEqual } from 'node:crypto'
import { XosanError } from '../core/errors.ts'
import { type Clock } from '../core/ports/clock.ts'
import { type HostId, type Millis, millis } from '../core/units.ts'

/** How long a ticket is good: a call of a plugin on another host, on a pool that is slow. */
const TICKET_MS = millis(10 * 60_000)
/** Wrong answers to one ticket. Nobody can guess 256 bits; a mistake in a caller should come to an end. */
const WRONG_ANSWERS_MAX = 3
/** Answers per second, whatever they say, and how many may come at once: a pool of 64 hosts joins in some seconds. */
const ANSWERS_PER_SECOND = 10
const ANSWERS_AT_ONCE = 20
/** Tickets that are open at one time, the largest pool that xapi supports; the oldest goes first. */
const TICKETS_MAX = 64
const SECRET_BYTES = 32

/** Who may join, as decided by who asked for the ticket. */
export interface Invitation {
  readonly host: HostId
  /** IP addresses to go into its certificate. */
  readonly addresses: readonly string[]
}

interface OpenTicket {
  readonly invitation: Invitation
  /** SHA-256 of the secret: the secret itself is not kept. */
  readonly hash: Buffer
  readonly openUntil: Millis
  wrongAnswers: number
}

interface EnrolmentPorts {
  readonly clock: Clock
  /** So many random bytes, fit for keys. */
  readonly randomBytes: (count: number) => Buffer
}

/**
 * The tickets by which hosts join: each for one host, good once, for ten minutes. They live in memory only; who
 * restarts has forgotten them, and another is asked for.
 */
export class Enrolment {
  readonly #clock: Clock
  readonly #randomBytes: (count: number) => Buffer
  readonly #tickets = new Map<string, OpenTicket>()
  /** Answers that may still come now: a bucket that fills with time. */
  #answersLeft = ANSWERS_AT_ONCE
  #countedAt: Millis

  constructor({ clock, randomBytes }: EnrolmentPorts) {
    this.#clock = clock
    this.#randomBytes = randomBytes
    this.#countedAt = clock.now()
  }

  /**
   * Opens a ticket; an earlier one of the same host is closed.
   * @returns its name, and the secret that who joins has to show, both in base64url
   */
  invite(invitation: Invitation): { readonly id: string; readonly secret: string } {
    this.#closeExpired()
    for (const [id, ticket] of this.#tickets) {
      if (ticket.invitation.host === invitation.host) this.#tickets.delete(id)
    }
    const [oldest] = this.#tickets.keys()
    if (oldest !== undefined && this.#tickets.size >= TICKETS_MAX) this.#tickets.delete(oldest)
    const secret = this.#randomBytes(SECRET_BYTES).toString('base64url')
    const id = this.#randomBytes(8).toString('base64url')
    const openUntil = millis(this.#clock.now() + TICKET_MS)
    this.#tickets.set(id, { invitation, hash: hashOf(secret), openUntil, wrongAnswers: 0 })
    return { id, secret }
  }

  /**
   * Takes an answer. A right one uses the ticket up.
   * @returns who may join @throws XosanError ENROLMENT_REFUSED
   */
  redeem(id: string, secret: string): Invitation {
    this.#count()
    this.#closeExpired()
    const ticket = this.#tickets.get(id)
    if (ticket === undefined) throw refused('there is no such ticket, or not any more')
    if (!timingSafeEqual(hashOf(secret), ticket.hash)) {
      ticket.wrongAnswers += 1
      if (ticket.wrongAnswers >= WRONG_ANSWERS_MAX) this.#tickets.delete(id)
      throw refused('the secret is wrong')
    }
    this.#tickets.delete(id)
    return ticket.invitation
  }

  #count(): void {
    const now = this.#clock.now()
    const filled = this.#answersLeft + ((now - this.#countedAt) / 1000) * ANSWERS_PER_SECOND
    this.#answersLeft = Math.min(filled, ANSWERS_AT_ONCE)
    this.#countedAt = now
    if (this.#answersLeft < 1) throw refused('too many answers at this moment')
    this.#answersLeft -= 1
  }

  #closeExpired(): void {
    const now = this.#clock.now()
    for (const [id, { openUntil }] of this.#tickets) if (openUntil <= now) this.#tickets.delete(id)
  }
}

/** 256 random bits need no slow hash. */
const hashOf = (secret: string): Buffer => createHash('sha256').update(secret).digest()

const refused = (reason: string): XosanError => new XosanError('ENROLMENT_REFUSED', { reason })
