/** What the programs of this folder have in common: the lab that they run on, and how they print what they found. */
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { Command, Option } from 'commander'
import { Console } from '../../../cli/console.ts'
import { type Column, formatDuration } from '../../../cli/format.ts'
import { findProgram } from '../../../cli/lab/find-program.ts'
import { reasonOf } from '../../../core/errors.ts'
import { type TestLabOptions, TestLab } from '../../support/test-lab.ts'

export interface DrillOptions {
  readonly lab: 'netns' | 'loopback'
  readonly coordinator?: 'etcd' | 'embedded'
  readonly keep?: true
  readonly json?: true
}

/** A command with the options that all have. */
export const drillCommand = (name: string): Command =>
  new Command(name)
    .addOption(
      new Option('--lab <kind>', 'hosts with networks of their own (as root), or on the loopback')
        .choices(['netns', 'loopback'])
        .default('netns')
    )
    .addOption(
      new Option('--coordinator <kind>', 'by default etcd, on the loopback embedded').choices([
        'etcd',
        'embedded',
      ])
    )
    .option('--keep', 'keep the data of a lab in which something went wrong')
    .option('--json', 'print one JSON value on standard output')

export const coordinatorOf = ({ lab, coordinator }: DrillOptions): 'etcd' | 'embedded' =>
  coordinator ?? (lab === 'netns' ? 'etcd' : 'embedded')

/** Those that were started, so that none is left when the program is told to end. */
const labs: TestLab[] = []

/** Starts a lab as asked for. */
export async function startLab(
  options: DrillOptions,
  hosts: number,
  more: TestLabOptions = {}
): Promise<TestLab> {
  const netns = options.lab === 'netns'
  if (netns && (process.geteuid?.() !== 0 || findProgram('nsenter') === null)) {
    throw new Error('hosts with networks of their own need root and iproute2; --lab loopback does without')
  }
  const lab = await TestLab.start(hosts, { netns, coordinator: coordinatorOf(options), ...more })
  labs.push(lab)
  return lab
}

/** How late this idle program itself is woken: times are worth no more than this. */
const lateness = monitorEventLoopDelay({ resolution: 20 })
lateness.enable()

/** What goes on, for whoever waits. */
export const progress = (line: string): void => void process.stderr.write(`${line}\n`)

/** What was found out, up to where it broke off if it did. */
export interface Findings<Row> {
  readonly rows: readonly Row[]
  readonly brokeOff: string | null
}

/** Collects rows one by one, so that those that there are can be shown when the rest cannot be had. */
export async function collect<Row>(body: (add: (row: Row) => void) => Promise<void>): Promise<Findings<Row>> {
  const rows: Row[] = []
  try {
    await body(row => rows.push(row))
    return { rows, brokeOff: null }
  } catch (error) {
    return { rows, brokeOff: reasonOf(error) }
  }
}

export interface Drill<Row> extends Findings<Row> {
  readonly columns: readonly Column<Row>[]
  /** What went wrong in a row, as sentences. */
  readonly faultsOf: (row: Row) => readonly string[]
  /** How a row is called in a sentence. */
  readonly titleOf: (row: Row) => string
  /** Sentences below the table. */
  readonly remarks?: readonly string[]
}

/** Prints the table and what went wrong; the exit code is 1 then. */
export function report<Row>(options: DrillOptions, startedAt: number, drill: Drill<Row>): void {
  const { rows, brokeOff, columns, faultsOf, titleOf, remarks = [] } = drill
  const out = new Console(options.json === true)
  const isFault = (row: Row): boolean => faultsOf(row).length > 0
  const lateMs = Math.round(lateness.max / 1e6)
  out.result({ rows, brokeOff, remarks, lateMs })
  out.table(rows, [...columns, { title: '', value: row => (isFault(row) ? 'FAILED' : 'ok') }])
  out.line()
  for (const remark of remarks) out.paragraph(remark, '  ')
  out.paragraph(`The machine kept this idle program itself waiting for up to ${milliseconds(lateMs)}.`, '  ')
  for (const row of rows) {
    for (const fault of faultsOf(row)) out.paragraph(`FAILED: ${titleOf(row)}: ${fault}`, '  ')
  }
  if (brokeOff !== null) out.paragraph(`FAILED: it broke off: ${brokeOff}`, '  ')
  const failed = rows.filter(isFault).length
  const took = formatDuration(performance.now() - startedAt)
  out.line(`${rows.length - failed} of ${rows.length} as they should be, in ${took}`)
  process.exitCode = failed === 0 && brokeOff === null && rows.length > 0 ? 0 : 1
}

/** Runs the body of a program; what it throws is said, and the exit code is 1. Told to end, it ends its labs first. */
export async function runDrill(body: () => Promise<void>): Promise<void> {
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.once(name, () => {
      progress('ending the lab ...')
      void Promise.allSettled(labs.map(lab => lab.dispose())).then(() => process.exit(130))
    })
  }
  try {
    await body()
  } catch (error) {
    progress(`FAILED: ${reasonOf(error)}`)
    process.exitCode = 1
  }
}

export const milliseconds = (value: number | null): string => (value === null ? '-' : formatDuration(value))
