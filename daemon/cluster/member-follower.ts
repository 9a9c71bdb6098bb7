/**
 * Keeps a process's list of members what the coordinator says. Each process has its own: certificates are checked at
 * every handshake, and a host that was removed must be refused by all of them at once, whoever of them is up.
 *
 * While the coordinator is away the last list stays in force. So does it when a list comes that lacks this very host:
 * then either this host was removed, and the others refuse it anyway, or the coordinator is not what it was, and healthy
 * hosts must not part for that.
 */
import { MEMBERS_PREFIX } from '../../cluster/keys.ts'
import { parseMemberRecord } from '../../cluster/records.ts'
import { reasonOf } from '../../core/errors.ts'
import { type Clock, type Timer } from '../../core/ports/clock.ts'
import { type Coordinator, type Entry, type Watch, type WatchEvent } from '../../core/ports/coordinator.ts'
import { type HostId, millis } from '../../core/units.ts'
import { type Member, type MemberList } from '../../trust/members.ts'

interface MemberFollowerOptions {
  readonly host: HostId
  readonly members: MemberList
  readonly coordinator: Coordinator
  readonly clock: Clock
  /** Told of each list that has come into force. */
  readonly changed: (members: readonly Member[]) => void
  readonly warn: (event: string, facts: Readonly<Record<string, string>>) => void
}

/** Between two attempts to follow: a coordinator that is away is asked by every process of every host. */
const RETRY_MS = millis(1000)

export class MemberFollower {
  readonly #options: MemberFollowerOptions
  readonly #entries = new Map<string, string>()
  #watch: Watch | null = null
  #timer: Timer | null = null
  #closed = false
  /** The last trouble that was told, so that it is told once. */
  #told = ''

  constructor(options: MemberFollowerOptions) {
    this.#options = options
  }

  /** Begins to follow, and goes on through every interruption until `close`. */
  start(): void {
    void this.#follow()
  }

  /** Whether the list in force is what the coordinator says, or will be as soon as it is told. */
  get following(): boolean {
    return this.#watch !== null
  }

  close(): void {
    this.#closed = true
    this.#watch?.close()
    this.#timer?.cancel()
  }

  /** Never rejects. */
  async #follow(): Promise<void> {
    const { coordinator } = this.#options
    try {
      const { entries, revision } = await coordinator.list(MEMBERS_PREFIX)
      if (this.#closed) return
      this.#entries.clear()
      this.#take(entries)
      this.#watch = coordinator.watch(MEMBERS_PREFIX, revision, {
        changed: (_, events) => {
          if (events.length > 0) this.#take(events)
        },
        failed: error => this.#again(error),
      })
    } catch (error) {
      this.#again(error)
    }
  }

  #again(error: unknown): void {
    if (this.#closed) return
    this.#tell('the list of members is not being followed', reasonOf(error))
    this.#watch?.close()
    this.#watch = null
    this.#timer = this.#options.clock.after(RETRY_MS, () => void this.#follow())
  }

  #take(changes: readonly (Entry | WatchEvent)[]): void {
    for (const { key, value } of changes) {
      if (value === null) this.#entries.delete(key)
      else this.#entries.set(key, value)
    }
    const { host, members, changed } = this.#options
    const list = this.#parsed()
    if (!list.some(member => member.host === host)) {
      this.#tell('this host is not on the list of members', 'the last list stays in force here')
      return
    }
    this.#told = ''
    members.replace(list)
    changed(list)
  }

  /** A record that cannot be read is nobody's: its host is refused until it can be. */
  #parsed(): Member[] {
    return [...this.#entries].flatMap(([key, value]): Member[] => {
      try {
        const { host, admission, certificates } = parseMemberRecord(key, value)
        return [{ host, admission, certificates }]
      } catch (error) {
        this.#options.warn('the record of a member cannot be read', { key, reason: reasonOf(error) })
        return []
      }
    })
  }

  #tell(event: string, reason: string): void {
    if (this.#told === event) return
    this.#told = event
    this.#options.warn(event, { reason })
  }
}
