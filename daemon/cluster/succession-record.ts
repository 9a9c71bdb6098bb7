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

  /** Begins, or takes up what was begun. @throws XosanError SUCCESSION_WAITS while another host that is up is at it */
  async claim(sr: SrId, removed: HostId, by: HostId, deadline: Deadline): Promise<void> {
    const other = (await this.read(sr, deadline)).succession?.by ?? by
    if (other !== by && other !== removed && (await this.#isUp(other))) throw atIt(other)
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

  async release(sr: SrId, by: HostId, deadline: Deadline): Promise<void> {
    await this.#change(sr, deadline, ({ succession, ...record }) => {
      if (succession !== undefined && succession.by !== by) throw atIt(succession.by)
      return record
    })
  }

  async #change(sr: SrId, deadline: Deadline, change: (record: SrRecord) => SrRecord): Promise<void> {
    await update(
      this.#context,
      srKey(sr),
      entry => {
        if (entry === null) throw new XosanError('SR_NOT_FOUND', { sr })
        const value = serialiseSrRecord(entry.key, change(parseSrRecord(entry.key, entry.value)))
        return value === entry.value ? 'unchanged' : { value }
      },
      deadline.at
    )
  }
}

const atIt = (host: string): XosanError =>
  new XosanError('SUCCESSION_WAITS', { host, reason: 'it is taking the place of the removed host itself' })
