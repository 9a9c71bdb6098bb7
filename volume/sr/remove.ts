/**
 * Takes an SR away, whether it was ever finished or not:
 *
 *   1. record it as `deleting`: from here no volume can be made in it, since every volume's creation depends on the
 *      record's revision
 *   2. look for volumes; if there are any, take step 1 back and refuse
 *   3. remove the store of every host
 *   4. remove the records
 *
 * Stopped anywhere, it can be begun again from the start.
 */
import { XosanError } from '../../core/errors.ts'
import { type Operation } from '../../core/mirror/volume-record.ts'
import { type Entry } from '../../core/ports/coordinator.ts'
import { type SrId } from '../../core/units.ts'
import { srKey, storesPrefix, tombstonesPrefix, volumesPrefix } from '../../cluster/keys.ts'
import { parseSrRecord, parseStoreRecord, serialiseSrRecord, type SrRecord } from '../../cluster/records.ts'
import { update } from '../../cluster/update.ts'
import { settle, type VolumeContext } from '../context.ts'
import { type Deadline } from '../deadline.ts'

/**
 * @throws XosanError SR_NOT_EMPTY; SR_BUSY when somebody else has begun the same; PEER_UNREACHABLE when a host cannot
 *   be asked to remove its store
 */
export async function removeSr(context: VolumeContext, sr: SrId, deadline: Deadline): Promise<void> {
  await context.operations.run('deleting', async operation => {
    const wasThere = await beginRemoval(context, sr, operation, deadline)
    if (!wasThere) return
    const { entries: volumes } = await deadline.race(context.coordinator.list(volumesPrefix(sr)))
    const keys = new Set(volumes.map(({ key }) => key.split('/')[3]))
    if (keys.size > 0) {
      await endRemoval(context, sr, operation, record => serialiseSrRecord(srKey(sr), record), [], deadline)
      throw new XosanError('SR_NOT_EMPTY', { sr, volumes: keys.size })
    }
    const { entries: stores } = await deadline.race(context.coordinator.list(storesPrefix(sr)))
    await Promise.all(
      stores.map(async ({ key, value }) => {
        const { host, store, directory } = parseStoreRecord(key, value)
        const agent = context.agent(host)
        await agent.peer('host.removeStore', { sr, store, directory }, deadline.remainingMs(15_000))
      })
    )
    const { entries: tombstones } = await deadline.race(context.coordinator.list(tombstonesPrefix(sr)))
    await endRemoval(context, sr, operation, () => null, [...stores, ...tombstones], deadline)
  })
}

/** @returns false when there is no such SR */
async function beginRemoval(
  context: VolumeContext,
  sr: SrId,
  operation: Operation,
  deadline: Deadline
): Promise<boolean> {
  let found = true
  await update(
    context,
    srKey(sr),
    entry => {
      found = entry !== null
      if (entry === null) return 'unchanged'
      const record = parseSrRecord(entry.key, entry.value)
      if (record.operation?.id === operation.id) return 'unchanged'
      return { value: serialiseSrRecord(entry.key, { ...record, operation }) }
    },
    deadline.at
  )
  return found
}

/** @param result the record's new text, or null to remove it @param others entries to remove with it */
async function endRemoval(
  context: VolumeContext,
  sr: SrId,
  operation: Operation,
  result: (record: SrRecord) => string | null,
  others: readonly Entry[],
  deadline: Deadline
): Promise<void> {
  await update(
    context,
    srKey(sr),
    entry => {
      if (entry === null) return 'unchanged'
      const { operation: current, ...record } = parseSrRecord(entry.key, entry.value)
      if (current === undefined) return 'unchanged'
      // Another removal took over; what this one has seen may no longer be so.
      if (current.id !== operation.id) throw new XosanError('SR_BUSY', { sr, operation: 'destroyed' })
      return { value: result(record), alongside: others.map(({ key }) => ({ key, value: null })) }
    },
    deadline.at
  )
  await settle(context, deadline)
}
