/**
 * Asks every member of etcd of a host's cluster how it is, and prints one JSON array. A program of its own, because it
 * has to run in the network of a lab host.
 *
 *     node --import tsx etcd-status.ts STATE-DIRECTORY
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { EtcdAdmin } from '../../../cluster/etcd/etcd-admin.ts'
import { millis } from '../../../core/units.ts'
import { readClusterFile, trustPath } from '../../../daemon/cluster/cluster-file.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { nodeRandom } from '../../../daemon/ports/node-random.ts'
import { type EtcdMemberStatus } from './etcd-member-status.ts'

/** A member that is there answers within milliseconds, also without a quorum. */
const CALL_MS = millis(3_000)

async function main(stateDirectory: string): Promise<EtcdMemberStatus[]> {
  const cluster = await readClusterFile(stateDirectory)
  if (cluster?.coordinator.kind !== 'etcd') return []
  const { members } = cluster.coordinator
  const pem = (name: string): Promise<Buffer> => readFile(join(trustPath(stateDirectory), name))
  const [own, ca] = [await pem('host.pem'), await pem('authorities.pem')]
  const clock = createNodeClock()
  const target = { members, tls: { ca, cert: own, key: own } }
  const admin = new EtcdAdmin({ target, clock, random: nodeRandom, callTimeMs: CALL_MS })
  try {
    return await Promise.all(
      members.map(async ({ host, address, port }): Promise<EtcdMemberStatus> => {
        const status = await admin.status({ address, port }).catch(() => null)
        if (status === null) return { host, state: null }
        const { header, leader, errors, isLearner } = status
        return {
          host,
          state: {
            leads: leader === header.member_id,
            healthy: leader !== '0' && errors.length === 0,
            learner: isLearner,
          },
        }
      })
    )
  } finally {
    admin.close()
  }
}

process.stdout.write(`${JSON.stringify(await main(process.argv[2] ?? ''))}\n`)
