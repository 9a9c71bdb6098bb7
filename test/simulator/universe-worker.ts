/**
 * A process that looks into universes: seeds come in as messages, outcomes go out. Started by `worker-pool.ts`, always
 * as a bundle.
 *
 *     --digest        with a hash of each log
 *     --until=P1,P4   a universe ends when it has broken one of these promises
 */
import { createHash } from 'node:crypto'
import { parseArgs } from 'node:util'
import { Search } from './promises.ts'
import { Universe } from './universe.ts'
import { type Outcome, type ToWorker } from './worker-messages.ts'

const { values } = parseArgs({
  // When something else is between, as for coverage, it has taken what is for itself.
  args: process.argv.slice(2).filter(text => text.startsWith('--')),
  options: { digest: { type: 'boolean', default: false }, until: { type: 'string', default: '' } },
})
const until = values.until.split(',')

async function look(seed: number): Promise<Outcome> {
  const hash = createHash('sha256')
  const log = values.digest ? (line: string) => void hash.update(`${line}\n`) : undefined
  const report = await new Universe(seed, log, new Search(until)).run()
  return { report, digest: values.digest ? hash.digest('hex') : '' }
}

process.on('message', (message: ToWorker) => {
  // What else is asked is for `covered-worker.ts`.
  if (message.ask === 'universe') void look(message.seed).then(outcome => process.send!({ outcome }))
})
