import { memberKey } from '../../cluster/keys.ts'
import { transactUntilKnown } from '../../cluster/update.ts'
import { type Clock } from '../../core/ports/clock.ts'
import { type Random } from '../../core/ports/random.ts'
import { hasCode } from '../../core/errors.ts'
import { type HostId } from '../../core/units.ts'
import { type TrustDirectory } from '../../trust/trust-directory.ts'
import { Deadline } from '../../volume/deadline.ts'
import { KeyedQueue } from '../../volume/keyed-queue.ts'
import { type Config } from '../config.ts'
import { type Log } from '../log.ts'
import { type CertificateRenewal } from './certificate-renewal.ts'
import { type ClusterFile } from './cluster-file.ts'
import { type EtcdPart } from './etcd-part.ts'
import { type HostCluster } from './host-cluster.ts'
import { type Pool } from './pool.ts'
import { type Revocation } from './revocation.ts'
import { SuccessionRecord } from './succession-record.ts'
import { SuccessionSteps } from './succession-steps.ts'
import { Succession } from './succession.ts'

interface CreateOptions {
  readonly config: Pick<Config, 'host'>
  readonly version: string
  readonly cluster: Pick<HostCluster, 'coordinator' | 'toldMembers'> & {
    readonly file: Pick<ClusterFile, 'sr'> | null
  }
  readonly directory: () => Promise<TrustDirectory>
  readonly pool: Pool
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  /** Null until this host has entered its cluster. */
  readonly revocation: () => Pick<Revocation, 'current' | 'require'> | null
  readonly reload: () => Promise<void>
  readonly renewal: Pick<CertificateRenewal, 'trust' | 'adopt' | 'addCertificate'>
  /** Null where the coordinator is not etcd. */
  readonly etcdPart: Pick<EtcdPart, 'restarted'> | null
  /** As an administrator knows a host. */
  readonly nameOf: (host: HostId) => string
}

/** How another host takes the place of the one that holds the authority. */
export interface SuccessionParts {
  readonly record: SuccessionRecord
  readonly steps: SuccessionSteps
  readonly succession: Succession
  /** Removals, one after the other: whoever did not wait for the answer and asks again must not meet himself. */
  readonly removals: KeyedQueue<'host'>
}

const CHECK_MS = 5_000

/** The parts of a succession on one host, put together. */
export function createSuccession(options: CreateOptions): SuccessionParts {
  const { config, version, cluster, directory, pool, clock, random, log, nameOf } = options
  const { revocation, reload, renewal, etcdPart } = options
  const { coordinator } = cluster
  const revocationsCurrent = async () => revocation()?.current()
  const record = new SuccessionRecord({
    coordinator,
    clock,
    random,
    nameOf,
    srOf: async host =>
      pool.call(host, 'cluster.check', {}, CHECK_MS).then(
        found => found.sr,
        () => null
      ),
  })
  const steps = new SuccessionSteps({
    host: config.host.name,
    cluster,
    directory,
    revocationsCurrent,
    reload,
    renewal,
    etcdRestarted: async () => etcdPart?.restarted(),
    successor: async (sr, withinMs) =>
      record.read(sr, new Deadline(clock, 'looking who holds the authority', withinMs)).then(
        ({ succession }) => succession?.by,
        (error: unknown) => {
          if (hasCode(error, 'SR_NOT_FOUND')) return undefined
          return null
        }
      ),
  })
  const succession = new Succession({
    host: config.host,
    version,
    pool,
    coordinator,
    clock,
    record,
    steps,
    directory,
    revocationsPublished: async () => revocation()?.require(),
    removeMembers: async (hosts, deadline) => {
      const changes = hosts.map(host => ({ key: memberKey(host), value: null }))
      await transactUntilKnown({ coordinator, clock, random }, [], changes, deadline.at)
    },
    addCertificate: async (host, certificatePem, inUse) =>
      renewal.addCertificate(host, certificatePem, inUse),
    nameOf,
    log,
  })
  return { record, steps, succession, removals: new KeyedQueue() }
}
