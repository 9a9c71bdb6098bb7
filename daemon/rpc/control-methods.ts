import { type z } from 'zod'
import { hasCode, XosanError } from '../../core/errors.ts'
import { type HostId, type SrId, type VolumeKey } from '../../core/units.ts'
import { type HostRecord } from '../../cluster/records.ts'
import {
  type controlApi,
  type ControlMethod,
  type ControlResult,
  type HostSummary,
  type VolumeSummary,
} from '../../rpc/control-api.ts'
import { type VolumeStatus } from '../../rpc/datapath-api.ts'
import { type StoredVolume, type VolumeContext } from '../../volume/context.ts'
import { Deadline } from '../../volume/deadline.ts'
import { answerSmapiCall } from '../../volume/smapi.ts'
import { type Datapaths } from '../datapaths.ts'
import { type MeasuredUsage } from '../usage.ts'
import { type SuccessionParts } from '../cluster/create-succession.ts'
import { type ClusterService } from '../cluster/cluster-service.ts'
import { type HostCluster } from '../cluster/host-cluster.ts'
import { type Log } from '../log.ts'
import { clusterMethods, summaryOf } from './cluster-methods.ts'
import { sentenceOf } from './holding.ts'

/** What the `xosan` command and the entry scripts can ask. */
export type ControlMethods = {
  readonly [M in ControlMethod]: (
    params: z.output<(typeof controlApi)[M]['params']>
  ) => Promise<ControlResult<M>>
}

interface ControlOptions {
  readonly context: VolumeContext
  readonly self: { readonly uuid: HostId; readonly name: string; readonly address: string }
  readonly cluster: HostCluster
  readonly service: ClusterService
  readonly succession: SuccessionParts
  readonly log: Log
  readonly datapaths: Datapaths
  readonly usage: MeasuredUsage
  /** What needs an administrator's eye, as sentences. */
  readonly warnings: () => readonly string[]
}

/** An administrator waits for a list; a host that does not answer within this time is shown as down. */
const ASK_MS = 2000

export function controlMethods(options: ControlOptions): ControlMethods {
  return {
    'smapi.call': async params => answerSmapiCall(options.context, params),
    ...clusterMethods(options),
    status: async () => status(options),
    'host.ls': async () => listHosts(options.context),
    'volume.ls': async ({ sr }) => {
      const { metadata } = options.context
      const srs = sr === undefined ? metadata.srs().map(record => record.sr) : [sr]
      return summarise(
        options,
        srs.flatMap(id => metadata.volumes(id))
      )
    },
    'volume.show': async ({ volume }) => (await summarise(options, [find(options.context, volume)]))[0]!,
    'volume.resync': async ({ volume }) => resync(options.context, find(options.context, volume)),
  }
}

async function status({
  context,
  self,
  cluster,
  datapaths,
  warnings,
}: ControlOptions): Promise<ControlResult<'status'>> {
  const { metadata } = context
  const deadline = new Deadline(context.clock, 'asking the coordinator', ASK_MS)
  const revision = await deadline
    .race(context.coordinator.read(`hosts/${context.host}`))
    .then(answer => answer.revision)
    .catch(() => null)
  const answers = await datapaths.status()
  return {
    host: self,
    pid: process.pid,
    version: context.version,
    cluster: cluster.file === null ? null : summaryOf(cluster.file),
    coordinator: {
      reachable: revision !== null,
      revision: revision ?? 0,
      catalogueRevision: metadata.reached,
    },
    datapaths: answers.map(({ index, status: answer }) => ({
      index,
      up: answer !== null,
      pid: answer?.pid ?? null,
      volumes: answer?.volumes.length ?? 0,
    })),
    srs: metadata.srs().map(({ sr, name, configuration }) => ({
      sr,
      name,
      copies: configuration.copies,
      volumes: metadata.countVolumes(sr),
    })),
    warnings: [
      ...warnings(),
      ...answers
        .flatMap(({ status: answer }) => answer?.volumes ?? [])
        .flatMap(told => waiting(metadata, told)),
    ],
  }
}

/** What a volume that this host has open waits for, as sentences. */
function waiting(metadata: VolumeContext['metadata'], { sr, volume, waits }: VolumeStatus): string[] {
  if (waits.length === 0) return []
  const names = new Map(metadata.hosts().map(({ host, name }) => [host, name]))
  const name = nameOf(metadata, sr, volume)
  return waits.map(wait => {
    const sentence = sentenceOf(wait, host => names.get(host) ?? host)
    return `Volume ${volume}${name === '' ? '' : ` ("${name}")`} waits. ${sentence}`
  })
}

/** Empty for a volume without a name, and for one whose record is gone or cannot be read. */
function nameOf(metadata: VolumeContext['metadata'], sr: SrId, volume: VolumeKey): string {
  try {
    return metadata.volume(sr, volume)?.info.name ?? ''
  } catch {
    return ''
  }
}

