/**
 * Keeps removed hosts away from etcd, whose members ask the authority and not the list of members: they are given a list
 * of revoked certificates as well. The host of the authority makes it, from the list of members and from what it has
 * ever issued; every host keeps a copy beside its keys, where its member of etcd reads it at each handshake.
 *
 * Connections that exist are not looked at again by etcd, so a member starts anew when the list has changed, one
 * member after the other.
 */
import { REVOKED_KEY } from '../../cluster/keys.ts'
import { update } from '../../cluster/update.ts'
import { reasonOf } from '../../core/errors.ts'
import { type Clock, type Timer } from '../../core/ports/clock.ts'
import { type Coordinator } from '../../core/ports/coordinator.ts'
import { type Random } from '../../core/ports/random.ts'
import { type HostId, millis } from '../../core/units.ts'
import { type MemberList } from '../../trust/members.ts'
import { type TrustDirectory } from '../../trust/trust-directory.ts'
import { type Log } from '../log.ts'

interface RevocationOptions {
  readonly directory: TrustDirectory
  readonly members: MemberList
  readonly coordinator: Coordinator
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  /** Whether a host is about to be a member: then its certificates are its own. */
  readonly isJoining: (host: HostId) => boolean
  /** Told that the file has changed. */
  readonly changed: () => void
}

/** After a failure: the coordinator may be away for long, and nobody is let in by that who was not before. */
const RETRY_MS = millis(5000)
const PUBLISH_MS = 10_000

export class Revocation {
  readonly #options: RevocationOptions
  #saved: string | null = null
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

  close(): void {
    this.#closed = true
    this.#unsubscribe()
    this.#timer?.cancel()
  }

  async #look(): Promise<void> {
    if (this.#closed) return
    this.#timer?.cancel()
    try {
      await this.#publish()
      await this.#save()
    } catch (error) {
      this.#options.log.warn('the list of revoked certificates is not up to date', {
        reason: reasonOf(error),
      })
      this.#timer = this.#options.clock.after(RETRY_MS, () => this.look())
    }
  }

  /** On the host of the authority only: revokes what those have that are no members, and tells all. */
  async #publish(): Promise<void> {
    const { directory, members, isJoining, coordinator, clock, random, log } = this.#options
    const authority = await directory.authority()
    if (authority === null) return
    const now = new Date()
    for (const host of await authority.holders()) {
      if (members.get(host) !== undefined || isJoining(host)) continue
      await authority.revoke(host, now)
      log.info('the certificates of a host are revoked', { host })
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
    if (entry === null || entry.value === this.#saved) return
    await directory.saveRevocationList(entry.value)
    const first = this.#saved === null
    this.#saved = entry.value
    if (!first) changed()
  }
}
