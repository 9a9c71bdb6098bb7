/**
 * Who may change one replica: the part of the protocol that runs beside the disk. It decides; the service around it
 * stores the epoch, drains the sessions, and answers.
 *
 * The replica is where a writer that lost its right is stopped, because it is the only place that no time can
 * pass between the check and the write.
 */
import { type Epoch, type HostId, type Millis, type SessionNumber } from '../units.ts'
import { type AcceptRequest, type ProcessIdentity, type Purpose } from './messages.ts'

/** The process that the accepted epoch belongs to. */
interface Holder {
  readonly process: ProcessIdentity
  readonly purpose: Purpose
  /** Since when a promise is owed; null until the holder has confirmed that the record names it. */
  confirmedAt: Millis | null
}

export type AcceptVerdict =
  | { readonly kind: 'accept' }
  | {
      readonly kind: 'promised'
      readonly holder: HostId | null
      readonly remainingMs: Millis
      readonly epoch: Epoch
    }
  | { readonly kind: 'higher-epoch'; readonly epoch: Epoch }

export class ReplicaRights {
  readonly #promiseTimeMs: Millis
  /** Until then a promise that an earlier process of this host gave may still be owed to somebody. */
  readonly #graceUntil: Millis
  #accepted: Epoch
  #holder: Holder | null = null
  #session: SessionNumber | null = null
  #lastSession = 0 as SessionNumber

  /**
   * @param accepted the epoch that the replica has stored
   * @param startedAt when this process started: what an earlier one promised ends one promise time later
   */
  constructor(accepted: Epoch, startedAt: Millis, promiseTimeMs: Millis) {
    this.#accepted = accepted
    this.#promiseTimeMs = promiseTimeMs
    this.#graceUntil = (startedAt + promiseTimeMs) as Millis
  }

  get accepted(): Epoch {
    return this.#accepted
  }

  /** Number of the session that may change the replica now. */
  get session(): SessionNumber | null {
    return this.#session
  }

  /** The process that holds the accepted epoch. */
  get holder(): ProcessIdentity | null {
    return this.#holder?.process ?? null
  }

  /**
   * Decides about a request for a higher epoch.
   *
   * @param renewedAt when a heartbeat of a process last renewed its promises
   */
  judge(
    request: AcceptRequest,
    now: Millis,
    renewedAt: (process: ProcessIdentity) => Millis | null
  ): AcceptVerdict {
    const { asker, epoch } = request
    if (epoch < this.#accepted) return { kind: 'higher-epoch', epoch: this.#accepted }
    if (epoch === this.#accepted) {
      // The same number is never reserved twice, so this is the holder again, after an answer was lost.
      const same = this.#holder === null || this.#holder.process.incarnation === asker.incarnation
      return same ? { kind: 'accept' } : { kind: 'higher-epoch', epoch: this.#accepted }
    }
    // The record counts this replica as stale: it can give nobody the right to read or write, so it owes nothing.
    if (!request.inSync) return { kind: 'accept' }
    // The record names nobody as the primary, or the host that asks: what it promised that host's process is void.
    if (this.#accepted <= request.voidUpTo) return { kind: 'accept' }
    const remainingMs = this.#owedFor(request, now, renewedAt)
    if (remainingMs <= 0) return { kind: 'accept' }
    return {
      kind: 'promised',
      holder: this.#holder?.process.host ?? null,
      remainingMs,
      epoch: this.#accepted,
    }
  }

  #owedFor(
    request: AcceptRequest,
    now: Millis,
    renewedAt: (process: ProcessIdentity) => Millis | null
  ): Millis {
    const holder = this.#holder
    // A process that has just started does not know what its predecessor promised.
    if (holder === null) return (this.#graceUntil - now) as Millis
    if (holder.confirmedAt === null) return 0 as Millis
    if (holder.purpose === 'maintenance' && request.purpose === 'guest') return 0 as Millis
    const heard = Math.max(holder.confirmedAt, renewedAt(holder.process) ?? 0)
    return (heard + this.#promiseTimeMs - now) as Millis
  }

  /**
   * Makes the asker the holder of an epoch that `judge` let pass. Sessions of before are void from this call on.
   *
   * @returns the process that lost a promise by it, if one did
   */
  accept(request: AcceptRequest): ProcessIdentity | null {
    const before = this.#holder
    if (request.epoch === this.#accepted && before !== null) return null
    this.#accepted = request.epoch
    this.#holder = { process: request.asker, purpose: request.purpose, confirmedAt: null }
    this.#session = null
    this.#lastSession = 0 as SessionNumber
    return before !== null && before.process.incarnation !== request.asker.incarnation ? before.process : null
  }

  /** The holder says that the record names it: from here a promise is owed. @returns false when refused */
  confirm(epoch: Epoch, asker: ProcessIdentity, purpose: Purpose, now: Millis): boolean {
    if (epoch !== this.#accepted) return false
    this.#holder ??= { process: asker, purpose, confirmedAt: null }
    if (this.#holder.process.incarnation !== asker.incarnation) return false
    this.#holder.confirmedAt = now
    return true
  }

  /** The holder's membership changed: its sessions go on under a higher epoch. @returns false when refused */
  raise(from: Epoch, to: Epoch, asker: ProcessIdentity): boolean {
    if (this.#accepted === to && this.#holder?.process.incarnation === asker.incarnation) return true
    if (from !== this.#accepted || to <= from) return false
    if (this.#holder !== null && this.#holder.process.incarnation !== asker.incarnation) return false
    this.#accepted = to
    return true
  }

  /**
   * Opens a session for the holder; the earlier one is void from this call on. Only this process can have given the
   * confirmation that goes before: a request that was meant for an earlier one, which may have died with writes that
   * the primary counts on, is refused.
   * @returns false when refused
   */
  openSession(epoch: Epoch, session: SessionNumber): boolean {
    if (epoch !== this.#accepted || session <= this.#lastSession) return false
    if (this.#holder === null || this.#holder.confirmedAt === null) return false
    this.#session = session
    this.#lastSession = session
    return true
  }

  /** Forgets a session that ended. */
  closeSession(session: SessionNumber): void {
    if (this.#session === session) this.#session = null
  }

  /** The holder has closed the volume: nothing is owed any more. */
  release(epoch: Epoch, asker: ProcessIdentity): void {
    if (epoch !== this.#accepted || this.#holder?.process.incarnation !== asker.incarnation) return
    this.#holder.confirmedAt = null
    this.#session = null
  }
}
