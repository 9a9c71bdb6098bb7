/**
 * `npm run coordinator-matrix`: what guests notice when members of etcd are lost, and how a pool of two hosts and a
 * witness does when one of the three is lost, or a link between them. Prints two tables; ends with 1 when anything went
 * wrong.
 *
 *     node --import tsx test/faults/cluster/coordinator-matrix.ts [--only TEXT] [--lab loopback]
 */
import { formatBytes } from '../../../cli/format.ts'
import { type PoolHost } from '../../../cli/lab/pool.ts'
import { type TestLab } from '../../support/test-lab.ts'
import { COORDINATOR_CASES, type CaseResult, runCase } from './coordinator-cases.ts'
import {
  type DrillOptions,
  type Findings,
  collect,
  drillCommand,
  milliseconds,
  progress,
  report,
  runDrill,
  startLab,
} from './drill-options.ts'
import { type FaultResult, runFault } from './fault-round.ts'
import { HOST_FAULTS, type HostFault, linkCut } from './host-faults.ts'
import { type Role } from './volume-drill.ts'

interface CoordinatorOptions extends DrillOptions {
  readonly only?: string
}

/** One line of the table, of either kind. */
interface Row {
  readonly name: string
  readonly writesInFlight: number
  readonly stallMs: number
  readonly heldMs: number | null
  readonly wentOnMs: number | null
  readonly returnStallMs: number
  readonly result: CaseResult | FaultResult
}

const HOSTS_KILLED_OR_CUT = HOST_FAULTS.filter(({ name }) => name === 'killed' || name === 'cut')
/** With the number 0 the first replica's host is the primary, which is not always the first host. */
const NUMBER = 0

const rowOfCase = (result: CaseResult): Row => ({ ...result, name: `etcd: ${result.name}`, result })

const rowOfFault = (result: FaultResult): Row => ({
  name: `witness: ${result.role} ${result.fault}`,
  writesInFlight: result.writesInFlight,
  stallMs: result.stallMs,
  heldMs: null,
  wentOnMs: result.servedElsewhereMs,
  returnStallMs: result.returnStallMs,
  result,
})

/** Two hosts and a witness: each of them is lost in turn, and each link. */
function witnessFaults({ hosts }: TestLab): { readonly role: Role; readonly fault: HostFault }[] {
  const roles: readonly Role[] = ['witness', 'secondary', 'primary']
  const otherOf = (lab: TestLab, host: PoolHost): PoolHost =>
    lab.hosts.find(({ name }) => name !== host.name)!
  return [
    ...HOSTS_KILLED_OR_CUT.flatMap(fault => roles.map(role => ({ role, fault }))),
    ...hosts.map(host => ({ role: 'witness' as const, fault: linkCut(`cut from ${host.name}`, () => host) })),
    { role: 'secondary', fault: linkCut('cut from primary', otherOf) },
  ]
}

/** Runs all of it, on labs of its own. */
export async function runCoordinatorMatrix(options: CoordinatorOptions): Promise<Findings<Row>> {
  const wanted = ({ name, ofLinks }: { readonly name: string; readonly ofLinks: boolean }): boolean =>
    name.includes(options.only ?? '') && (!ofLinks || options.lab === 'netns')
  const cases = COORDINATOR_CASES.filter(({ name, ofLinks }) => wanted({ name: `etcd: ${name}`, ofLinks }))
  return await collect<Row>(async add => {
    const note = (row: Row): boolean => {
      add(row)
      const { faults } = row.result
      const outcome = faults.length === 0 ? 'ok' : `FAILED: ${faults.join('; ')}`
      progress(`${row.name}: longest wait ${milliseconds(row.stallMs)}: ${outcome}`)
      return faults.length > 0
    }
    await onLab(options, 3, false, async lab => {
      let failed = false
      for (const one of cases) failed = note(rowOfCase(await runCase(lab, one, NUMBER))) || failed
      return failed
    })
    await onLab(options, 2, true, async lab => {
      let failed = false
      for (const { role, fault } of witnessFaults(lab)) {
        if (!wanted({ name: `witness: ${role} ${fault.name}`, ofLinks: fault.ofLinks })) continue
        failed = note(rowOfFault(await runFault(lab, fault, role, NUMBER))) || failed
      }
      return failed
    })
  })
}

/** @param body returns whether something went wrong, so that the data may be kept */
async function onLab(
  options: CoordinatorOptions,
  hosts: number,
  witness: boolean,
  body: (lab: TestLab) => Promise<boolean>
): Promise<void> {
  const lab = await startLab(options, hosts, { witness, coordinator: 'etcd' })
  let failed = true
  try {
    failed = await body(lab)
  } finally {
    await lab.dispose(options.keep === true && failed)
  }
}

async function main(): Promise<void> {
  const options = drillCommand('coordinator-matrix')
    .option('--only <text>', 'only what has this in its name, e.g. "etcd: all"')
    .parse()
    .opts<CoordinatorOptions>()
  const startedAt = performance.now()
  const found = await runCoordinatorMatrix(options)
  const { rows } = found
  const sum = (value: (row: Row['result']) => number): number =>
    rows.reduce((total, { result }) => total + value(result), 0)
  report<Row>(options, startedAt, {
    ...found,
    titleOf: ({ name }) => name,
    faultsOf: ({ result }) => result.faults,
    columns: [
      { title: 'WHAT', value: ({ name }) => name, shrinks: true },
      { title: 'FLIGHT', value: row => String(row.writesInFlight), align: 'right' },
      { title: 'WAIT', value: row => milliseconds(row.stallMs), align: 'right' },
      { title: 'HELD', value: row => milliseconds(row.heldMs), align: 'right' },
      { title: 'WENT ON', value: row => milliseconds(row.wentOnMs), align: 'right' },
      { title: 'RETURN', value: row => milliseconds(row.returnStallMs), align: 'right' },
    ],
    remarks: [
      `${sum(row => row.writesAcknowledged)} writes; ${formatBytes(sum(row => row.bytesVerified))} read and judged; ` +
        `${formatBytes(sum(row => row.bytesCompared))} of replicas' files compared; planted differences found: ` +
        `${rows.filter(({ result }) => result.plantedFound).length} of ${rows.length}.`,
    ],
  })
}

if (process.argv[1]?.endsWith('coordinator-matrix.ts') === true) await runDrill(main)
