/**
 * Compares what the datapath processes do with what domains hold, and puts right what a restart of either side, or a
 * call that could not be delivered, has left different.
 */
import { reasonOf } from '../core/errors.ts'
import { type VolumeStatus } from '../rpc/datapath-api.ts'
import { type VolumeContext } from '../volume/context.ts'
import { type Datapaths } from './datapaths.ts'
import { type Log } from './log.ts'

const CALL_MS = 10_000

export async function reconcileDatapaths(
  context: VolumeContext,
  datapaths: Datapaths,
  log: Log
): Promise<void> {
  const answers = await datapaths.status()
  // A process that does not answer is starting, or stopped; what it holds is not known.
  if (answers.some(({ status }) => status === null)) return
  const known = new Map(
    answers.flatMap(({ status }) => status!.volumes).map(status => [status.volume, status])
  )
  for (const { sr, volume } of context.references.volumes()) {
    await attempt(log, volume, () =>
      context.datapathQueue.run(volume, () => restore(context, sr, volume, known.get(volume)))
    )
  }
  for (const status of known.values()) {
    await attempt(log, status.volume, () =>
      context.datapathQueue.run(status.volume, () => letGo(context, status))
    )
  }
}

/**
 * Ends what no domain holds: a call that would have ended it was lost with its xosand, or came while the process could
 * not be asked. A volume that is open is left alone while somebody is connected: its guest is there, whoever knows of it.
 */
async function letGo(context: VolumeContext, status: VolumeStatus): Promise<void> {
  const { sr, volume, attached, state, connections } = status
  const { references, datapath } = context
  let isOpen = state !== 'closed'
  // One that is being opened or closed comes to an end by itself.
  const isSettled = state === 'serving' || state === 'holding'
  if (isSettled && connections === 0 && !references.isHeld(volume, 'activated')) {
    await datapath.call('volume.deactivate', { sr, volume, deadlineMs: CALL_MS }, CALL_MS)
    isOpen = false
  }
  if (attached && !isOpen && !references.isHeld(volume, 'attached')) {
    await datapath.call('volume.detach', { sr, volume }, CALL_MS)
  }
}

/**
 * Gives a datapath process that was started anew back what domains still hold, and forgets who held a volume that was
 * destroyed.
 */
async function restore(
  context: VolumeContext,
  sr: VolumeStatus['sr'],
  volume: VolumeStatus['volume'],
  status: VolumeStatus | undefined
): Promise<void> {
  if (context.metadata.volume(sr, volume) === null) {
    // Asked for certain: a catalogue that is being filled anew knows nothing yet.
    await context.metadata.synchronise(CALL_MS)
    if (context.metadata.volume(sr, volume) !== null) return
    await context.references.remove(volume, 'activated', '')
    await context.references.remove(volume, 'attached', '')
    return
  }
  if (status?.attached !== true && context.references.isHeld(volume, 'attached')) {
    await context.datapath.call('volume.attach', { sr, volume }, CALL_MS)
  }
  const isClosed = status === undefined || status.state === 'closed'
  // Only while the record still names this host: else another one has taken over, and the guest here is gone.
  const isOurs = (): boolean => context.metadata.volume(sr, volume)?.state.primary === context.host
  if (isClosed && isOurs() && context.references.isHeld(volume, 'activated')) {
    // Asked for certain: it may have been closed in order, by a call whose answer was lost with an earlier xosand.
    await context.metadata.synchronise(CALL_MS)
    if (!isOurs()) return
    await context.datapath.call('volume.activate', { sr, volume, deadlineMs: CALL_MS }, CALL_MS)
  }
}

async function attempt(log: Log, volume: string, task: () => Promise<void>): Promise<void> {
  try {
    await task()
  } catch (error) {
    log.warn('a volume could not be brought in line with the domains that hold it', {
      volume,
      reason: reasonOf(error),
    })
  }
}