async function listHosts(context: VolumeContext): Promise<HostSummary[]> {
  const stores = context.metadata
    .srs()
    .flatMap(({ sr }) => context.metadata.stores(sr).map(store => ({ sr, ...store })))
  return Promise.all(
    context.metadata.hosts().map(async ({ host, name, address }) => {
      const own = stores.filter(store => store.host === host)
      const summary = { uuid: host, name, address }
      try {
        await context.agent(host).peer('host.ping', {}, ASK_MS)
      } catch {
        return { ...summary, state: 'down', ...sum(own.map(({ space }) => space)) }
      }
      const live = own.map(async ({ sr, store, space }) =>
        context
          .agent(host)
          .peer('host.stat', { sr, store }, ASK_MS)
          .catch(() => space)
      )
      return { ...summary, state: 'up', ...sum(await Promise.all(live)) }
    })
  )
}

function sum(spaces: readonly { total: HostSummary['total']; free: HostSummary['free'] }[]) {
  return {
    total: spaces.reduce((bytes, { total }) => bytes + total, 0) as HostSummary['total'],
    free: spaces.reduce((bytes, { free }) => bytes + free, 0) as HostSummary['free'],
  }
}

/** Joins the records of volumes with what their primaries tell of them. */
async function summarise(
  { context, usage }: ControlOptions,
  volumes: readonly StoredVolume[]
): Promise<VolumeSummary[]> {
  const finished = volumes.filter(({ state }) => state.operation === undefined)
  const primaries = new Set(finished.flatMap(({ state }) => state.primary ?? []))
  const told = new Map<VolumeKey, VolumeStatus>()
  const answered = new Set<HostId>()
  await Promise.all(
    [...primaries].map(async host => {
      try {
        const answer = await context.agent(host).peer('host.volumes', {}, 2 * ASK_MS)
        answered.add(host)
        for (const volume of answer.volumes) told.set(volume.volume, volume)
      } catch {
        // Shown as unknown.
      }
    })
  )
  const hosts = new Map(context.metadata.hosts().map(host => [host.host, host]))
  return finished.map(volume => {
    usage.physicalBytes(volume)
    const { primary } = volume.state
    const fromPrimary = primary !== null && answered.has(primary) ? (told.get(volume.key) ?? null) : null
    return summary(volume, fromPrimary, hosts, usage.known(volume.key))
  })
}

function summary(
  { sr, key, state, info }: StoredVolume,
  told: VolumeStatus | null,
  hosts: ReadonlyMap<HostId, HostRecord>,
  physical: number | null
): VolumeSummary {
  const progress = new Map(told?.replicas.map(replica => [replica.replica, replica]))
  return {
    sr,
    key,
    name: info.name,
    size: state.size,
    physical: physical as VolumeSummary['physical'],
    primary: state.primary,
    epoch: state.epoch,
    state: told?.state ?? (state.primary === null ? 'closed' : 'unknown'),
    waits: told?.waits ?? [],
    holding: told?.waits.map(wait => sentenceOf(wait, host => hosts.get(host)?.name ?? host)) ?? [],
    replicas: state.mirrors.flat().map(({ host, replica, inSync }) => {
      const live = progress.get(replica)
      return {
        host,
        hostName: hosts.get(host)?.name ?? host,
        replica,
        state: live?.state ?? (inSync ? 'in-sync' : 'stale'),
        totalBytes: live?.totalBytes ?? NO_BYTES,
        doneBytes: live?.doneBytes ?? NO_BYTES,
        trouble: live?.trouble ?? null,
      }
    }),
  }
}

const NO_BYTES = 0 as VolumeSummary['replicas'][number]['totalBytes']

/**
 * Starts a resync where the volume is open, or else on the first host with an in-sync replica that answers.
 *
 * @throws XosanError what the last host asked has answered
 */
async function resync(context: VolumeContext, { sr, key, state }: StoredVolume): Promise<null> {
  const inSync = state.mirrors.flat().filter(replica => replica.inSync)
  const candidates = state.primary === null ? inSync.map(({ host }) => host) : [state.primary]
  // This host first: it is certainly up.
  candidates.sort((a, b) => Number(b === context.host) - Number(a === context.host))
  for (const [i, host] of candidates.entries()) {
    try {
      return await context.agent(host).peer('host.resync', { sr, volume: key }, 5 * ASK_MS)
    } catch (error) {
      const another = hasCode(error, 'PEER_UNREACHABLE') || hasCode(error, 'DEADLINE_EXCEEDED')
      if (!another || i === candidates.length - 1) throw error
    }
  }
  throw new XosanError('NO_REPLICA_REACHABLE', { volume: key, reason: 'none is in-sync' })
}

/** @throws XosanError VOLUME_NOT_FOUND */
function find({ metadata }: VolumeContext, key: VolumeKey): StoredVolume {
  for (const { sr } of metadata.srs()) {
    const volume = metadata.volume(sr, key)
    if (volume !== null) return volume
  }
  throw new XosanError('VOLUME_NOT_FOUND', { sr: 'any', volume: key })
}
