import { memberKey, srKey } from '../../cluster/keys.ts'
import { parseSrRecord, serialiseSrRecord, type SrRecord } from '../../cluster/records.ts'
import { transactUntilKnown, update, type UpdateContext } from '../../cluster/update.ts'
import { XosanError } from '../../core/errors.ts'
import { type Entry } from '../../core/ports/coordinator.ts'
import { type HostId, type SrId } from '../../core/units.ts'
import { type Deadline } from '../../volume/deadline.ts'
import { patiently } from './patiently.ts'

interface RecordOptions extends UpdateContext {
  /** The SR whose cluster a host says it is in, by way of the pool; null also for one that does not answer. */
  readonly srOf: (host: HostId) => Promise<SrId | null>
  /** As an administrator knows it. */
  readonly nameOf: (host: HostId) => string
}

/** Who holds the authority, or is about to, as the SR's record says: one host at a time succeeds another. */
export class SuccessionRecord {
  readonly #options: RecordOptions

  constructor(options: RecordOptions) {
    this.#options = options
  }

  /** @returns the record as it is now @throws XosanError SR_NOT_FOUND */
  async read(sr: SrId, deadline: Deadline): Promise<SrRecord> {
    return (await this.#read(sr, deadline)).record
  }

  /**
   * Begins, or takes up what was begun. Who was to be removed by that remains so, and the given host is from here on.
   * @param removed holds the authority, if nothing was begun
   * @returns all that are removed
   * @throws XosanError SUCCESSION_ELSEWHERE while another host that is up is at it, and when one was faster;
   *   NOT_IN_CLUSTER when this host is no member
   */
  async claim(sr: SrId, removed: HostId, by: HostId, deadline: Deadline): Promise<ReadonlySet<HostId>> {
    const { coordinator, clock } = this.#options
    const member = async (host: HostId) =>
      (await patiently(clock, deadline, async () => coordinator.read(memberKey(host)))).entry
    for (;;) {
      const { entry, record } = await this.#read(sr, deadline)
      const { createdBy, authority = createdBy, succession: begun } = record
      if (begun === undefined && authority !== removed) throw this.#elsewhere(record)
      if (begun?.removed.includes(by) === true) throw this.#elsewhere(record)
      const leaving = new Set([...(begun?.removed ?? []), removed])
      const other = begun?.by ?? by
      // One that is removed has no say, and one that is no member can do nothing any more, whatever it answers.
      if (other !== by && !leaving.has(other) && (await member(other)) !== null) {
        if ((await deadline.race(this.#options.srOf(other))) === sr) throw this.#elsewhere(record)
      }
      const own = await member(by)
      if (own === null) throw new XosanError('NOT_IN_CLUSTER', {})
      const changed = { ...record, succession: { removed: [...leaving], by } }
      const value = serialiseSrRecord(entry.key, changed)
      if (value === entry.value) return leaving
      // The member's record as well: another host may be about to remove this one.
      const conditions = [entry, own].map(({ key, revision }) => ({ key, revision }))
      const change = { key: entry.key, value }
      const { committed } = await transactUntilKnown(this.#options, conditions, [change], deadline.at)
      if (committed) return leaving
    }
  }

  /** @throws XosanError SUCCESSION_ELSEWHERE when another host has taken it up */
  async requireClaim(sr: SrId, by: HostId, deadline: Deadline): Promise<void> {
    const record = await this.read(sr, deadline)
    if (record.succession?.by !== by) throw this.#elsewhere(record)
  }

  /** From here on hosts ask this one. */
  async hold(sr: SrId, by: HostId, deadline: Deadline): Promise<void> {
    await this.#change(sr, deadline, record => {
      if (record.succession?.by !== by) throw this.#elsewhere(record)
      return { ...record, authority: by }
    })
  }

  /** It is done: from here on nobody succeeds, and the removed hosts are on no list. @param removals their records */
  async release(sr: SrId, by: HostId, removals: readonly string[], deadline: Deadline): Promise<void> {
    await this.#change(
      sr,
      deadline,
      record => {
        const { succession, ...rest } = record
        // By this very call, whose answer was lost: etcd has just been restarted here. The records went with it, and one
        // that is there again is of a host that has joined since.
        if (succession === undefined && record.authority === by) return 'unchanged'
        if (succession?.by !== by) throw this.#elsewhere(record)
        return { ...rest, authority: by }
      },
      removals
    )
  }

  /** Removes records while nobody succeeds, and the same host holds the authority. @throws XosanError SUCCESSION_ELSEWHERE */
  async remove(sr: SrId, holder: HostId, removals: readonly string[], deadline: Deadline): Promise<void> {
    await this.#change(
      sr,
      deadline,
      record => {
        const { createdBy, authority = createdBy, succession } = record
        if (succession !== undefined || authority !== holder) throw this.#elsewhere(record)
        return record
      },
      removals
    )
  }

  async #change(
    sr: SrId,
    deadline: Deadline,
    change: (record: SrRecord) => SrRecord | 'unchanged',
    removals: readonly string[] = []
  ): Promise<void> {
    await update(
      this.#options,
      srKey(sr),
      entry => {
        if (entry === null) throw new XosanError('SR_NOT_FOUND', { sr })
        const changed = change(parseSrRecord(entry.key, entry.value))
        if (changed === 'unchanged') return changed
        const value = serialiseSrRecord(entry.key, changed)
        if (value === entry.value && removals.length === 0) return 'unchanged'
        return { value, alongside: removals.map(key => ({ key, value: null })) }
      },
      deadline.at
    )
  }

  async #read(sr: SrId, deadline: Deadline): Promise<{ readonly entry: Entry; readonly record: SrRecord }> {
    const { coordinator, clock } = this.#options
    const { entry } = await patiently(clock, deadline, async () => coordinator.read(srKey(sr)))
    if (entry === null) throw new XosanError('SR_NOT_FOUND', { sr })
    return { entry, record: parseSrRecord(entry.key, entry.value) }
  }

  /** Who is at it or, when nobody is, has done it. */
  #elsewhere({ createdBy, authority = createdBy, succession }: SrRecord): XosanError {
    return new XosanError('SUCCESSION_ELSEWHERE', {
      host: this.#options.nameOf(succession?.by ?? authority),
      reason:
        succession === undefined ? 'it has done so meanwhile' : 'it has begun this, and goes on with it',
    })
  }
}
