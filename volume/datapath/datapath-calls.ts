import { hasCode, XosanError } from '../../core/errors.ts'
import { pause } from '../../core/ports/clock.ts'
import { millis, type HostId, type SrId, type VolumeKey } from '../../core/units.ts'
import { plainNbd } from '../../datapath/frontends/plain-nbd.ts'
import { hostId } from '../../rpc/identifiers.ts'
import { defineCall, domain, flag, uri, type SmapiCall } from '../call.ts'
import { type VolumeContext } from '../context.ts'
import { Deadline } from '../deadline.ts'
import { knownVolume } from '../volumes/volume-record.ts'
import { moveEmptyReplicaHere } from './first-activation.ts'

/** xapi asks for this only before non-persistent disks, which it makes with clones. */
const open = defineCall(5000, { uri, persistent: flag }, async (_, { persistent }) => {
  if (persistent) return null
  throw new XosanError('UNSUPPORTED', {
    what: 'A non-persistent disk',
    reason: 'it needs a clone, and this version has none',
  })
})

const close = defineCall(5000, { uri }, async () => null)

const attach = defineCall(
  15_000,
  { uri, domain },
  async (context, { uri: { sr, volume }, domain: holder }, deadline) =>
    inOrder(context, volume, deadline, async () => {
      await knownVolume(context, sr, volume, deadline)
      await context.references.add(sr, volume, 'attached', holder)
      const answer = await context.datapath.call('volume.attach', { sr, volume }, deadline.remainingMs())
      return { implementations: [plainNbd(answer.socket, answer.exportName)] }
    })
)

/** Long enough to wait until a primary that died has lost its promise, twice. */
const ACTIVATE_MS = 30_000

const activate = defineCall(
  ACTIVATE_MS,
  { uri, domain },
  async (context, { uri: { sr, volume }, domain: holder }, deadline) =>
    inOrder(context, volume, deadline, async () => {
      const { state } = await knownVolume(context, sr, volume, deadline)
      if (state.primary !== context.host) {
        // Another host, or nobody, has the volume: whoever had activated it here before is gone. xapi never
        // deactivates what a crash has ended.
        await context.references.remove(volume, 'activated', '')
      }
      await moveEmptyReplicaHere(context, sr, volume, deadline)
      if (!context.references.isHeld(volume, 'attached')) {
        await context.references.add(sr, volume, 'attached', holder)
        await context.datapath.call('volume.attach', { sr, volume }, deadline.remainingMs())
      }
      await openVolume(context, sr, volume, deadline)
      await context.references.add(sr, volume, 'activated', holder)
      return null
    })
)

/** How soon an activation is tried again; a migration's source may be closing the volume just now. */
const RETRY_MS = millis(100)

/** What an attempt leaves of the whole time, to find out who has the volume when it ran out of its own. */
const LOOK_MS = 1000

/** A host that does not answer within this time counts as silent. */
const ASK_MS = 1000

/**
 * Opens a volume on this host. While the host that has it is silent, or has it without a guest (it is about to close
 * it, or was started anew), the attempt is repeated: the replicas let it through as soon as that host's promise is
 * over.
 *
 * @throws XosanError ACTIVATED_ON_ANOTHER_HOST at once when that host says that a guest is using it; else what the
 *   last attempt ended with
 */
async function openVolume(
  context: VolumeContext,
  sr: SrId,
  volume: VolumeKey,
  deadline: Deadline
): Promise<void> {
  for (;;) {
    const deadlineMs = Math.max(deadline.remainingMs() - LOOK_MS, 1)
    try {
      await context.datapath.call('volume.activate', { sr, volume, deadlineMs }, deadlineMs)
      return
    } catch (error) {
      if (hasCode(error, 'DEADLINE_EXCEEDED')) throw await overtaken(context, sr, volume, error)
      if (!hasCode(error, 'ACTIVATED_ON_ANOTHER_HOST')) throw error
      const holder = hostId.safeParse(error.parameters['host'])
      const isInUse = holder.success && (await hasGuest(context, holder.data, sr, volume))
      if (isInUse || deadline.remainingMs() < 2 * RETRY_MS) throw error
      await pause(context.clock, RETRY_MS)
    }
  }
}

