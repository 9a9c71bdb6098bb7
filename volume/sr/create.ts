/**
 * SR.create, in steps that leave nothing behind wherever they stop:
 *
 *   0. let the hosts of the pool form the cluster of this SR, where they need one to speak to each other
 *   1. check every host: reachable, same version, directory there and writable
 *   2. record the SR as `creating`, with the ids and places of its stores
 *   3. make the store on every host
 *   4. clear `creating`: now, and only now, the SR exists
 *
 * Whatever fails after step 0 is undone there and then; a host that dies on the way leaves its cluster when it starts, and
 * others that are left over are told by the next SR.create. Whatever fails after step 2 is undone by `removeSr`: at once, or by the janitor, or by the next SR.create of the
 * same SR. Each of these first changes the record's operation, which makes step 4 of a creator that was only slow
 * fail.
 */
import { reasonOf, XosanError } from '../../core/errors.ts'
import { type Operation } from '../../core/mirror/volume-record.ts'
import { type SrId } from '../../core/units.ts'
import { srKey, storeKey } from '../../cluster/keys.ts'
import {
  parseSrRecord,
  serialiseSrRecord,
  serialiseStoreRecord,
  type HostRecord,
  type SrRecord,
  type StoreRecord,
} from '../../cluster/records.ts'
import { transactUntilKnown, update } from '../../cluster/update.ts'
import { type PeerResult } from '../../rpc/peer-api.ts'
import { configuration, defineCall, sr as srParameter, text } from '../call.ts'
import { catchUp, settle, type VolumeContext } from '../context.ts'
import { type Deadline } from '../deadline.ts'
import { deviceConfigOf, parseDeviceConfig } from './device-config.ts'
import { removeSr } from './remove.ts'
import { refuseBusy } from './sr-record.ts'

/** What one host may take for one step. Making a store is a handful of synced writes on a disk that may be busy. */
const HOST_STEP_MS = 15_000

/** Deepest that a store lies below the SR's `path`; the longest path that a store record takes is 4096 bytes. */
const STORE_SUFFIX = (sr: string, host: string) => `xosan/${sr}/${host}`

interface Member {
  readonly host: HostRecord
  readonly checked: PeerResult<'host.checkPath'>
}

export const srCreate = defineCall(
  60_000,
  { uuid: srParameter, configuration, name: text, description: text },
  async (context, { uuid: sr, configuration: deviceConfig, name, description }, deadline) => {
    const chosen = parseDeviceConfig(deviceConfig, sr)
    const formed = await context.cluster.form(sr, deadline)
    let answer: Record<string, string>
    try {
      answer = await createIn(context, { sr, chosen, name, description }, deadline)
    } catch (error) {
      await formed?.undo()
      throw error
    }
    // The SR is there. What its coordinator lacks still is made good in the background.
    await formed?.complete().catch((error: unknown) => {
      context.warn('the coordinator has fewer members than it shall have, for now', {
        reason: reasonOf(error),
      })
    })
    return answer
  }
)

interface Wanted {
  readonly sr: SrId
  readonly chosen: SrRecord['configuration']
  readonly name: string
  readonly description: string
}

/** Makes the SR among hosts that know each other. @returns its device-config */
async function createIn(
  context: VolumeContext,
  { sr, chosen, name, description }: Wanted,
  deadline: Deadline
): Promise<Record<string, string>> {
  const existing = await clearTheWay(context, sr, deadline)
  if (existing !== null) {
    // The same call again, whose answer was lost.
    if (sameConfiguration(existing.configuration, chosen)) return deviceConfigOf(existing)
    throw new XosanError('SR_EXISTS', { sr })
  }
  const members = await checkHosts(context, chosen, deadline)
  const record: SrRecord = {
    version: 1,
    sr,
    name,
    description,
    generation: 1,
    configuration: chosen,
    hosts: members.map(({ host }) => host.host),
    createdBy: context.host,
  }
  await context.operations.run('creating', operation => create(context, record, operation, members, deadline))
  return deviceConfigOf(record)
}

