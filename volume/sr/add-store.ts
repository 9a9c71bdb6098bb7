/**
 * Gives this host a store of an SR that was made without it:
 *
 *   1. check the directory
 *   2. make the store, which nobody knows of yet
 *   3. record it, and this host as one of the SR's, in one transaction
 *
 * A crash after step 2 leaves an empty store with an id that no record has; the next attempt takes that id up.
 */
import { srKey, storeKey } from '../../cluster/keys.ts'
import {
  parseSrRecord,
  serialiseSrRecord,
  serialiseStoreRecord,
  type SrRecord,
} from '../../cluster/records.ts'
import { update } from '../../cluster/update.ts'
import { XosanError } from '../../core/errors.ts'
import { type StoreId } from '../../core/units.ts'
import { settle, type VolumeContext } from '../context.ts'
import { type Deadline } from '../deadline.ts'
import { refuseBusy } from './sr-record.ts'

/** Making a store is a handful of synced writes on a disk that may be busy. */
const STORE_MS = 15_000

/** @throws XosanError STORE_MISSING when this host had a store, whose record is gone; INVALID_ARGUMENT; SR_BUSY */
export async function addStore(context: VolumeContext, record: SrRecord, deadline: Deadline): Promise<void> {
  const { sr, configuration } = record
  const path = configuration.path ?? null
  if (record.hosts.includes(context.host)) {
    throw new XosanError('STORE_MISSING', {
      sr,
      path: path ?? context.defaultPath,
      reason: 'the record of its store is gone',
    })
  }
  const self = context.agent(context.host)
  const store = (await context.stores.idAt(sr, path)) ?? (context.random.uuid() as StoreId)
  const made = await self.peer('host.prepareStore', { sr, store, path }, deadline.remainingMs(STORE_MS))
  const key = storeKey(sr, context.host)
  const { directory, total, free } = made
  const value = serialiseStoreRecord(key, {
    version: 1,
    host: context.host,
    store,
    directory,
    space: { total, free },
  })
  await update(
    context,
    srKey(sr),
    entry => {
      if (entry === null) throw new XosanError('SR_NOT_FOUND', { sr })
      const current = parseSrRecord(entry.key, entry.value)
      refuseBusy(current)
      if (current.hosts.includes(context.host)) return 'unchanged'
      const joined = { ...current, hosts: [...current.hosts, context.host] }
      return { value: serialiseSrRecord(entry.key, joined), alongside: [{ key, value }] }
    },
    deadline.at
  )
  await settle(context, deadline)
}
