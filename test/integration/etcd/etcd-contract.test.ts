import { setTimeout as delay } from 'node:timers/promises'
import { openEtcdCoordinator } from '../../../cluster/etcd/etcd-coordinator.ts'
import { type Coordinator } from '../../../core/ports/coordinator.ts'
import { millis } from '../../../core/units.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { nodeRandom } from '../../../daemon/ports/node-random.ts'
import { coordinatorContract } from '../../contract/coordinator.ts'
import { EtcdCluster, hasEtcd } from '../../support/etcd-cluster.ts'

/** With so little history the test is about compaction, which etcd does on demand or every five minutes. */
const HISTORY_SHORT_MAX = 100

for (const members of [1, 3] as const) {
  describe(`etcd of ${members}`, function () {
    let cluster: EtcdCluster
    let stores = 0

    before(async function () {
      if (!hasEtcd()) this.skip()
      cluster = await EtcdCluster.start({ members })
    })
    // Runs too when the tests were skipped.
    after(async () => (cluster as EtcdCluster | undefined)?.end())

    // Every test has a namespace of its own in one cluster, next to what the tests before have left.
    coordinatorContract(`etcd of ${members}`, async historyRevisions => {
      const namespace = `xosan/test/${++stores}/`
      const clients: Coordinator[] = []
      return {
        async client() {
          const client = openEtcdCoordinator({
            target: { members: cluster.members, tls: null },
            namespace,
            clock: createNodeClock(),
            random: nodeRandom,
            callTimeMs: millis(10_000),
            watchPingMs: millis(200),
          })
          clients.push(client)
          return historyRevisions > HISTORY_SHORT_MAX ? client : compacting(client, cluster, historyRevisions)
        },
        settle: async () => delay(5),
        async end() {
          await Promise.all(clients.map(async client => client.close()))
        },
      }
    })
  })
}

/** Keeps only so much history, as the embedded coordinator does by itself. */
function compacting(client: Coordinator, cluster: EtcdCluster, historyRevisions: number): Coordinator {
  return {
    read: async key => client.read(key),
    list: async prefix => client.list(prefix),
    async transact(conditions, changes) {
      const result = await client.transact(conditions, changes)
      if (result.revision > historyRevisions + 1) await cluster.compact(result.revision - historyRevisions)
      return result
    },
    watch: (prefix, after, listener) => client.watch(prefix, after, listener),
    close: async () => client.close(),
  }
}
