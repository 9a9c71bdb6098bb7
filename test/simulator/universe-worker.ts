/**
 * A process that looks into universes: seeds come in as messages, outcomes go out. Started by `worker-pool.ts`, always
 * as a bundle.
 */
import { createHash } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { ReachedCode } from './reached-code.ts'
import { Universe, type UniverseReport } from './universe.ts'

export type ToWorker =
  { readonly ask: 'universe'; readonly seed: number } | { readonly ask: 'what was not reached' }

/** What became of one seed. */
export interface Outcome {
  readonly report: UniverseReport
  /** Hash of the log; empty unless `--digest`. */
  readonly digest: string
}

/** Places of the script, from the first to the last: start and end of each stretch. */
export type Stretches = readonly (readonly [number, number])[]

export type FromWorker = { readonly outcome: Outcome } | { readonly notReached: Stretches }

const wanted = new Set(process.argv.slice(2))

async function look(seed: number): Promise<Outcome> {
  const hash = createHash('sha256')
  const report = await new Universe(
    seed,
    wanted.has('--digest') ? line => void hash.update(`${line}\n`) : undefined
  ).run()
  return { report, digest: wanted.has('--digest') ? hash.digest('hex') : '' }
}

const reached = wanted.has('--cover') ? await ReachedCode.follow(fileURLToPath(import.meta.url)) : null

async function answer(message: ToWorker): Promise<FromWorker> {
  if (message.ask === 'universe') return { outcome: await look(message.seed) }
  return { notReached: (await reached?.notReached()) ?? [] }
}

process.on('message', (message: ToWorker) => {
  void answer(message).then(answered => process.send!(answered))
})
