import { HOSTS_PREFIX, hostKey } from '../../cluster/keys.ts'
import { parseHostRecord, type HostRecord } from '../../cluster/records.ts'
import { reasonOf, XosanError } from '../../core/errors.ts'
import { type Clock } from '../../core/ports/clock.ts'
import { type Coordinator } from '../../core/ports/coordinator.ts'
import { type HostId, type Millis } from '../../core/units.ts'

/** Failed calls ask for the records again; a peer that is down fails many calls. */
const REFRESH_INTERVAL_MS = 1000

interface HostDirectoryOptions {
  readonly coordinator: Coordinator
  readonly clock: Clock
  readonly log: (event: string, facts: Readonly<Record<string, string>>) => void
}

/**
 * Where the other hosts are. What was read once is kept, so that a lost coordinator does not matter to those who know each
 * other; it is read again when a host does not answer, which is what a host that has moved looks like.
 */
export class HostDirectory {
  readonly #options: HostDirectoryOptions
  readonly #records = new Map<HostId, HostRecord>()
  #refreshing: Promise<void> | null = null
  #refreshedAt: Millis | null = null

  constructor(options: HostDirectoryOptions) {
    this.#options = options
  }

  /** What is known of a host without asking anybody. */
  known(host: HostId): HostRecord | undefined {
    return this.#records.get(host)
  }

  /** The record of a host. @throws XosanError PEER_UNREACHABLE when there is none, or none can be read */
  async find(host: HostId): Promise<HostRecord> {
    if (!this.#records.has(host)) await this.#refresh()
    const record = this.#records.get(host)
    if (record === undefined) throw new XosanError('PEER_UNREACHABLE', { host, reason: 'it is not known' })
    return record
  }

  /** Reads the records again in the background, unless that was done a moment ago. */
  doubt(): void {
    const { clock } = this.#options
    if (this.#refreshedAt !== null && clock.now() - this.#refreshedAt < REFRESH_INTERVAL_MS) return
    void this.#refresh()
  }

  /** Never rejects: what cannot be read now stays as it was. */
  async #refresh(): Promise<void> {
    this.#refreshing ??= this.#read().finally(() => (this.#refreshing = null))
    await this.#refreshing
  }

  async #read(): Promise<void> {
    const { coordinator, clock, log } = this.#options
    this.#refreshedAt = clock.now()
    try {
      const { entries } = await coordinator.list(HOSTS_PREFIX)
      for (const { key, value } of entries) {
        try {
          const record = parseHostRecord(key, value)
          if (key === hostKey(record.host)) this.#records.set(record.host, record)
        } catch (error) {
          log('a host record was passed over', { key, reason: reasonOf(error) })
        }
      }
    } catch (error) {
      log('the host records could not be read', { reason: reasonOf(error) })
    }
  }
}