/** Of an attempt that ran out of time, as when the datapath process was stopped: another host may have the volume by now. */
async function overtaken(
  context: VolumeContext,
  sr: SrId,
  volume: VolumeKey,
  error: XosanError
): Promise<XosanError> {
  await context.metadata.synchronise(LOOK_MS / 2).catch(() => undefined)
  const host = context.metadata.volume(sr, volume)?.state.primary ?? null
  return host === null || host === context.host
    ? error
    : new XosanError('ACTIVATED_ON_ANOTHER_HOST', { volume, host })
}

async function hasGuest(context: VolumeContext, host: HostId, sr: SrId, volume: VolumeKey): Promise<boolean> {
  try {
    const { activated } = await context.agent(host).peer('host.isActivated', { sr, volume }, ASK_MS)
    return activated
  } catch {
    return false
  }
}

/** Idempotent. The volume is closed when the last domain lets go of it. */
const deactivate = defineCall(
  30_000,
  { uri, domain },
  async (context, { uri: { sr, volume }, domain: holder }, deadline) =>
    inOrder(context, volume, deadline, async () => {
      if (!context.references.isHeldByOthers(volume, 'activated', holder)) {
        const deadlineMs = deadline.remainingMs()
        await context.datapath.call('volume.deactivate', { sr, volume, deadlineMs }, deadlineMs)
      }
      await context.references.remove(volume, 'activated', holder)
      return null
    })
)

const DETACH_MS = 15_000
/** Early enough that the answer is still waited for. */
const DETACH_ANSWER_MS = 12_000

/**
 * Never fails: a datapath process that cannot be asked now is told later, when it is compared with the references. Who
 * held the volume is forgotten at once, although earlier calls may still be served: nobody asks a second time. So it is
 * done as a whole when its turn comes, however late, and answered before: an activation that was served meanwhile would
 * else be taken from its domain, and go on for whoever is connected.
 */
const detach = defineCall(
  DETACH_MS,
  { uri, domain },
  async (context, { uri: { sr, volume }, domain: holder }) => {
    const forget = async (): Promise<void> => {
      await context.references.remove(volume, 'attached', holder)
      await context.references.remove(volume, 'activated', holder)
    }
    try {
      await forget()
      const done = context.datapathQueue.run(volume, async () => {
        // An activation that was served meanwhile has noted it again.
        await forget()
        await letGo(context, sr, volume, new Deadline(context.clock, 'Datapath.detach', DETACH_MS))
      })
      await new Deadline(context.clock, 'Datapath.detach', DETACH_ANSWER_MS).race(done)
    } catch (error) {
      context.warn('a volume could not be detached now', { volume, reason: String(error) })
    }
    return null
  }
)

async function letGo(context: VolumeContext, sr: SrId, volume: VolumeKey, deadline: Deadline): Promise<void> {
  if (!context.references.isHeld(volume, 'activated')) {
    const deadlineMs = deadline.remainingMs()
    await context.datapath.call('volume.deactivate', { sr, volume, deadlineMs }, deadlineMs)
  }
  if (!context.references.isHeld(volume, 'attached')) {
    await context.datapath.call('volume.detach', { sr, volume }, deadline.remainingMs())
  }
}

/** Calls on one volume run one after the other on this host; between hosts the record decides. */
async function inOrder<T>(
  context: VolumeContext,
  volume: VolumeKey,
  deadline: Deadline,
  work: () => Promise<T>
): Promise<T> {
  return context.datapathQueue.run(volume, async () => {
    // Time may have run out while earlier calls were served; then nobody waits for this one any more.
    deadline.remainingMs()
    return work()
  })
}

export const datapathCalls: Readonly<Record<string, SmapiCall>> = {
  'Datapath.open': open,
  'Datapath.attach': attach,
  'Datapath.activate': activate,
  'Datapath.deactivate': deactivate,
  'Datapath.detach': detach,
  'Datapath.close': close,
}
