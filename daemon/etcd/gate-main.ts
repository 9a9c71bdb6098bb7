/** xosan-etcd-gate: the gate before this host's member of etcd (`gate.ts`). It holds nothing and may be killed any time. */
import { join } from 'node:path'
import { reasonOf } from '../../core/errors.ts'
import { trustPath } from '../cluster/cluster-file.ts'
import { createLog, type Log } from '../log.ts'
import { createNodeClock } from '../ports/node-clock.ts'
import { shutDownOnSignal } from '../shutdown.ts'
import { parseGateArguments } from './gate-arguments.ts'
import { GateFiles } from './gate-files.ts'
import { EtcdGate } from './gate.ts'
import { socketsPath } from './member-arguments.ts'

async function main(log: Log): Promise<void> {
  const { stateDirectory, address, ports } = parseGateArguments(process.argv.slice(2))
  const clock = createNodeClock()
  // A unix socket's path has 107 bytes at most; relative ones always fit.
  const sockets = socketsPath(stateDirectory)
  process.chdir(sockets)
  let gate: EtcdGate | null = null
  const files = new GateFiles({
    path: trustPath(stateDirectory),
    clock,
    changed: async trust => {
      if (gate !== null) {
        gate.use(trust)
        return
      }
      const opened = new EtcdGate({ address, ports, socketOf: name => join('.', name), trust, clock, log })
      await opened.listen().catch((error: unknown) => {
        opened.close()
        throw error
      })
      gate = opened
      log.info('open', { address, client: ports.client, peer: ports.peer })
    },
    warn: reason =>
      log.warn(gate === null ? 'the gate is not open' : 'the gate keeps to what it knew before', { reason }),
  })
  await files.follow()
  shutDownOnSignal(log, async () => {
    files.close()
    gate?.close()
    return Promise.resolve()
  })
}

const log = createLog('xosan-etcd-gate', 'info')
main(log).catch((error: unknown) => {
  log.error('the gate could not be opened', { reason: reasonOf(error) })
  process.exit(1)
})
