import { join } from 'node:path'
import { openEmbeddedCoordinator } from '../../../../cluster/embedded/embedded-coordinator.ts'
import { millis } from '../../../../core/units.ts'
import { createNodeClock } from '../../../../daemon/ports/node-clock.ts'
import { nodeRandom } from '../../../../daemon/ports/node-random.ts'
import { LANES } from '../lanes.ts'
import { CoordinatorChains } from './coordinator-chains.ts'
import { type OpenWorkload } from './workload.ts'

/** Emulated processors are slow. */
const CALL_TIME_MS = millis(60_000)
/** Few, so that old history is removed all the time. */
const HISTORY_REVISIONS = 50

/** The embedded coordinator. Each chain has a connection of its own to the one file, as each process of a lab has. */
export const openWorkload: OpenWorkload = async directory => {
  const names = Object.keys(LANES.embedded.chains)
  const clients = await Promise.all(
    names.map(async name => {
      const client = await openEmbeddedCoordinator({
        path: join(directory, 'state', 'coordinator.sqlite'),
        clock: createNodeClock(),
        random: nodeRandom,
        callTimeMs: CALL_TIME_MS,
        historyRevisions: HISTORY_REVISIONS,
      })
      return [name, client] as const
    })
  )
  const byChain = new Map(clients)
  return new CoordinatorChains(names, chain => byChain.get(chain)!)
}
