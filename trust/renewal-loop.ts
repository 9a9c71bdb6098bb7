/**
 * Renews the certificate of this host, for as long as its xosand runs.
 *
 * The order of things is such that whatever is lost or ends in between, the certificate in use is on the list of members:
 *
 * 1. The host of the authority issues a certificate for a new key, adds it to this host's record, and answers. Lost:
 *    the record has one more than it needs.
 * 2. Key and certificate take the place of the old ones on disk. Died before: another is asked for, as if nothing had
 *    been. Died after: the new one is in use from the next start on.
 * 3. A minute later, when every other host has heard of the new record, it is used for new connections.
 * 4. A day later all others of this host are taken from the record; by then every process has taken up the new one.
 *    Asked twice, or late, that does no harm: a certificate is never used again.
 */
import { reasonOf, XosanError } from '../core/errors.ts'
import { type Clock, type Timer } from '../core/ports/clock.ts'
import { type Millis, millis } from '../core/units.ts'
import { createHostKey } from './authority.ts'
import { certificateFacts, certificatesIn, fingerprintOf } from './certificate.ts'
import { signerOf, troubleWith } from './issued-certificate.ts'
import { renewalOf, type RenewalState } from './renewal.ts'
import { type HostCredentials } from './trust-directory.ts'

const DAY_MS = 86_400_000
/** After a start there is more urgent work. */
const START_MS = millis(60_000)
/** Between the record's change and the certificate's use: for hosts whose coordinator is slow to tell them. */
const SETTLE_MS = millis(60_000)
/** A certificate that is saved and could not be put in use. */
const USE_AGAIN_MS = millis(3_600_000)
/** For one call of another host. */
const CALL_MS = millis(60_000)

/** What somebody may want to know. */
export type RenewalEvent =
  | { readonly kind: 'renewed'; readonly notAfter: Date }
  /** It did not work this time, which is no reason to worry. */
  | { readonly kind: 'failed'; readonly daysLeft: number; readonly reason: string }
  /** It has not worked for two months, or the certificate has ended (less than 0 days are left): somebody has to look. */
  | { readonly kind: 'ending'; readonly daysLeft: number; readonly reason: string }

export interface RenewalPorts {
  readonly clock: Clock
  readonly timeOfDay: () => Date
  /** Calls `trust.renew` at the host that holds the authority; on that host itself, its handler. */
  readonly renew: (request: { readonly csrPem: string; readonly inUse: string }) => Promise<{
    readonly certificatePem: string
  }>
  /** Calls `trust.retire` there. */
  readonly retire: (certificates: readonly string[]) => Promise<unknown>
  /** Certificates on this host's record, as known here. */
  readonly listed: () => readonly string[]
  /** `TrustDirectory.saveCertificate`. */
  readonly save: (own: { readonly keyPem: string; readonly certificatePem: string }) => Promise<void>
  /** Lets all processes of this host use what is on disk for new connections. Called again until it succeeds. */
  readonly use: () => Promise<void>
  readonly report: (event: RenewalEvent) => void
  /** Replaced in tests. */
  readonly newKey?: typeof createHostKey
}

export class Renewal {
  readonly #ports: RenewalPorts
  /** What is on disk. */
  #credentials: HostCredentials
  /** Reading of the clock; null when what is on disk is not in use yet. */
  #inUseSince: Millis | null
  #timer: Timer | null = null
  #running = false
  /** Authorities have changed while a pass was under way. */
  #again = false
  #closed = false

  /** @param credentials on disk and in use */
  constructor(credentials: HostCredentials, ports: RenewalPorts) {
    this.#ports = ports
    this.#credentials = credentials
    this.#inUseSince = ports.clock.now()
  }

  start(): void {
    this.#schedule(START_MS)
  }

  /** Begins nothing more. What is under way may still end, but what comes back from the other host is not kept. */
  close(): void {
    this.#closed = true
    this.#timer?.cancel()
  }

