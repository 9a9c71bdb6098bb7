/** Universes in several processes at once. */
import { type ChildProcess, fork } from 'node:child_process'
import { type UniverseReport } from './universe.ts'
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
  /** How long a universe may take, in milliseconds of real time. */
  readonly limitMs?: number
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

/**
 * Looks into universes. One that ends its process, or does not end, is a problem of that universe, and another process
 * looks into those that come after it.
 * @yields the outcomes in the order of the seeds
 */
export async function* lookInto(options: PoolOptions): AsyncGenerator<Outcome> {
  const { script, first, count, jobs, args = [], execPath = process.execPath, coverage } = options
  const { limitMs = LIMIT_MS } = options
  const [run, told] = coverage === undefined ? [script, args] : [coverage.counter, [script, ...args]]
  const waiting = new Map<number, (outcome: Outcome) => void>()
  const outcomes: Promise<Outcome>[] = []
  for (let seed = first; seed < first + count; seed++) {
    outcomes.push(new Promise(resolve => waiting.set(seed, resolve)))
  }
  const workers = new Set<ChildProcess>()
  let next = first
  /** Asks one process after the other, until no seed is left. Resolves when the last one has said what it reached. */
  const work = async (): Promise<void> => {
    while (next < first + count) {
      const worker = fork(run, told, { execPath, execArgv: [] })
      workers.add(worker)
      const ended = new Promise<string>(resolve => {
        worker.once('exit', (code, signal) =>
          resolve(`the process of the simulator ended with ${code ?? signal}`)
        )
      })
      let isAlive = true
      while (isAlive && next < first + count) {
        const seed = next++
        const limit = limitOf(limitMs)
        const outcome = await Promise.race([universeOf(worker, seed), ended, limit.passed])
        clearTimeout(limit.timer)
        isAlive = typeof outcome !== 'string'
        waiting.get(seed)!(typeof outcome === 'string' ? broken(seed, outcome) : outcome)
      }
      if (isAlive && coverage !== undefined) {
        const stretches = await Promise.race([notReachedBy(worker), ended])
        if (typeof stretches === 'string') throw new Error(stretches)
        coverage.notReached(stretches)
      }
      worker.kill('SIGKILL')
    }
  }
  const all = Promise.all(Array.from({ length: Math.min(jobs, count) }, work))
  all.catch(() => undefined)
  try {
    for (const outcome of outcomes) yield await outcome
    await all
  } finally {
    next = first + count
    for (const worker of workers) worker.kill('SIGKILL')
  }
}

async function universeOf(worker: ChildProcess, seed: number): Promise<Outcome> {
  const answer = await ask(worker, { ask: 'universe', seed })
  if (!('outcome' in answer)) throw new Error('a worker answered something else')
  return answer.outcome
}

async function notReachedBy(worker: ChildProcess): Promise<Stretches> {
  const answer = await ask(worker, { ask: 'what was not reached' })
  if (!('notReached' in answer)) throw new Error('a worker answered something else')
  return answer.notReached
}

/** What a worker answers; it is asked one thing at a time. */
async function ask(worker: ChildProcess, message: ToWorker): Promise<FromWorker> {
  return new Promise(resolve => {
    worker.once('message', answer => resolve(answer as FromWorker))
    // One that has just ended answers nothing, and says so by its end.
    worker.send(message, () => undefined)
  })
}

/** Until when something may take; `passed` says what is wrong then. */
function limitOf(ms: number): { readonly passed: Promise<string>; readonly timer: NodeJS.Timeout } {
  let pass: (what: string) => void = () => undefined
  const passed = new Promise<string>(resolve => (pass = resolve))
  return { passed, timer: setTimeout(() => pass(`it has not ended after ${ms / 1000} s of real time`), ms) }
}

/** What there is to say of a universe whose process told nothing. */
function broken(seed: number, reason: string): Outcome {
  const report: UniverseReport = {
    seed,
    problems: [`P9: ${reason}`],
    virtualMs: 0,
    events: 0,
    operations: 0,
    faults: {},
    takeovers: 0,
    resyncs: 0,
    transitions: {},
  }
  return { report, digest: '' }
}
