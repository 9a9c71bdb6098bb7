/**
 * `npm run bench`: XOSAN beside what else a guest's disk could be made of, in one run, on hosts with networks of their own.
 * Writes a Markdown page, a picture and all figures.
 *
 *     node --import tsx test/bench/bench.ts [--quick] [--systems a,b] [--workloads a,b] [--links unshaped,1gbit] [--json]
 */
import { mkdir, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { Command } from 'commander'
import { wholeNumber } from '../../cli/commands/common.ts'
import { Console } from '../../cli/console.ts'
import { formatDuration } from '../../cli/format.ts'
import { requireProgram } from '../../cli/lab/find-program.ts'
import { reasonOf, XosanError } from '../../core/errors.ts'
import { Labs } from './labs.ts'
import { type Link, measure, type Plan } from './measure.ts'
import { pictureOf } from './picture.ts'
import { HEADINGS, markdownOf, printReport } from './report.ts'
import { ONE_COPY } from './systems/one-copy.ts'
import { type System } from './systems/system.ts'
import { TWO_COPIES } from './systems/two-copies.ts'
import { xosanSystems } from './systems/xosan.ts'
import { verdictsOf } from './verdicts.ts'
import { WORKLOADS } from './workloads.ts'

const LINKS: readonly Link[] = [
  { name: 'unshaped', bitsPerSecond: null },
  { name: '1gbit', bitsPerSecond: 1e9 },
]
const QUICK_SYSTEMS = ['nbdkit', 'qemu-mirror', 'nas', 'xosan-2', 'xosan-2-durable']

interface BenchOptions {
  readonly quick?: true
  readonly systems?: readonly string[]
  readonly workloads?: readonly string[]
  readonly links?: readonly string[]
  readonly repetitions?: number
  readonly seconds?: number
  readonly size?: number
  readonly out: string
  readonly json?: true
}

const words = (text: string): string[] => text.split(',').filter(word => word !== '')

/** Those of these names, in the order of all. @throws XosanError INVALID_ARGUMENT naming those that there are */
function chosen<T extends { readonly name: string }>(
  what: string,
  all: readonly T[],
  names: readonly string[]
): T[] {
  const strange = names.find(name => !all.some(each => each.name === name))
  if (strange === undefined) return all.filter(({ name }) => names.includes(name))
  const reason = `there is no ${strange}; there are ${all.map(({ name }) => name).join(', ')}`
  throw new XosanError('INVALID_ARGUMENT', { what, reason })
}

async function main(options: BenchOptions): Promise<void> {
  const startedAt = performance.now()
  requireProgram('A benchmark', 'fio', 'fio')
  const out = new Console(options.json === true)
  const progress = (text: string): void =>
    void process.stderr.write(`${formatDuration(performance.now() - startedAt).padStart(12)}  ${text}\n`)
  const quick = options.quick === true
  const labs = new Labs()
  const stop = (): void => void labs.dispose().finally(() => process.exit(130))
  process.once('SIGINT', stop).once('SIGTERM', stop)
  try {
    const all: readonly System[] = [...ONE_COPY, ...TWO_COPIES, ...xosanSystems(labs)]
    const systems = chosen(
      '--systems',
      all,
      options.systems ?? (quick ? QUICK_SYSTEMS : all.map(({ name }) => name))
    )
    const workloads = chosen('--workloads', WORKLOADS, options.workloads ?? WORKLOADS.map(({ name }) => name))
    const links = chosen('--links', LINKS, options.links ?? LINKS.map(({ name }) => name))
    progress('hosts start')
    for (const copies of new Set([2, ...systems.filter(isOwn).map(each => each.copies)]))
      await labs.get(copies)
    const lab = await labs.get(2)
    const plan: Plan = {
      systems,
      workloads,
      links,
      ...(quick ? { isWanted: (link, { name }) => link.bitsPerSecond === null || isHeading(name) } : {}),
      repetitions: options.repetitions ?? (quick ? 3 : 7),
      seconds: options.seconds ?? (quick ? 1 : 1.5),
      place: {
        near: await labs.host(lab, lab.hosts[0]!),
        far: await labs.host(lab, lab.hosts[1]!),
        bytes: (options.size ?? (quick ? 256 : 1024)) * 1024 * 1024,
      },
      shape: async ({ bitsPerSecond }) => labs.shape(bitsPerSecond),
      progress,
    }
    const outcome = await measure(plan)
    const verdicts = verdictsOf(
      outcome,
      links.map(({ name }) => name)
    )
    const report = { plan, outcome, verdicts }
    const directory = resolve(options.out)
    await mkdir(directory, { recursive: true })
    await writeFile(join(directory, 'bench.md'), markdownOf(report, 'bench.svg'))
    await writeFile(join(directory, 'bench.svg'), pictureOf(plan, outcome))
    const figures = {
      series: outcome.series,
      verdicts,
      usage: [...outcome.usage],
      failures: outcome.failures,
    }
    await writeFile(join(directory, 'bench.json'), `${JSON.stringify(figures, null, 1)}\n`)
    printReport(report, out)
    out.result(figures)
    out.line(`${join(directory, 'bench.md')} has it all; in ${formatDuration(performance.now() - startedAt)}`)
    if (outcome.failures.length > 0) process.exitCode = 1
  } finally {
    await labs.dispose()
  }
}

const isHeading = (name: string): boolean => HEADINGS.some(({ workload }) => workload === name)
const isOwn = ({ name }: System): boolean => name.startsWith('xosan')

const command = new Command('bench')
  .option('--quick', 'five systems, three short repetitions: some minutes')
  .option('--systems <names>', 'these alone, separated by commas', words)
  .option('--workloads <names>', 'these alone', words)
  .option('--links <names>', 'these alone: unshaped, 1gbit', words)
  .option('--repetitions <number>', 'of each', wholeNumber(1, 100))
  .option('--seconds <number>', 'that each takes', Number)
  .option('--size <MiB>', 'of each disk', wholeNumber(64, 65_536))
  .option('--out <directory>', 'where the page, the picture and the figures go', 'bench-results')
  .option('--json', 'print one JSON value on standard output')
  .parse()
try {
  await main(command.opts<BenchOptions>())
} catch (error) {
  process.stderr.write(`FAILED: ${reasonOf(error)}\n`)
  process.exitCode = 1
}
