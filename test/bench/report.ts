/** Tables of a run, for terminals and as Markdown. */
import { cpus, release, totalmem } from 'node:os'
import { type Console } from '../../cli/console.ts'
import { type Column, formatBytes } from '../../cli/format.ts'
import { type Outcome, type Plan, type Sample } from './measure.ts'
import { median } from './statistics.ts'
import { microsecondsPerRequest, type Verdict } from './verdicts.ts'
import { isSequential, type Workload } from './workloads.ts'

/** 1.23k, 45k, or MB/s as a whole number. */
export const figureOf = (workload: Workload, sample: Sample): number =>
  isSequential(workload) ? sample.bytesPerSecond / 1e6 : sample.perSecond

export function formatFigure(value: number): string {
  if (Number.isNaN(value)) return '-'
  if (value < 1000) return value.toFixed(0)
  return `${(value / 1000).toFixed(value < 9_950 ? 1 : 0)}k`
}

/** One row of one table: a system on a link. */
export interface Row {
  readonly system: string
  /** By workload. */
  readonly cells: readonly string[]
}

type Cell = (samples: readonly Sample[], workload: Workload) => string

/** The tables of one link, each with a title. */
export function tablesOf(
  plan: Plan,
  outcome: Outcome,
  link: string
): readonly { title: string; rows: Row[] }[] {
  const rows = (cell: Cell): Row[] =>
    plan.systems.flatMap(system => {
      const cells = plan.workloads.map(workload => {
        const found = outcome.series.find(
          each => each.link === link && each.workload === workload.name && each.system === system.name
        )
        const samples = (found?.samples ?? []).filter(each => each !== undefined)
        return samples.length === 0 ? '-' : cell(samples, workload)
      })
      return cells.every(text => text === '-') ? [] : [{ system: system.title, cells }]
    })
  const middle = (of: (sample: Sample) => number) => (samples: readonly Sample[]) => median(samples.map(of))
  const microseconds = (of: (sample: Sample) => number): Cell => {
    const value = middle(of)
    return samples => {
      const found = value(samples)
      return found < 9_950 ? found.toFixed(0) : `${(found / 1000).toFixed(0)}m`
    }
  }
  return [
    {
      title: 'MB/s (sequential) and operations per second: median (best)',
      rows: rows((samples, workload) => {
        const all = samples.map(sample => figureOf(workload, sample))
        return `${formatFigure(median(all))} (${formatFigure(Math.max(...all))})`
      }),
    },
    { title: 'latency, median, in µs', rows: rows(microseconds(({ latencyUs }) => latencyUs.p50)) },
    { title: 'latency, 99 %, in µs', rows: rows(microseconds(({ latencyUs }) => latencyUs.p99)) },
    { title: 'latency, 99.9 %, in µs', rows: rows(microseconds(({ latencyUs }) => latencyUs.p999)) },
    {
      title: 'processor seconds per 100,000 requests: client + servers',
      rows: rows(samples => {
        const per = (of: (sample: Sample) => number): string =>
          (median(samples.map(each => of(each) / each.requests)) * 1e5).toFixed(1)
        return `${per(each => each.clientSeconds)} + ${per(each => each.serverSeconds)}`
      }),
    },
    { title: 'processor time of a request in all, in µs', rows: rows(microseconds(microsecondsPerRequest)) },
  ]
}

const ratio = (value: number): string => value.toFixed(value < 9.95 ? 2 : 0)

const VERDICT_COLUMNS: readonly Column<Verdict>[] = [
  { title: 'WHAT', value: ({ what }) => what, shrinks: true },
  { title: 'LINK', value: ({ link }) => link },
  { title: 'WORKLOAD', value: ({ workload }) => workload },
  { title: 'AGAINST', value: ({ peer }) => (peer === '' ? '-' : peer), shrinks: true },
  { title: 'TARGET', value: ({ target }) => ratio(target), align: 'right' },
  { title: 'FOUND', value: ({ found }) => ratio(found.median), align: 'right' },
  {
    title: 'HALF OF ALL',
    value: ({ found }) => `${ratio(found.lower)}-${ratio(found.upper)}`,
    align: 'right',
  },
  { title: '', value: ({ reached }) => (reached ? 'reached' : 'NOT') },
]

/** The four figures by which the first XOSAN was shown to be worth it: two hosts, 1 Gbit/s. */
export const HEADINGS: readonly { readonly title: string; readonly workload: string }[] = [
  { title: 'sequential read', workload: 'seqread' },
  { title: '4K read', workload: 'rr32' },
  { title: 'sequential write', workload: 'seqwrite' },
  { title: '4K write', workload: 'rw32' },
]

export interface Report {
  readonly plan: Plan
  readonly outcome: Outcome
  readonly verdicts: readonly Verdict[]
}

