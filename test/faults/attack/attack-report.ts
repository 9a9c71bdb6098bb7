import { Console } from '../../../cli/console.ts'
import { type Column, formatBytes, formatDuration } from '../../../cli/format.ts'
import { type AttemptRow, type FloodRow } from './campaign.ts'
import { PORT_KINDS } from './listening.ts'
import { type RemovalRow } from './removal.ts'

/** All that a run has found. */
export interface AttackReport {
  readonly removal: readonly RemovalRow[]
  readonly attempts: readonly AttemptRow[]
  readonly floods: readonly FloodRow[]
  /** Longest wait of the load before any attack. */
  readonly calmStallMs: number
  readonly listeners: number
  readonly writesAcknowledged: number
  readonly bytesVerified: number
  readonly comparedBytes: number
  readonly filesSearched: number
  readonly processesSearched: number
  readonly logLines: number
  /** Beside those of the rows. */
  readonly faults: readonly string[]
}

const ATTEMPT_COLUMNS: readonly Column<AttemptRow>[] = [
  { title: 'ATTACK', value: ({ name }) => name, shrinks: true },
  ...PORT_KINDS.map(({ title }) => ({
    title,
    value: ({ verdicts }: AttemptRow): string => verdicts[title] ?? '-',
  })),
  { title: 'LINES', value: ({ lines }) => String(lines), align: 'right' },
  { title: 'WAIT', value: ({ stallMs }) => formatDuration(stallMs), align: 'right' },
]

type Range = FloodRow['descriptors']

const range = ({ before, most, after }: Range): string => `${before}, ${most}, ${after}`

const FLOOD_COLUMNS: readonly Column<FloodRow>[] = [
  { title: 'FLOOD', value: ({ title }) => title },
  { title: 'OPENED', value: ({ opened }) => String(opened), align: 'right' },
  { title: 'CLOSED', value: ({ closed }) => String(closed), align: 'right' },
  { title: 'LINES', value: ({ lines }) => String(lines), align: 'right' },
  { title: 'MEMBER', value: ({ memberMs }) => (memberMs === null ? 'NO' : `${memberMs} ms`), align: 'right' },
  { title: 'DESCRIPTORS', value: ({ descriptors }) => range(descriptors), align: 'right' },
  { title: 'MIB', value: ({ residentMib }) => range(residentMib), align: 'right' },
  { title: 'WAIT', value: ({ stallMs }) => formatDuration(stallMs), align: 'right' },
]

/** Prints tables and what went wrong; the exit code is 1 then. */
export function printReport(report: AttackReport, json: boolean, elapsedMs: number): void {
  const out = new Console(json)
  const { removal, attempts, floods, faults } = report
  out.result(report)
  out.table(attempts, ATTEMPT_COLUMNS)
  out.line()
  out.table(floods, FLOOD_COLUMNS)
  out.line()
  out.paragraph(
    'Connections of the host that was removed were answered last, after the removal: ' +
      removal.map(({ title, answeredMs }) => `${title} ${formatDuration(answeredMs)}`).join(', '),
    '  '
  )
  out.paragraph(
    `${report.listeners} ports. The load acknowledged ${report.writesAcknowledged} writes and judged ` +
      `${formatBytes(report.bytesVerified)}; alone it waited ${formatDuration(report.calmStallMs)} at most. ` +
      `${formatBytes(report.comparedBytes)} of two replicas compared by qemu-img. ` +
      `${report.filesSearched} files and ${report.processesSearched} processes searched for keys and tickets.`,
    '  '
  )
  out.line(`Lines about refusals in the logs: ${report.logLines}`)
  const all = [
    ...removal.flatMap(row => row.faults.map(fault => `removal: ${fault}`)),
    ...attempts.flatMap(row => row.faults.map(fault => `${row.name}: ${fault}`)),
    ...floods.flatMap(row => row.faults.map(fault => `flood of ${row.title}: ${fault}`)),
    ...faults,
  ]
  for (const fault of all) out.paragraph(`FAILED: ${fault}`, '  ')
  out.line(`${all.length === 0 ? 'nobody got in' : `${all.length} faults`}, in ${formatDuration(elapsedMs)}`)
  process.exitCode = all.length === 0 ? 0 : 1
}
