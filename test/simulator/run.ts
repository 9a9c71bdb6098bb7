/**
 * The simulator's command: `npm run sim -- --seeds N [--first-seed S]`, or `--seed S` for one universe with its log.
 */
import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import { bundleWorker } from './bundle.ts'
import { Coverage } from './coverage.ts'
import { printSummary, summarise } from './summary.ts'
import { Universe, type UniverseReport } from './universe.ts'
import { lookInto } from './worker-pool.ts'

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '200' },
    'first-seed': { type: 'string', default: '1' },
    seed: { type: 'string' },
    json: { type: 'boolean', default: false },
    /** Universes at once, each in a process of its own; as many as there are processors if not given. */
    jobs: { type: 'string', default: String(availableParallelism()) },
    /**
     * The share of the universes that is watched for the passages it reaches: to count them costs a quarter of the
     * processor time.
     */
    covered: { type: 'string', default: '0.25' },
  },
})

/** One cause breaks many sectors; the first few tell it. */
const PROBLEMS_SHOWN = 6

async function one(seed: number): Promise<void> {
  const report = await new Universe(seed, line => console.log(line)).run()
  console.log(JSON.stringify(report, null, 2))
  process.exitCode = report.problems.length === 0 ? 0 : 1
}

async function many(first: number, count: number): Promise<void> {
  const started = performance.now()
  const script = await bundleWorker('universe-worker')
  const jobs = Number(values.jobs)
  const covered = Math.ceil(count * Number(values.covered))
  const coverage = new Coverage(script)
  const counter = await bundleWorker('covered-worker', [], 'covered-worker')
  const reports: UniverseReport[] = []
  const show = progressOf(count)
  const parts = [
    { script, first, count: covered, jobs, coverage: { counter, notReached: coverage.add.bind(coverage) } },
    { script, first: first + covered, count: count - covered, jobs },
  ]
  for (const part of parts) {
    for await (const { report } of lookInto(part)) {
      reports.push(report)
      for (const problem of report.problems.slice(0, PROBLEMS_SHOWN)) {
        console.error(`seed ${report.seed}: ${problem}`)
      }
      show(reports)
    }
  }
  const seconds = (performance.now() - started) / 1000
  const summary = summarise(reports, seconds, { covered, report: covered > 0 ? coverage.report() : null })
  if (values.json) console.log(JSON.stringify(summary, null, 2))
  else printSummary(summary)
  process.exitCode = summary.failed === 0 ? 0 : 1
}

/** A line that says how far it has come: on a terminal all the time, in a file now and then. */
function progressOf(count: number): (reports: readonly UniverseReport[]) => void {
  const started = performance.now()
  const { isTTY } = process.stderr
  let shown = started
  return reports => {
    if (isTTY && reports.length === count) process.stderr.write('\r\x1b[K')
    else if (performance.now() - shown > (isTTY ? 500 : 30_000)) {
      shown = performance.now()
      const perMinute = Math.round((reports.length / (shown - started)) * 60_000)
      const failed = reports.filter(({ problems }) => problems.length > 0).length
      const progress = `${reports.length} of ${count} universes, ${perMinute} a minute, ${failed} broken`
      process.stderr.write(isTTY ? `\r${progress} ` : `${progress}\n`)
    }
  }
}

if (values.seed !== undefined) await one(Number(values.seed))
else await many(Number(values['first-seed']), Number(values.seeds))
