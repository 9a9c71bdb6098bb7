/**
 * A process that looks into universes: seeds come in as messages, outcomes go out. Started by `worker-pool.ts`, always
 * as a bundle.
 */
import { createHash } from 'node:crypto'
import { Universe } from './universe.ts'
import { type Outcome, type ToWorker } from './worker-messages.ts'

const wanted = new Set(process.argv.slice(2))

async function look(seed: number): Promise<Outcome> {
  const hash = createHash('sha256')
  const report = await new Universe(
    seed,
    wanted.has('--digest') ? line => void hash.update(`${line}\n`) : undefined
  ).run()
  return { report, digest: wanted.has('--digest') ? hash.digest('hex') : '' }
}

process.on('message', (message: ToWorker) => {
  // What else is asked is for `covered-worker.ts`.
  if (message.ask === 'universe') void look(message.seed).then(outcome => process.send!({ outcome }))
})
