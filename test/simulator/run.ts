/**
 * The simulator's command: `npm run sim -- --seeds N [--first-seed S]`, or `--seed S` for one universe with its log.
 */
import { fork } from 'node:child_process'
import { createHash } from 'node:crypto'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { Universe, type UniverseReport } from './universe.ts'

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '200' },
    'first-seed': { type: 'string', default: '1' },
    seed: { type: 'string' },
    json: { type: 'boolean', default: false },
    /** Universes at once, each in a process of its own; as many as there are processors if not given. */
    jobs: { type: 'string', default: String(availableParallelism()) },
    /** Set in the processes that `jobs` starts: seeds come in as messages. */
    worker: { type: 'boolean', default: false },
    /** Prints a hash of each universe's log instead of the log, to compare runs. */
    digest: { type: 'boolean', default: false },
    /** Ends with the first universe in which a promise was broken. */
    'until-broken': { type: 'boolean', default: false },
  },
})

/** One cause breaks many sectors; the first few tell it. */
const PROBLEMS_SHOWN = 6

async function one(seed: number): Promise<void> {
  const report = await new Universe(seed, line => console.log(line)).run()
  console.log(JSON.stringify(report, null, 2))
  process.exitCode = report.problems.length === 0 ? 0 : 1
}

/** What became of one seed. */
interface Outcome {
  readonly report: UniverseReport
  /** Hash of the log; empty unless `--digest`. */
  readonly digest: string
}

async function look(seed: number): Promise<Outcome> {
  const hash = createHash('sha256')
  const report = await new Universe(seed, line => {
    if (values.digest) hash.update(`${line}\n`)
  }).run()
  return { report, digest: values.digest ? hash.digest('hex') : '' }
}

/** Looks into universes in several processes. @yields the outcomes in the order of the seeds */
async function* lookInto(first: number, count: number, jobs: number): AsyncGenerator<Outcome> {
  const script = fileURLToPath(import.meta.url)
  const args = ['--worker', ...(values.digest ? ['--digest'] : [])]
  const waiting = new Map<number, (outcome: Outcome) => void>()
  const outcomes: Promise<Outcome>[] = []
  for (let seed = first; seed < first + count; seed++) {
    outcomes.push(new Promise(resolve => waiting.set(seed, resolve)))
  }
  let next = first
  let failed: (error: Error) => void = () => undefined
  const failure = new Promise<never>((_, reject) => (failed = reject))
  const workers = Array.from({ length: Math.min(jobs, count) }, () => {
    const worker = fork(script, args)
    const feed = (): void => {
      if (next < first + count) worker.send(next++)
    }
    worker.on('message', message => {
      const outcome = message as Outcome
      waiting.get(outcome.report.seed)!(outcome)
      feed()
    })
    worker.on('exit', code => {
      if (code !== 0) failed(new Error(`a process of the simulator ended with ${code}`))
    })
    feed()
    return worker
  })
  try {
    for (const outcome of outcomes) yield await Promise.race([outcome, failure])
  } finally {
    for (const worker of workers) worker.removeAllListeners('exit').kill()
  }
}

function work(): void {
  process.on('message', (seed: number) => {
    void look(seed).then(outcome => process.send!(outcome))
  })
}

async function many(first: number, count: number): Promise<void> {
  const started = performance.now()
  const reports: UniverseReport[] = []
  let shown = started
  for await (const { report, digest } of lookInto(first, count, Number(values.jobs))) {
    const { seed } = report
    reports.push(report)
    if (values.digest) console.log(`${seed} ${digest}`)
    for (const problem of report.problems.slice(0, PROBLEMS_SHOWN)) console.error(`seed ${seed}: ${problem}`)
    if (values['until-broken'] && report.problems.length > 0) break
    if (performance.now() - shown > (process.stderr.isTTY ? 500 : 30_000)) {
      shown = performance.now()
      const progress = `${reports.length} of ${count} universes`
      process.stderr.write(process.stderr.isTTY ? `\r${progress} ` : `${progress}\n`)
    }
  }
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K')
  const summary = summarise(reports, (performance.now() - started) / 1000)
  if (values.json) console.log(JSON.stringify(summary, null, 2))
  else if (!values.digest) print(summary)
  process.exitCode = summary.failed === 0 ? 0 : 1
}

function summarise(reports: readonly UniverseReport[], seconds: number) {
  const faults: Record<string, number> = {}
  for (const report of reports) {
    for (const [kind, count] of Object.entries(report.faults)) faults[kind] = (faults[kind] ?? 0) + count
  }
  const median = (pick: (report: UniverseReport) => number): number =>
    reports.map(pick).sort((a, b) => a - b)[Math.floor(reports.length / 2)] ?? 0
  return {
    universes: reports.length,
    failed: reports.filter(({ problems }) => problems.length > 0).length,
    failedSeeds: reports.filter(({ problems }) => problems.length > 0).map(({ seed }) => seed),
    seconds: Math.round(seconds),
    universesPerMinute: Math.round((reports.length / seconds) * 60),
    virtualHours: Math.round(reports.reduce((sum, { virtualMs }) => sum + virtualMs, 0) / 36_000) / 100,
    medians: {
      faults: median(report => Object.values(report.faults).reduce((sum, count) => sum + count, 0)),
      takeovers: median(report => report.takeovers),
      resyncs: median(report => report.resyncs),
      guestOperations: median(report => report.operations),
      events: median(report => report.events),
    },
    faults,
  }
}

function print(summary: ReturnType<typeof summarise>): void {
  const { universes, failed, seconds, universesPerMinute, virtualHours, medians, faults } = summary
  console.log(
    `${universes} universes in ${seconds} s (${universesPerMinute} a minute), ${virtualHours} simulated hours`
  )
  console.log(
    `median of each: ${medians.faults} faults, ${medians.takeovers} activations, ${medians.resyncs} resyncs, ` +
      `${medians.guestOperations} guest operations, ${medians.events} events`
  )
  for (const [kind, count] of Object.entries(faults))
    console.log(`  ${kind.padEnd(22)} ${String(count).padStart(8)}`)
  console.log(failed === 0 ? 'no promise was broken' : `BROKEN in seeds ${summary.failedSeeds.join(' ')}`)
}

if (values.worker) work()
else if (values.seed !== undefined) await one(Number(values.seed))
else await many(Number(values['first-seed']), Number(values.seeds))
