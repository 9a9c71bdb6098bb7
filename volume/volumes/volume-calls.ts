import { hasCode, XosanError } from '../../core/errors.ts'
import { growVolume } from '../../core/mirror/volume-change.ts'
import { type VolumeState } from '../../core/mirror/volume-record.ts'
import { roundUpVolumeSize, type HostId, type SrId, type VolumeKey } from '../../core/units.ts'
import { hostId } from '../../rpc/identifiers.ts'
import { defineCall, key, size, sr, text, type SmapiCall } from '../call.ts'
import { type VolumeContext } from '../context.ts'
import { type Deadline } from '../deadline.ts'
import { volumeCreate } from './create.ts'
import { smapiVolume } from './smapi-volume.ts'
import { amendInfo, amendState, knownVolume, removeVolume } from './volume-record.ts'

/** Called before every datapath call, also while this host is alone: no other host is asked. */
const stat = defineCall(10_000, { sr, key }, async (context, args, deadline) =>
  smapiVolume(context, await knownVolume(context, args.sr, args.key, deadline))
)

/** Idempotent: xapi may destroy one key twice. */
const destroy = defineCall(30_000, { sr, key }, async (context, args, deadline) => {
  const refuseOpen = ({ primary }: VolumeState) => {
    if (primary !== null)
      throw new XosanError('ACTIVATED_ON_ANOTHER_HOST', { volume: args.key, host: primary })
  }
  for (;;) {
    try {
      await removeVolume(context, args.sr, args.key, refuseOpen, deadline)
      return null
    } catch (error) {
      if (!hasCode(error, 'ACTIVATED_ON_ANOTHER_HOST')) throw error
      const primary = hostId.parse(error.parameters['host'])
      await closeIfForsaken(context, args.sr, args.key, primary, deadline)
    }
  }
})

/** Grows a volume that is closed; its replicas grow when it is next opened. */
const resize = defineCall(15_000, { sr, key, new_size: size }, async (context, args, deadline) => {
  const wanted = roundUpVolumeSize(args.new_size)
  const operation = context.random.uuid()
  const grow = (state: VolumeState): VolumeState => {
    refuseHalfDone(state, args.sr, args.key)
    if (wanted === state.size) return state
    if (args.new_size < state.size && wanted < state.size) {
      throw new XosanError('UNSUPPORTED', {
        what: 'Shrinking a volume',
        reason: `it has ${state.size} bytes, and what lies beyond ${wanted} would be lost`,
      })
    }
    if (state.primary !== null) {
      throw new XosanError('ACTIVATED_ON_ANOTHER_HOST', { volume: args.key, host: state.primary })
    }
    return growVolume(state, wanted, operation)
  }
  await amendState(context, args.sr, args.key, grow, deadline)
  return null
})

const set = defineCall(10_000, { sr, key, k: text, v: text }, async (context, args, deadline) => {
  await amendInfo(
    context,
    args.sr,
    args.key,
    info => ({ ...info, keys: { ...info.keys, [args.k]: args.v } }),
    deadline
  )
  return null
})

const unset = defineCall(10_000, { sr, key, k: text }, async (context, args, deadline) => {
  const without = (keys: Readonly<Record<string, string>>) =>
    Object.fromEntries(Object.entries(keys).filter(([name]) => name !== args.k))
  await amendInfo(context, args.sr, args.key, info => ({ ...info, keys: without(info.keys) }), deadline)
  return null
})

const setName = defineCall(10_000, { sr, key, new_name: text }, async (context, args, deadline) => {
  await amendInfo(context, args.sr, args.key, info => ({ ...info, name: args.new_name }), deadline)
  return null
})

const setDescription = defineCall(
  10_000,
  { sr, key, new_description: text },
  async (context, args, deadline) => {
    const description = args.new_description
    await amendInfo(context, args.sr, args.key, info => ({ ...info, description }), deadline)
    return null
  }
)

function refuseHalfDone(state: VolumeState, ofSr: SrId, volume: VolumeKey): void {
  if (state.operation !== undefined) throw new XosanError('VOLUME_NOT_FOUND', { sr: ofSr, volume })
}

/**
 * Closes a volume whose primary has no guest any more, as after a crash of that host, which xapi never follows with a
 * deactivate.
 *
 * A primary that answers says itself whether a guest is there. One that does not is replaced by way of an ordinary
 * open: the replicas refuse that while it lives.
 *
 * @throws XosanError ACTIVATED_ON_ANOTHER_HOST when it is in use
 */
async function closeIfForsaken(
  context: VolumeContext,
  ofSr: SrId,
  volume: VolumeKey,
  primary: HostId,
  deadline: Deadline
): Promise<void> {
  const inUse = new XosanError('ACTIVATED_ON_ANOTHER_HOST', { volume, host: primary })
  try {
    const asked = { sr: ofSr, volume }
    const { activated } = await context
      .agent(primary)
      .peer('host.isActivated', asked, deadline.remainingMs(3000))
    if (activated) throw inUse
  } catch (error) {
    if (hasCode(error, 'ACTIVATED_ON_ANOTHER_HOST')) throw error
  }
  const name = { sr: ofSr, volume }
  await context.datapathQueue.run(volume, async () => {
    if (context.references.isHeld(volume, 'activated')) throw inUse
    // Half of what is left at most, so that there is time to close again.
    const openMs = deadline.remainingMs() / 2
    await context.datapath.call('volume.activate', { ...name, deadlineMs: openMs }, openMs)
    const closeMs = deadline.remainingMs()
    await context.datapath.call('volume.deactivate', { ...name, deadlineMs: closeMs }, closeMs)
  })
}

export const volumeCalls: Readonly<Record<string, SmapiCall>> = {
  'Volume.create': volumeCreate,
  'Volume.destroy': destroy,
  'Volume.stat': stat,
  'Volume.set': set,
  'Volume.unset': unset,
  'Volume.set_name': setName,
  'Volume.set_description': setDescription,
  'Volume.resize': resize,
}
