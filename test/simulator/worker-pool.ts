/** Universes in several processes at once. */
import { fork } from 'node:child_process'
import { type FromWorker, type Outcome, type Stretches, type ToWorker } from './worker-messages.ts'

export interface PoolOptions {
  /** The bundled worker. */
  readonly script: string
  readonly first: number
  readonly count: number
  /** Processes at once. */
  readonly jobs: number
  /** What workers are told: `--digest`. */
  readonly args?: readonly string[]
  /** The program that runs them; this one's Node if not given. */
  readonly execPath?: string
  /** For workers that count what they reach. */
  readonly coverage?: {
    /** The bundled worker that counts, and takes up `script`. */
    readonly counter: string
    /** Told by each worker, in the end, what it has not reached. */
    readonly notReached: (stretches: Stretches) => void
  }
}

/** A universe takes a second or two; one that takes so long turns in a circle, on the slowest machine. */
const LIMIT_MS = 600_000

/** Looks into universes. @yields the outcomes in the order of the seeds */
export async function* lookInto(options: PoolOptions): AsyncGenerator<Outcome> {
  const { script, first, count, jobs, args = [], execPath = process.execPath, coverage } = options
  const waiting = new Map<number, (outcome: Outcome) => void>()
  const outcomes: Promise<Outcome>[] = []
  for (let seed = first; seed < first + count; seed++) {
    outcomes.push(new Promise(resolve => waiting.set(seed, resolve)))
  }
  let next = first
  let failed: (error: Error) => void = () => undefined
  const failure = new Promise<never>((_, reject) => (failed = reject))
  failure.catch(() => undefined)
  const covered: Promise<void>[] = []
  const workers = Array.from({ length: Math.min(jobs, count) }, () => {
    const [run, told] = coverage === undefined ? [script, args] : [coverage.counter, [script, ...args]]
    const worker = fork(run, told, { execPath, execArgv: [] })
    let counted: () => void = () => undefined
    if (coverage !== undefined) covered.push(new Promise(resolve => (counted = resolve)))
    const ask = (message: ToWorker): void => void worker.send(message)
    let limit: NodeJS.Timeout | undefined
    const feed = (): void => {
      clearTimeout(limit)
      if (next < first + count) {
        const seed = next++
        const late = `the universe of seed ${seed} has not ended after ${LIMIT_MS / 1000} s of real time`
        limit = setTimeout(() => failed(new Error(late)), LIMIT_MS).unref()
        ask({ ask: 'universe', seed })
      } else if (coverage !== undefined) ask({ ask: 'what was not reached' })
    }
    worker.on('message', message => {
      const answer = message as FromWorker
      if ('outcome' in answer) {
        waiting.get(answer.outcome.report.seed)!(answer.outcome)
        feed()
      } else {
        coverage?.notReached(answer.notReached)
        counted()
      }
    })
    worker.on('exit', code => failed(new Error(`a process of the simulator ended with ${code}`)))
    feed()
    return worker
  })
  try {
    for (const outcome of outcomes) yield await Promise.race([outcome, failure])
    await Promise.race([Promise.all(covered), failure])
  } finally {
    for (const worker of workers) worker.removeAllListeners('exit').kill()
  }
}
