import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { openEmbeddedCoordinator } from '../../../cluster/embedded/embedded-coordinator.ts'
import { type Coordinator } from '../../../core/ports/coordinator.ts'
import { millis } from '../../../core/units.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { nodeRandom } from '../../../daemon/ports/node-random.ts'
import { coordinatorContract } from '../../contract/coordinator.ts'

coordinatorContract('embedded', async historyRevisions => {
  const directory = await mkdtemp(join(tmpdir(), 'xosan-coordinator-'))
  const clients: Coordinator[] = []
  return {
    async client() {
      const client = await openEmbeddedCoordinator({
        path: join(directory, 'coordinator.sqlite'),
        clock: createNodeClock(),
        random: nodeRandom,
        pollIntervalMs: millis(2),
        historyRevisions,
      })
      clients.push(client)
      return client
    },
    settle: async () => delay(5),
    async end() {
      await Promise.all(clients.map(async client => client.close()))
      await rm(directory, { recursive: true })
    },
  }
})
