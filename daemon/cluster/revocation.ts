/**
 * Keeps removed hosts out for good. Whoever has a connection to etcd can write any record, also that of his own
 * membership; but only the authority can sign a list of revoked certificates, and what was once on it stays revoked. The
 * host of the authority makes it, from what it has ever issued; every host keeps a copy beside its keys, for its own
 * programs, and for the gate before its member of etcd, which asks the authority and not the list of members
 * (docs/decisions/etcd-gate.md), and ends the connections of whoever is on the list.
 */
import { memberKey, MEMBERS_PREFIX, REVOKED_KEY } from '../../cluster/keys.ts'
import { update } from '../../cluster/update.ts'
import { reasonOf, XosanError } from '../../core/errors.ts'
import { type Clock, type Timer } from '../../core/ports/clock.ts'
import { type Coordinator } from '../../core/ports/coordinator.ts'
import { type Random } from '../../core/ports/random.ts'
import { type HostId, millis } from '../../core/units.ts'
import { type MemberList } from '../../trust/members.ts'
import { isSucceeding } from '../../trust/successor.ts'
import { type TrustDirectory } from '../../trust/trust-directory.ts'
import { type Log } from '../log.ts'

interface RevocationOptions {
  readonly directory: TrustDirectory
  readonly members: MemberList
  readonly coordinator: Coordinator
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly host: HostId
  /** Whether a host is about to be a member: then its certificates are its own. */
  readonly isJoining: (host: HostId) => boolean
  /** Told that more certificates are revoked. */
  readonly changed: () => void
}

/** After a failure: the coordinator may be away for long, and nobody is let in by that who was not before. */
const RETRY_MS = millis(5000)
const PUBLISH_MS = 10_000

export class Revocation {
  readonly #options: RevocationOptions
  #running: Promise<void> = Promise.resolve()
  #timer: Timer | null = null
  #closed = false
  readonly #unsubscribe: () => void

  constructor(options: RevocationOptions) {
    this.#options = options
    this.#unsubscribe = options.members.onChange(() => this.look())
  }

  /** Looks at what has changed: the members, or the list that is published. Never rejects. */
  look(): void {
    void this.current()
  }

  /** Resolves when the file is what the coordinator says, or that could not be found out. */
  async current(): Promise<void> {
    this.#running = this.#running.then(async () => this.#look())
    await this.#running
  }

  /** Revokes all that a host was ever given, and publishes that. @throws XosanError AUTHORITY_ELSEWHERE */
  async revoke(host: HostId): Promise<void> {
    const { directory, host: self, log } = this.#options
    const authority = await directory.authority()
    if (authority === null) throw new XosanError('AUTHORITY_ELSEWHERE', { host: self })
    if (await this.#isSucceeding()) {
      throw new XosanError('SUCCESSION_WAITS', { host: self, reason: 'nothing is revoked until it is done' })
    }
    await authority.revoke(host, new Date())
    log.info('the certificates of a host are revoked', { host })
    await this.current()
  }

  /** Publishes what this host has to, and saves what is published. @throws what keeps it from that */
  async require(): Promise<void> {
    const done = this.#running.then(async () => {
      await this.#publish()
      await this.#save()
    })
    this.#running = done.catch(() => undefined)
    await done
  }

  close(): void {
    this.#closed = true
    this.#unsubscribe()
    this.#timer?.cancel()
  }

  async #isSucceeding(): Promise<boolean> {
    const credentials = await this.#options.directory.credentials()
    return credentials !== null && isSucceeding(credentials.authoritiesPem)
  }

  async #look(): Promise<void> {
    if (this.#closed) return
    this.#timer?.cancel()
    try {
      await this.#makeOwn()
      await this.#publish()
      await this.#save()
    } catch (error) {
      this.#options.log.warn('the list of revoked certificates is not up to date', {
        reason: reasonOf(error),
      })
      this.#timer = this.#options.clock.after(RETRY_MS, () => this.look())
    }
  }

  /**
   * On the host of the authority only: makes a list of what it has revoked where there is none, or none that can be read. The
   * gate before etcd opens nothing without one, and the published one is behind it.
   */
  async #makeOwn(): Promise<void> {
    const { directory, changed } = this.#options
    const authority = await directory.authority()
    if (authority === null || (await directory.hasUsableRevocationList())) return
    if (await directory.saveRevocationList(await authority.revocationList(new Date()))) changed()
  }

  /** On the host of the authority only: revokes what those have that are no members, and tells all. */
  async #publish(): Promise<void> {
    const { host, directory, isJoining, coordinator, clock, random, log } = this.#options
    const authority = await directory.authority()
    if (authority === null) return
    const now = new Date()
    // In this order: who is let in meanwhile was joining a moment ago, or is on the list that is read after that.
    const candidates = [...(await authority.holders())].filter(holder => !isJoining(holder))
    // As the coordinator says now: this host's own list may be from before its last start, and revoked is for good.
    const { entries } = await coordinator.list(MEMBERS_PREFIX)
    const listed = new Set(entries.map(({ key }) => key))
    // A coordinator that does not know this very host is not the one that the cluster has.
    if (!listed.has(memberKey(host))) return
    // While a removed host's authority is trusted, whoever has that key can take records away for a moment.
    const revokes = !(await this.#isSucceeding())
    for (const holder of candidates) {
      if (!revokes || listed.has(memberKey(holder))) continue
      await authority.revoke(holder, now)
      log.info('the certificates of a host are revoked', { host: holder })
    }
    const { entry } = await coordinator.read(REVOKED_KEY)
    if (await authority.isComplete(entry?.value ?? null)) return
    const value = await authority.revocationList(now)
    const deadline = millis(clock.now() + PUBLISH_MS)
    await update({ coordinator, clock, random }, REVOKED_KEY, () => ({ value }), deadline)
  }

  async #save(): Promise<void> {
    const { directory, coordinator, changed } = this.#options
    const { entry } = await coordinator.read(REVOKED_KEY)
    if (entry !== null && (await directory.saveRevocationList(entry.value))) changed()
  }
}