export function printReport({ plan, outcome, verdicts }: Report, out: Console): void {
  for (const { name } of plan.links) {
    for (const { title, rows } of tablesOf(plan, outcome, name)) {
      out.line()
      out.line(`${name}: ${title}`)
      out.table(rows, [
        { title: 'SYSTEM', value: ({ system }) => system, shrinks: true },
        ...plan.workloads.map((workload, index) => ({
          title: workload.name,
          value: ({ cells }: Row) => cells[index]!,
          align: 'right' as const,
        })),
      ])
    }
  }
  out.line()
  out.table(verdicts, VERDICT_COLUMNS)
  for (const failure of outcome.failures) out.paragraph(`FAILED: ${failure}`, '  ')
}

/** @param picture name of the file with the picture, beside this one */
export function markdownOf({ plan, outcome, verdicts }: Report, picture: string): string {
  const { place, systems, links, workloads, repetitions, seconds } = plan
  const table = (heads: readonly string[], rows: readonly (readonly string[])[]): string[] => [
    `| ${heads.join(' | ')} |`,
    `| --- |${' ---: |'.repeat(heads.length - 1)}`,
    ...rows.map(row => `| ${row.join(' | ')} |`),
    '',
  ]
  const lines = [
    '# Benchmark',
    '',
    `${new Date().toISOString().slice(0, 10)}; ${cpus().length} processors (${cpus()[0]?.model ?? '?'}), ` +
      `${formatBytes(totalmem())} of memory, Linux ${release()}, Node ${process.version}. ` +
      `${repetitions} repetitions of ${seconds} s each, interleaved; disks of ${formatBytes(place.bytes)}, ` +
      'each block of which was written once, at random, before. Hosts are network namespaces of one machine, which ' +
      'carries the client, the primary and all replicas.',
    '',
    ...systems.map(({ title, about }) => `- **${title}**: ${about}.`),
    '',
    ...workloads.map(({ name, about }) => `- \`${name}\`: ${about}.`),
    '',
    `![What each system does](${picture})`,
    '',
  ]
  for (const { name } of links) {
    lines.push(`## Links: ${name}`, '')
    for (const { title, rows } of tablesOf(plan, outcome, name)) {
      lines.push(`### ${title}`, '')
      lines.push(
        ...table(
          ['', ...workloads.map(workload => workload.name)],
          rows.map(({ system, cells }) => [system, ...cells])
        )
      )
    }
  }
  if (links.some(({ name }) => name === '1gbit')) lines.push(...articleTable(plan, outcome, table))
  lines.push(
    '## Targets',
    '',
    'Ratios of figures of the same repetition: median, and the middle half of them.',
    ''
  )
  lines.push(
    ...table(
      ['what', 'link', 'workload', 'against', 'target', 'moonshot', 'found', 'half of all', ''],
      verdicts.map(({ what, link, workload, peer, target, moonshot, found, reached }) => [
        ...[what, link, workload, peer, ratio(target), ratio(moonshot), ratio(found.median)],
        ...[`${ratio(found.lower)}-${ratio(found.upper)}`, reached ? 'reached' : '**not**'],
      ])
    )
  )
  lines.push('## Memory', '', 'Of all processes of a system: most resident, and anonymous at the end.', '')
  lines.push(
    ...table(
      ['system', 'most', 'anonymous'],
      [...outcome.usage].map(([system, usage]) => [
        system,
        formatBytes(usage.peakBytes),
        formatBytes(usage.anonymousBytes),
      ])
    )
  )
  if (outcome.failures.length > 0)
    lines.push('## Not measured', '', ...outcome.failures.map(text => `- ${text}`), '')
  return lines.join('\n')
}

function articleTable(
  plan: Plan,
  outcome: Outcome,
  table: (heads: readonly string[], rows: readonly (readonly string[])[]) => string[]
): string[] {
  const cell = (system: string, name: string): string => {
    const workload = plan.workloads.find(each => each.name === name)
    const found = outcome.series.find(
      each => each.link === '1gbit' && each.workload === name && each.system === system
    )
    const samples = (found?.samples ?? []).filter(each => each !== undefined)
    if (workload === undefined || samples.length === 0) return '-'
    return (median(samples.map(each => each.bytesPerSecond)) / 1e6).toFixed(0)
  }
  const systems = [
    ['NAS', 'nas'],
    ['XOSAN', 'xosan-2'],
  ] as const
  return [
    '## The NAS and XOSAN, two hosts, 1 Gbit/s, in MB/s',
    '',
    ...table(
      ['', ...HEADINGS.map(({ title }) => title)],
      systems.map(([title, name]) => [title, ...HEADINGS.map(({ workload }) => cell(name, workload))])
    ),
  ]
}