/** What exists under the id: a finished SR, or, after undoing what is left of an abandoned attempt, nothing. */
async function clearTheWay(context: VolumeContext, sr: SrId, deadline: Deadline): Promise<SrRecord | null> {
  const { entry } = await deadline.race(context.coordinator.read(srKey(sr)))
  if (entry === null) return null
  const record = parseSrRecord(entry.key, entry.value)
  if (record.operation === undefined) return record
  if (record.operation.kind === 'deleting' || (await isAtWork(context, record.operation, deadline))) {
    refuseBusy(record)
  }
  await removeSr(context, sr, deadline)
  return null
}

/** Whether the host that began an operation is still at it; a host that does not answer is not waited for. */
async function isAtWork(
  context: VolumeContext,
  { host, id }: Operation,
  deadline: Deadline
): Promise<boolean> {
  try {
    const agent = context.agent(host)
    const { atWork } = await agent.peer('host.isAtWork', { operation: id }, deadline.remainingMs(3000))
    return atWork
  } catch {
    return false
  }
}

async function checkHosts(
  context: VolumeContext,
  { path, copies }: SrRecord['configuration'],
  deadline: Deadline
): Promise<Member[]> {
  await catchUp(context, deadline)
  const hosts = context.metadata.hosts().filter(({ datapaths }) => datapaths > 0)
  if (hosts.length < copies) throw new XosanError('TOO_FEW_HOSTS', { copies, hosts: hosts.length })
  return Promise.all(
    hosts.map(async host => {
      const agent = context.agent(host.host)
      const { version } = await agent.peer('host.ping', {}, deadline.remainingMs(HOST_STEP_MS))
      if (version !== context.version) {
        throw new XosanError('VERSION_DIFFERENT', { host: host.name, version, own: context.version })
      }
      const stepMs = deadline.remainingMs(HOST_STEP_MS)
      return { host, checked: await agent.peer('host.checkPath', { path: path ?? null }, stepMs) }
    })
  )
}

async function create(
  context: VolumeContext,
  record: SrRecord,
  operation: Operation,
  members: readonly Member[],
  deadline: Deadline
): Promise<void> {
  const { sr } = record
  const stores = members.map(({ host, checked }): StoreRecord => ({
    version: 1,
    host: host.host,
    store: context.random.uuid() as StoreRecord['store'],
    directory: `${checked.path}/${STORE_SUFFIX(sr, host.host)}`,
    space: { total: checked.total, free: checked.free },
  }))
  const recordKey = srKey(sr)
  const begun = await transactUntilKnown(
    context,
    [{ key: recordKey, revision: 0 }],
    [
      { key: recordKey, value: serialiseSrRecord(recordKey, { ...record, operation }) },
      ...stores.map(store => {
        const key = storeKey(sr, store.host)
        return { key, value: serialiseStoreRecord(key, store) }
      }),
    ],
    deadline.at
  )
  if (!begun.committed && !begun.current.some(({ value }) => value.includes(operation.id))) {
    throw new XosanError('SR_BUSY', { sr, operation: 'created' })
  }
  try {
    await Promise.all(
      stores.map(({ host, store }) =>
        context
          .agent(host)
          .peer(
            'host.prepareStore',
            { sr, store, path: record.configuration.path ?? null },
            deadline.remainingMs(HOST_STEP_MS)
          )
      )
    )
    await finish(context, sr, operation, deadline)
  } catch (error) {
    await removeSr(context, sr, deadline).catch((undoing: unknown) =>
      context.warn('an SR that could not be created is left for the janitor', { sr, reason: String(undoing) })
    )
    throw error
  }
}

/** Makes the SR exist, unless somebody has begun to undo it. */
async function finish(
  context: VolumeContext,
  sr: SrId,
  operation: Operation,
  deadline: Deadline
): Promise<void> {
  await update(
    context,
    srKey(sr),
    entry => {
      if (entry === null) throw new XosanError('SR_BUSY', { sr, operation: 'destroyed' })
      const { operation: current, ...rest } = parseSrRecord(entry.key, entry.value)
      if (current === undefined) return 'unchanged'
      if (current.id !== operation.id) throw new XosanError('SR_BUSY', { sr, operation: 'destroyed' })
      return { value: serialiseSrRecord(entry.key, rest) }
    },
    deadline.at
  )
  await settle(context, deadline)
}

const sameConfiguration = (a: SrRecord['configuration'], b: SrRecord['configuration']): boolean =>
  a.path === b.path &&
  a.copies === b.copies &&
  a.headroom.unit === b.headroom.unit &&
  a.headroom.amount === b.headroom.amount
