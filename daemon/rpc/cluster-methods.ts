import { XosanError } from '../../core/errors.ts'
import { type ControlResult } from '../../rpc/control-api.ts'
import { exportToolCertificates } from '../../trust/tool-certificates.ts'
import { type VolumeContext } from '../../volume/context.ts'
import { type ClusterFile } from '../cluster/cluster-file.ts'
import { type SuccessionParts } from '../cluster/create-succession.ts'
import { type ClusterService } from '../cluster/cluster-service.ts'
import { type HostCluster } from '../cluster/host-cluster.ts'
import { removeHost } from '../cluster/host-removal.ts'
import { type PoolMethod } from '../cluster/pool.ts'
import { type Log } from '../log.ts'
import { type ControlMethods } from './control-methods.ts'

const SEEN_MS = 2000

type ClusterMethod = PoolMethod | 'host.remove' | 'trust.export'

/** What can be asked about the cluster that this host is in, or could be in. */
export function clusterMethods({
  context,
  cluster,
  service,
  succession,
  log,
}: {
  readonly cluster: HostCluster
  readonly context: VolumeContext
  readonly service: ClusterService
  readonly succession: SuccessionParts
  readonly log: Log
}): Pick<ControlMethods, ClusterMethod> {
  return {
    'cluster.check': async () => service.check(),
    'cluster.invite': async ({ host, address }) => service.invite(host, address),
    'cluster.join': async params => {
      await service.join(params)
      return null
    },
    'cluster.leave': async ({ sr }) => {
      await service.leave(sr)
      return null
    },
    'cluster.trust': async params => {
      await succession.steps.trust(params)
      return null
    },
    'cluster.request': async ({ sr, listed }) => succession.steps.request(sr, listed),
    'cluster.certify': async params => {
      await succession.steps.certify(params)
      return null
    },
    'host.remove': async ({ host }) => {
      if (cluster.file === null) throw new XosanError('NOT_IN_CLUSTER', {})
      const { host: self, metadata } = context
      const around = { self, sr: cluster.file.sr, hosts: metadata.hosts(), log, ...succession }
      const removed = await succession.removals.run('host', async () =>
        removeHost(host, { ...context, ...around })
      )
      // Whoever looks at the hosts next is not to see it here.
      await metadata.synchronise(SEEN_MS).catch(() => undefined)
      return removed
    },
    'trust.export': async ({ directory }) => {
      const { credentials } = cluster
      if (credentials === null) throw new XosanError('NOT_IN_CLUSTER', {})
      await exportToolCertificates(directory, credentials)
      return null
    },
  }
}

/** A cluster as `status` tells it. */
export function summaryOf({
  sr,
  generation,
  phase,
  coordinator,
}: ClusterFile): NonNullable<ControlResult<'status'>['cluster']> {
  return {
    sr,
    generation,
    phase,
    coordinator: coordinator.kind,
    etcdMembers: coordinator.kind === 'etcd' ? [...coordinator.members] : [],
  }
}
