/**
 * Volume.create, in steps that leave nothing behind wherever they stop:
 *
 *   1. choose hosts by the space that they have now
 *   2. record the volume as `creating`, with the ids and places of its replicas, on the condition that the SR's
 *      record is unchanged (nobody is destroying it)
 *   3. make the replica on every host
 *   4. clear `creating`: now, and only now, the volume exists
 *
 * What fails after step 2 is undone: records removed, a tombstone for each replica. Done by somebody else, that makes
 * step 4 of a creator that was only slow fail.
 */
import { XosanError } from '../../core/errors.ts'
import { type Operation, type VolumeInfo, type VolumeState } from '../../core/mirror/volume-record.ts'
import { chooseReplicaHosts } from '../../core/placement/choose-replica-hosts.ts'
import {
  epoch,
  roundUpVolumeSize,
  type LayerId,
  type ReplicaId,
  type SrId,
  type VolumeKey,
} from '../../core/units.ts'
import { srKey, volumeInfoKey, volumeStateKey } from '../../cluster/keys.ts'
import { type SrRecord } from '../../cluster/records.ts'
import { serialiseVolumeInfo, serialiseVolumeState } from '../../cluster/volume-state.ts'
import { transactUntilKnown } from '../../cluster/update.ts'
import { defineCall, flag, size as sizeParameter, sr as srParameter, text } from '../call.ts'
import { type VolumeContext } from '../context.ts'
import { Deadline } from '../deadline.ts'
import { liveHosts } from '../live-hosts.ts'
import { currentSr, knownSr } from '../sr/sr-record.ts'
import { smapiVolume } from './smapi-volume.ts'
import { amendState, removeVolume } from './volume-record.ts'

/** What one host may take to make a replica: a few synced writes and reserved space for its maps. */
const REPLICA_CREATE_MS = 12_000

/** How long taking back what could not be made is tried; longer than a coordinator is away when it chooses a new leader. */
const UNDO_MS = 60_000

export const volumeCreate = defineCall(
  30_000,
  { sr: srParameter, name: text, description: text, size: sizeParameter, sharable: flag.default(false) },
  async (context, { sr, name, description, size, sharable }, deadline) => {
    if (sharable) {
      throw new XosanError('UNSUPPORTED', {
        what: 'A sharable volume',
        reason: 'this version serves a volume on one host at a time',
      })
    }
    // Its stores too are known then, also when another host has made the SR just now.
    await knownSr(context, sr, deadline)
    const info: VolumeInfo = { version: 1, name, description, keys: {} }
    const volume = context.random.uuid() as VolumeKey
    // A volume that is being made fails together with its SR, or the SR's record has only been renamed: once more.
    let made: VolumeState | null = null
    for (let attempt = 1; made === null; attempt++) {
      const { record, revision } = await currentSr(context, sr, deadline)
      // The stores of hosts that have just joined come with the record of the SR.
      await context.metadata.waitFor(revision, deadline.remainingMs())
      const state = await planState(context, record, size, deadline)
      const done = await context.operations.run('creating', operation =>
        create(context, { sr, volume, state: { ...state, operation }, info, srRevision: revision }, deadline)
      )
      if (done) made = state
      else if (attempt === 5) throw new XosanError('SR_BUSY', { sr, operation: 'changed' })
    }
    // Not asked of this host's copy, which may be behind: now that the volume is made, nothing may fail.
    return smapiVolume(context, { sr, key: volume, state: made, info })
  }
)

async function planState(
  context: VolumeContext,
  record: SrRecord,
  size: number,
  deadline: Deadline
): Promise<VolumeState> {
  const rounded = roundUpVolumeSize(size)
  const { copies, headroom } = record.configuration
  const chosen = chooseReplicaHosts({
    copies,
    size: rounded,
    headroom,
    hosts: await liveHosts(context, record.sr, deadline),
    prefer: context.host,
  })
  return {
    version: 1,
    size: rounded,
    sharable: false,
    epoch: epoch(0),
    reserved: { epoch: epoch(0), host: null, operation: '' },
    primary: null,
    layers: [context.random.uuid() as LayerId],
    mirrors: [
      chosen.map(({ host, store }) => ({
        host,
        store,
        replica: context.random.uuid() as ReplicaId,
        inSync: true,
      })),
    ],
  }
}

interface NewVolume {
  readonly sr: SrId
  readonly volume: VolumeKey
  readonly state: VolumeState & { readonly operation: Operation }
  readonly info: VolumeInfo
  /** Of the SR's record, which must be unchanged. */
  readonly srRevision: number
}

/** @returns false when the SR's record has changed meanwhile, and nothing was done */
async function create(
  context: VolumeContext,
  { sr, volume, state, info, srRevision }: NewVolume,
  deadline: Deadline
): Promise<boolean> {
  const stateKey = volumeStateKey(sr, volume)
  const infoKey = volumeInfoKey(sr, volume)
  const begun = await transactUntilKnown(
    context,
    [
      { key: srKey(sr), revision: srRevision },
      { key: stateKey, revision: 0 },
    ],
    [
      { key: stateKey, value: serialiseVolumeState(stateKey, state) },
      { key: infoKey, value: serialiseVolumeInfo(infoKey, info) },
    ],
    deadline.at
  )
  if (!begun.committed && !begun.current.some(({ key }) => key === stateKey)) return false
  try {
    await Promise.all(
      state.mirrors
        .flat()
        .map(({ host, store, replica }) =>
          context
            .agent(host)
            .replica(
              'replica.create',
              { sr, volume, replica, store, layers: [...state.layers], size: state.size },
              deadline.remainingMs(REPLICA_CREATE_MS)
            )
        )
    )
    await amendState(
      context,
      sr,
      volume,
      current => {
        const { operation, ...rest } = current
        return operation?.id === state.operation.id ? rest : current
      },
      deadline
    )
    // Nobody waits for it any more: it has failed.
    deadline.remainingMs()
    return true
  } catch (error) {
    // The time of the call may be over, but the volume must not be left: the janitor takes away only what is marked.
    const undoing = new Deadline(context.clock, 'undoing the creation of a volume', UNDO_MS)
    await removeVolume(context, sr, volume, () => undefined, undoing).catch((trouble: unknown) =>
      context.warn('a volume that could not be created is left for the janitor', {
        volume,
        reason: String(trouble),
      })
    )
    throw error
  }
}