  /**
   * Trusts these authorities from now on, the one to be certified by last; they have been saved. A certificate of another
   * one is renewed at once.
   */
  trust(authoritiesPem: string): void {
    this.#credentials = { ...this.#credentials, authoritiesPem }
    if (this.#running) this.#again = true
    else this.#schedule(START_MS)
  }

  /** This host was given another certificate, which is on disk and in use. What is under way is not kept. */
  adopt(own: { readonly keyPem: string; readonly certificatePem: string }): void {
    this.#credentials = { ...this.#credentials, ...own }
    this.#inUseSince = this.#ports.clock.now()
  }

  #schedule(delayMs: Millis): void {
    this.#timer?.cancel()
    if (this.#closed) return
    this.#timer = this.#ports.clock.after(delayMs, () => void this.#pass())
  }

  /** Never rejects. */
  async #pass(): Promise<void> {
    this.#running = true
    let trouble: string | null = null
    try {
      if (this.#inUseSince === null) await this.#use()
      else if (this.#due() === 'fresh') await this.#retire()
      else await this.#renew()
    } catch (error) {
      trouble = reasonOf(error)
    }
    this.#running = false
    if (trouble !== null && !this.#closed) this.#report(trouble)
    this.#schedule(this.#next(trouble))
  }

  #next(trouble: string | null): Millis {
    if (this.#inUseSince === null) return trouble === null ? SETTLE_MS : USE_AGAIN_MS
    const again = this.#again
    this.#again = false
    return again ? START_MS : millis(DAY_MS)
  }

  #due(): RenewalState {
    const { certificatePem } = this.#credentials
    const { state } = this.#end()
    const signer = signerOf(certificatePem, this.#authority())
    return state === 'fresh' && signer === null ? 'due' : state
  }

  async #renew(): Promise<void> {
    const { timeOfDay, renew, save, report, newKey } = this.#ports
    const { identity, certificatePem } = this.#credentials
    this.#requireLongerAuthority()
    const { keyPem, csrPem } = await (newKey ?? createHostKey)()
    const inUse = fingerprintOf(certificatePem)
    const issued = await this.#inTime('trust.renew', renew({ csrPem, inUse }))
    if (this.#closed || fingerprintOf(this.#credentials.certificatePem) !== inUse) return
    const own = { keyPem, certificatePem: issued.certificatePem }
    const trouble = troubleWith({ identity, ...own }, this.#authority(), timeOfDay())
    if (trouble !== null) throw refused(identity.host, trouble)
    await save(own)
    this.#credentials = { ...this.#credentials, ...own }
    this.#inUseSince = null
    report({ kind: 'renewed', notAfter: certificateFacts(issued.certificatePem)!.notAfter })
  }

  async #use(): Promise<void> {
    await this.#ports.use()
    this.#inUseSince = this.#ports.clock.now()
  }

  async #retire(): Promise<void> {
    const { clock, listed, retire } = this.#ports
    if (this.#inUseSince === null || clock.now() - this.#inUseSince < DAY_MS) return
    const inUse = fingerprintOf(this.#credentials.certificatePem)
    const certificates = listed()
    // A list that lacks the one in use is not the latest.
    if (!certificates.includes(inUse) || certificates.length === 1) return
    await this.#inTime('trust.retire', retire(certificates.filter(each => each !== inUse)))
  }

  /** An authority that ends soon gives no certificate that lasts longer: asking every day would only leave traces. */
  #requireLongerAuthority(): void {
    const end = certificateFacts(this.#authority())!.notAfter
    if (renewalOf(end, this.#ports.timeOfDay()).state === 'fresh') return
    throw refused(this.#credentials.identity.host, `the authority itself ends on ${end.toISOString()}`)
  }

  /** The last one: others are on their way out. */
  #authority(): string {
    return certificatesIn(this.#credentials.authoritiesPem).at(-1)!
  }

  #end(): ReturnType<typeof renewalOf> {
    const { notAfter } = certificateFacts(this.#credentials.certificatePem)!
    return renewalOf(notAfter, this.#ports.timeOfDay())
  }

  #report(reason: string): void {
    const { state, daysLeft } = this.#end()
    const kind = state === 'ending' || state === 'expired' ? 'ending' : 'failed'
    this.#ports.report({ kind, daysLeft, reason })
  }

  /** Calls have time limits of their own; this one keeps the loop going whatever becomes of them. */
  async #inTime<T>(what: string, call: Promise<T>): Promise<T> {
    let timer: Timer | undefined
    const late = new Promise<never>((_, reject) => {
      timer = this.#ports.clock.after(CALL_MS, () =>
        reject(new XosanError('DEADLINE_EXCEEDED', { what, deadlineMs: CALL_MS }))
      )
    })
    try {
      return await Promise.race([call, late])
    } finally {
      timer?.cancel()
    }
  }
}

const refused = (host: string, reason: string): XosanError =>
  new XosanError('CERTIFICATE_REFUSED', { host, reason })
