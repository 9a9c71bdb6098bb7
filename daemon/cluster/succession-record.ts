import { srKey } from '../../cluster/keys.ts'
import { parseSrRecord, serialiseSrRecord, type SrRecord } from '../../cluster/records.ts'
import { update, type UpdateContext } from '../../cluster/update.ts'
import { XosanError } from '../../core/errors.ts'
import { type HostId, type SrId } from '../../core/units.ts'
import { type Deadline } from '../../volume/deadline.ts'
import { patiently } from './patiently.ts'

/** Who holds the authority, or is about to, as the SR's record says: one host at a time succeeds another. */
export class SuccessionRecord {
  readonly #context: UpdateContext
  /** Whether a host answers, by way of the pool. */
  readonly #isUp: (host: HostId) => Promise<boolean>

  constructor(context: UpdateContext, isUp: (host: HostId) => Promise<boolean>) {
    this.#context = context
    this.#isUp = isUp
  }

  /** @returns the record as it is now @throws XosanError SR_NOT_FOUND */
  async read(sr: SrId, deadline: Deadline): Promise<SrRecord> {
    const { coordinator, clock } = this.#context
    const { entry } = await patiently(clock, deadline, async () => coordinator.read(srKey(sr)))
    if (entry === null) throw new XosanError('SR_NOT_FOUND', { sr })
    return parseSrRecord(entry.key, entry.value)
  }

  /**
   * Begins, or takes up what was begun.
   * @param leaving hosts that are being removed: what they began is taken up whether they are up or not
   * @throws XosanError SUCCESSION_WAITS while another host that is up is at it
   */
  async claim(
    sr: SrId,
    removed: HostId,
    by: HostId,
    leaving: ReadonlySet<HostId>,
    deadline: Deadline
  ): Promise<void> {
    const other = (await this.read(sr, deadline)).succession?.by ?? by
    if (other !== by && !leaving.has(other) && (await this.#isUp(other))) throw atIt(other)
    await this.#change(sr, deadline, record => {
      const current = record.succession?.by ?? by
      if (current !== by && current !== other) throw atIt(current)
      return { ...record, succession: { removed, by } }
    })
  }

  /** @throws XosanError SUCCESSION_WAITS when another host has taken it up */
  async requireClaim(sr: SrId, by: HostId, deadline: Deadline): Promise<void> {
    const { succession } = await this.read(sr, deadline)
    if (succession?.by !== by) throw atIt(succession?.by ?? 'another host')
  }

  /** From here on hosts ask this one. */
  async hold(sr: SrId, by: HostId, deadline: Deadline): Promise<void> {
    await this.#change(sr, deadline, record => {
      if (record.succession?.by !== by) throw atIt(record.succession?.by ?? 'another host')
      return { ...record, authority: by }
    })
  }

  /** It is done: from here on nobody succeeds, and the removed hosts are on no list. @param removals their records */
  async release(sr: SrId, by: HostId, removals: readonly string[], deadline: Deadline): Promise<void> {
    await this.#change(
      sr,
      deadline,
      ({ succession, ...record }) => {
        // By this very call, whose answer was lost: etcd has just been restarted here. The records went with it, and one
        // that is there again is of a host that has joined since.
        if (succession === undefined && record.authority === by) return 'unchanged'
        if (succession?.by !== by) throw atIt(succession?.by ?? 'another host')
        return { ...record, authority: by }
      },
      removals
    )
  }

  /** Removes records while nobody succeeds, and the same host holds the authority. @throws XosanError SUCCESSION_WAITS */
  async remove(sr: SrId, holder: HostId, removals: readonly string[], deadline: Deadline): Promise<void> {
    await this.#change(
      sr,
      deadline,
      record => {
        const { createdBy, authority = createdBy, succession } = record
        if (succession !== undefined || authority !== holder) throw atIt(succession?.by ?? authority)
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
      this.#context,
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
}

const atIt = (host: string): XosanError =>
  new XosanError('SUCCESSION_WAITS', { host, reason: 'it is taking the place of the removed host itself' })
