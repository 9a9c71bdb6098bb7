/**
 * `npm run cluster-matrix`: each host of a cluster in turn is killed, paused, cut off, made mute and made deaf, under a
 * load that checks every byte it reads. Prints a table; ends with 1 when anything went wrong.
 *
 *     node --import tsx test/faults/cluster/cluster-matrix.ts [--copies 2] [--rounds 1] [--only TEXT] [--lab loopback]
 */
import { wholeNumber } from '../../../cli/commands/common.ts'
import { formatBytes } from '../../../cli/format.ts'
import {
  type DrillOptions,
  type Findings,
  collect,
  coordinatorOf,
  drillCommand,
  milliseconds,
  progress,
  report,
  runDrill,
  startLab,
} from './drill-options.ts'
import { type FaultResult, runFault } from './fault-round.ts'
import { HOST_FAULTS, type HostFault } from './host-faults.ts'
import { type Role } from './volume-drill.ts'

const HOSTS = 3

interface MatrixOptions extends DrillOptions {
  readonly copies: number
  readonly rounds: number
  readonly only?: string
}

interface Cell {
  readonly fault: HostFault
  readonly role: Role
}

const titleOf = ({ role, fault }: { readonly role: Role; readonly fault: string }): string =>
  `${role} ${fault}`

/** What can be done to this lab. */
function cellsOf(options: MatrixOptions): Cell[] {
  const roles: readonly Role[] =
    options.copies === HOSTS ? ['secondary', 'third', 'primary'] : ['secondary', 'bystander', 'primary']
  return (
    HOST_FAULTS.flatMap(fault => roles.map(role => ({ fault, role })))
      .filter(({ fault, role }) => titleOf({ role, fault: fault.name }).includes(options.only ?? ''))
      .filter(({ fault }) => !fault.ofLinks || options.lab === 'netns')
      // A file is no host: a primary without links still reaches a coordinator that is one, so it stays the primary.
      .filter(
        ({ fault, role }) => !(fault.ofLinks && role === 'primary' && coordinatorOf(options) === 'embedded')
      )
  )
}

/** Runs the matrix on a lab of its own. */
export async function runClusterMatrix(options: MatrixOptions): Promise<Findings<FaultResult>> {
  const lab = await startLab(options, HOSTS, { copies: options.copies })
  const found = await collect<FaultResult>(async add => {
    for (let number = 0; number < options.rounds; number++) {
      for (const { fault, role } of cellsOf(options)) {
        const result = await runFault(lab, fault, role, number)
        add(result)
        const outcome = result.faults.length === 0 ? 'ok' : `FAILED: ${result.faults.join('; ')}`
        progress(`${titleOf(result)} (${result.host}): ${sentenceOf(result)}: ${outcome}`)
      }
    }
  })
  const failed = found.brokeOff !== null || found.rows.some(({ faults }) => faults.length > 0)
  await lab.dispose(options.keep === true && failed)
  return found
}

const sentenceOf = ({ writesInFlight, stallMs, servedElsewhereMs }: FaultResult): string =>
  `${writesInFlight} writes in flight, longest wait ${milliseconds(stallMs)}` +
  (servedElsewhereMs === null ? '' : `, served elsewhere after ${milliseconds(servedElsewhereMs)}`)

function heldText({ held, lateAnswers }: FaultResult): string {
  if (held === null) return '-'
  if (!held) return 'NO'
  return lateAnswers === 0 ? 'yes' : `${lateAnswers} late`
}

async function main(): Promise<void> {
  const options = drillCommand('cluster-matrix')
    .option('--copies <number>', 'replicas of the volume', wholeNumber(2, HOSTS), 2)
    .option('--rounds <number>', 'how often each fault', wholeNumber(1, 1000), 1)
    .option('--only <text>', 'only faults whose name contains this, e.g. "primary cut"')
    .parse()
    .opts<MatrixOptions>()
  const startedAt = performance.now()
  const found = await runClusterMatrix(options)
  const { rows } = found
  const sum = (value: (row: FaultResult) => number): number =>
    rows.reduce((total, row) => total + value(row), 0)
  report<FaultResult>(options, startedAt, {
    ...found,
    titleOf,
    faultsOf: ({ faults }) => faults,
    columns: [
      { title: 'HOST', value: ({ role }) => role },
      { title: 'FAULT', value: ({ fault }) => fault },
      { title: 'FLIGHT', value: row => String(row.writesInFlight), align: 'right' },
      { title: 'WAIT', value: row => milliseconds(row.stallMs), align: 'right' },
      { title: 'SILENT', value: row => milliseconds(row.silenceMs), align: 'right' },
      { title: 'RETURN', value: row => milliseconds(row.returnStallMs), align: 'right' },
      { title: 'MOVED', value: row => milliseconds(row.servedElsewhereMs), align: 'right' },
      { title: 'HELD', value: heldText },
    ],
    remarks: [
      `${sum(row => row.writesAcknowledged)} writes, of which ${sum(row => row.writesOverlapping)} overlapped others ` +
        `in flight; ${formatBytes(sum(row => row.bytesVerified))} read and judged; ` +
        `${formatBytes(sum(row => row.bytesCompared))} of replicas' files compared; planted differences found: ` +
        `${rows.filter(({ plantedFound }) => plantedFound).length} of ${rows.length}.`,
    ],
  })
}

if (process.argv[1]?.endsWith('cluster-matrix.ts') === true) await runDrill(main)
