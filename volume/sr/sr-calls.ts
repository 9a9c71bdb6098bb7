import { XosanError } from '../../core/errors.ts'
import { type SrId } from '../../core/units.ts'
import { srKey } from '../../cluster/keys.ts'
import { parseSrRecord, serialiseSrRecord, type SrRecord } from '../../cluster/records.ts'
import { update } from '../../cluster/update.ts'
import { srId } from '../../rpc/identifiers.ts'
import { type Json } from '../../rpc/wire.ts'
import { configuration, defineCall, sr, text, type SmapiCall } from '../call.ts'
import { catchUp, settle, type VolumeContext } from '../context.ts'
import { type Deadline } from '../deadline.ts'
import { smapiVolume } from '../volumes/smapi-volume.ts'
import { addStore } from './add-store.ts'
import { srCreate } from './create.ts'
import { deviceConfigOf } from './device-config.ts'
import { removeSr } from './remove.ts'
import { currentSr, knownSr } from './sr-record.ts'
import { usableBytes } from './usable-space.ts'

/** A host that does not tell its space within this time counts with what it last reported. */
const SPACE_MS = 2000

/** Works from the device_config alone, so that it also works at boot before xapi. */
const attach = defineCall(
  60_000,
  { configuration },
  async (context, { configuration: deviceConfig }, deadline) => {
    const given = srId.safeParse(deviceConfig['sr_uuid'])
    if (!given.success) {
      throw new XosanError('INVALID_ARGUMENT', {
        what: 'sr_uuid',
        reason: 'the device-config has none that is a UUID',
      })
    }
    // A host that came to the pool after the SR was made.
    if (!context.cluster.entered) await context.cluster.joinExisting(given.data, deadline)
    const record = await knownSr(context, given.data, deadline)
    const store = context.metadata.stores(record.sr).find(({ host }) => host === context.host)
    if (store === undefined) await addStore(context, record, deadline)
    else await deadline.race(context.stores.ensure(store, record.sr))
    return record.sr
  }
)

/** There is nothing to undo: what an attached SR costs is a check, and volumes have calls of their own. */
const detach = defineCall(5000, { sr: text }, async () => null)

const destroy = defineCall(60_000, { sr }, async (context, args, deadline) => {
  // The same call again, whose answer was lost.
  if (!context.cluster.serves(args.sr)) return null
  await removeSr(context, args.sr, deadline)
  await context.cluster.dissolve(args.sr)
  return null
})

const stat = defineCall(10_000, { sr }, async (context, args, deadline) =>
  srStat(context, await knownSr(context, args.sr, deadline), deadline)
)

/** Complete or failed: xapi forgets every volume that is missing from the answer. */
const ls = defineCall(15_000, { sr }, async (context, args, deadline) => {
  await catchUp(context, deadline)
  const record = await knownSr(context, args.sr, deadline)
  return context.metadata.mapVolumes(record.sr, volume =>
    volume.state.operation === undefined ? smapiVolume(context, volume) : null
  )
})

const setName = defineCall(10_000, { sr, new_name: text }, async (context, args, deadline) =>
  describe(context, args.sr, { name: args.new_name }, deadline)
)

const setDescription = defineCall(10_000, { sr, new_description: text }, async (context, args, deadline) =>
  describe(context, args.sr, { description: args.new_description }, deadline)
)

/**
 * Tells which SRs there are: each with a complete configuration and its figures. When none matches, the given
 * configuration comes back as one that SR.create could take.
 */
const probe = defineCall(20_000, { configuration }, async (context, { configuration: given }, deadline) => {
  // A host that is in no cluster has nothing to catch up with.
  if (context.cluster.entered) await catchUp(context, deadline)
  const found = context.metadata
    .srs()
    .filter(({ operation }) => operation === undefined)
    .filter(record => matches(deviceConfigOf(record), given))
  if (found.length === 0 && given['sr_uuid'] === undefined) {
    return [{ configuration: given, complete: true, extra_info: {} }]
  }
  return Promise.all(
    found.map(async record => ({
      configuration: deviceConfigOf(record),
      complete: true,
      sr: await srStat(context, record, deadline),
      extra_info: {},
    }))
  )
})

const matches = (whole: Readonly<Record<string, string>>, part: Readonly<Record<string, string>>): boolean =>
  Object.entries(part).every(([name, value]) => whole[name] === value)

async function describe(
  context: VolumeContext,
  ofSr: SrId,
  change: Partial<Pick<SrRecord, 'name' | 'description'>>,
  deadline: Deadline
): Promise<null> {
  await currentSr(context, ofSr, deadline)
  await update(
    context,
    srKey(ofSr),
    entry => {
      if (entry === null) throw new XosanError('SR_NOT_FOUND', { sr: ofSr })
      const value = serialiseSrRecord(entry.key, { ...parseSrRecord(entry.key, entry.value), ...change })
      return value === entry.value ? 'unchanged' : { value }
    },
    deadline.at
  )
  await settle(context, deadline)
  return null
}

/** The figures of an SR: what can be used, given that each byte is kept on several hosts. */
async function srStat(context: VolumeContext, record: SrRecord, deadline: Deadline): Promise<Json> {
  const { sr: ofSr, name, description, hosts } = record
  const spaces = await Promise.all(
    context.metadata.stores(ofSr).map(async ({ host, store, space }) => {
      try {
        const live = await context
          .agent(host)
          .peer('host.stat', { sr: ofSr, store }, deadline.remainingMs(SPACE_MS))
        return { ...live, reachable: true }
      } catch {
        return { ...space, reachable: false }
      }
    })
  )
  const { copies } = record.configuration
  const reachable = spaces.filter(space => space.reachable).length
  return {
    sr: ofSr,
    name,
    uuid: ofSr,
    description,
    free_space: usableBytes(
      spaces.map(({ free }) => free),
      copies
    ),
    total_space: usableBytes(
      spaces.map(({ total }) => total),
      copies
    ),
    datasources: [],
    clustered: true,
    health: health(reachable, hosts.length),
  }
}

/** xapi stops scanning an SR that is anything but Healthy, so an SR that has lost hosts but serves is Healthy. */
function health(reachable: number, hosts: number): [string, string] {
  if (reachable === hosts) return ['Healthy', `all ${hosts} hosts are there`]
  if (reachable > 0) return ['Healthy', `${reachable} of ${hosts} hosts are there`]
  return ['Unreachable', 'no store of this SR can be reached']
}

export const srCalls: Readonly<Record<string, SmapiCall>> = {
  'SR.create': srCreate,
  'SR.probe': probe,
  'SR.attach': attach,
  'SR.detach': detach,
  'SR.destroy': destroy,
  'SR.stat': stat,
  'SR.ls': ls,
  'SR.set_name': setName,
  'SR.set_description': setDescription,
}
