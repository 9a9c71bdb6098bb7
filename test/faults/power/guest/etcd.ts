import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { openEtcdCoordinator } from '../../../../cluster/etcd/etcd-coordinator.ts'
import { reasonOf } from '../../../../core/errors.ts'
import { type Coordinator } from '../../../../core/ports/coordinator.ts'
import { type HostId, type SrId, millis } from '../../../../core/units.ts'
import {
  type ClusterFile,
  etcdNamespace,
  readClusterFile,
  trustPath,
  writeClusterFile,
} from '../../../../daemon/cluster/cluster-file.ts'
import { MemberProcess } from '../../../../daemon/etcd/member-process.ts'
import { createNodeClock } from '../../../../daemon/ports/node-clock.ts'
import { nodeRandom } from '../../../../daemon/ports/node-random.ts'
import { TrustDirectory } from '../../../../trust/trust-directory.ts'
import { LANES } from '../lanes.ts'
import { CoordinatorChains } from './coordinator-chains.ts'
import { readSeed } from './seed.ts'
import { type OpenWorkload } from './workload.ts'

/** Where the image has all of ours. */
const PROGRAMS = '/xosan'
const ADDRESS = '127.0.0.1'
const PORTS = { client: 2379, peer: 2380 }
/** Emulated processors are slow. */
const CALL_TIME_MS = millis(60_000)
const START_MS = 180_000
const RETRY_MS = 200

/**
 * A member of etcd, started as xosand starts it, and our client. As xosand does, a cluster whose forming was interrupted
 * is formed anew: nobody has been told of it.
 */
export const openWorkload: OpenWorkload = async directory => {
  const stateDirectory = join(directory, 'state')
  await mkdir(stateDirectory, { recursive: true, mode: 0o700 })
  const { sr, host, authorityPem, revocationListPem, certificates } = await readSeed()
  const trust = await TrustDirectory.open(trustPath(stateDirectory))
  if ((await trust.credentials()) === null) {
    await trust.saveCredentials({ ...certificates[0]!, authoritiesPem: authorityPem })
  }
  if (!(await trust.hasRevocationList())) {
    await trust.saveRevocationList(revocationListPem)
  }
  const member = new MemberProcess({
    host: host as HostId,
    address: ADDRESS,
    ports: PORTS,
    stateDirectory,
    sr: sr as SrId,
    generation: 1,
    program: 'etcd',
    programs: PROGRAMS,
    log: () => undefined,
  })
  const file: ClusterFile = {
    version: 1,
    phase: 'forming',
    sr: sr as SrId,
    generation: 1,
    coordinator: { kind: 'etcd', members: [{ host: host as HostId, address: ADDRESS, port: PORTS.client }] },
  }
  const joined = (await readClusterFile(stateDirectory))?.phase === 'joined'
  if (!joined) {
    await member.destroy()
    await writeClusterFile(stateDirectory, file)
  }
  await member.start({ state: 'new' })
  const { keyPem, certificatePem } = certificates[0]!
  const client = openEtcdCoordinator({
    target: {
      members: [{ address: ADDRESS, port: PORTS.client }],
      tls: { ca: Buffer.from(authorityPem), cert: Buffer.from(certificatePem), key: Buffer.from(keyPem) },
    },
    namespace: etcdNamespace(file),
    clock: createNodeClock(),
    random: nodeRandom,
    callTimeMs: CALL_TIME_MS,
  })
  await untilServing(client)
  if (!joined) await writeClusterFile(stateDirectory, { ...file, phase: 'joined' })
  return new CoordinatorChains(Object.keys(LANES.etcd.chains), () => client)
}

async function untilServing(client: Coordinator): Promise<void> {
  const end = performance.now() + START_MS
  for (;;) {
    try {
      await client.list('power/')
      return
    } catch (error) {
      if (performance.now() > end)
        throw new Error(`etcd does not serve: ${reasonOf(error)}`, { cause: error })
      await delay(RETRY_MS)
    }
  }
}
