/**
 * `npm run open-times`: how long a volume takes to be opened: after a clean close, when it changes hosts as in a live
 * migration, and after its primary's host has died. As xapi sees it, through the entry scripts.
 *
 *     node --import tsx test/faults/cluster/open-times.ts [--rounds 50] [--failovers 50] [--lab loopback]
 */
import { wholeNumber } from '../../../cli/commands/common.ts'
import { connectDisk } from '../../../cli/lab/guest-disk.ts'
import {
  type PoolHost,
  type PoolVolume,
  activateVolume,
  attachVolume,
  closeVolume,
  deactivateVolume,
  openVolume,
  takeOverVolume,
} from '../../../cli/lab/pool.ts'
import { byteOffset } from '../../../core/units.ts'
import { type TestLab } from '../../support/test-lab.ts'
import { within } from './bounded.ts'
import { heal, untilInSync, untilWhole } from './cluster-state.ts'
import {
  type DrillOptions,
  coordinatorOf,
  drillCommand,
  progress,
  report,
  runDrill,
  startLab,
} from './drill-options.ts'

const HOSTS = 3
const VOLUME_BYTES = 64 * 1024 * 1024
const TAKEOVER_PATIENCE_MS = 60_000
/** That of a pool whose hosts die: `docs/operating/drills.md`. */
const FAILOVER_MS_MAX = 10_000
/** A guest that writes before it is moved, so that there is something to flush and to clear. */
const WRITES = 16

interface OpenTimesOptions extends DrillOptions {
  readonly rounds: number
  readonly failovers: number
}

interface Row {
  readonly what: string
  /** In milliseconds, in order. */
  readonly times: readonly number[]
  readonly faults: readonly string[]
}

const timed = async (action: () => Promise<unknown>): Promise<number> => {
  const startedAt = performance.now()
  await action()
  return performance.now() - startedAt
}

export async function measureOpenTimes(options: OpenTimesOptions): Promise<Row[]> {
  const lab = await startLab(options, HOSTS)
  try {
    await untilWhole(lab)
    const volume = await lab.createVolume(VOLUME_BYTES)
    const rows = [
      await repeated('activate', options.rounds, () => activation(lab, volume)),
      await repeated('hand over', options.rounds, number => handOver(lab, volume, number)),
      await repeated('fail over', options.failovers, number => failOver(lab, volume, number)),
    ]
    return rows.map(row =>
      row.what === 'fail over' && row.times.some(ms => ms > FAILOVER_MS_MAX)
        ? { ...row, faults: [...row.faults, `it took longer than ${FAILOVER_MS_MAX / 1000} s`] }
        : row
    )
  } finally {
    await lab.dispose()
  }
}

async function repeated(
  what: string,
  rounds: number,
  once: (number: number) => Promise<number>
): Promise<Row> {
  const times: number[] = []
  const faults: string[] = []
  for (let number = 0; number < rounds && faults.length === 0; number++) {
    try {
      times.push(await once(number))
      progress(`${what} ${number + 1}/${rounds}: ${Math.round(times.at(-1)!)} ms`)
    } catch (error) {
      faults.push(`round ${number + 1}: ${String(error)}`)
    }
  }
  return { what, times, faults }
}

/** Activates after a clean close; attaching, which is not in a migration's pause, is not counted. */
async function activation(lab: TestLab, volume: PoolVolume): Promise<number> {
  const host = lab.hosts[0]!
  await attachVolume(host, volume)
  const ms = await timed(() => activateVolume(host, volume))
  await writeSome(host, volume)
  await closeVolume(host, volume)
  return ms
}

/** From the moment at which the old host is told to deactivate until the new one has activated. */
async function handOver(lab: TestLab, volume: PoolVolume, number: number): Promise<number> {
  const from = lab.hosts[number % HOSTS]!
  const to = lab.hosts[(number + 1) % HOSTS]!
  await openVolume(from, volume)
  await writeSome(from, volume)
  await attachVolume(to, volume)
  const ms = await timed(async () => {
    await deactivateVolume(from, volume)
    await activateVolume(to, volume)
  })
  await closeVolume(to, volume)
  await closeVolume(from, volume)
  return ms
}

/** From the death of the primary's host until a read is answered on another one. */
async function failOver(lab: TestLab, volume: PoolVolume, number: number): Promise<number> {
  const from = lab.hosts[number % HOSTS]!
  const to = lab.hosts[(number + 1) % HOSTS]!
  await openVolume(from, volume)
  await untilInSync(from, volume)
  await writeSome(from, volume)
  const control = await lab.control(from)
  const startedAt = performance.now()
  await control.kill()
  const address = await takeOverVolume(to, volume, TAKEOVER_PATIENCE_MS)
  const disk = await connectDisk(address)
  await within('the first read', TAKEOVER_PATIENCE_MS, disk.read(byteOffset(0), Buffer.alloc(4096)))
  const ms = performance.now() - startedAt
  await disk.close()
  await heal(lab)
  await untilInSync(to, volume)
  await untilWhole(lab)
  await closeVolume(to, volume)
  return ms
}

async function writeSome(host: PoolHost, volume: PoolVolume): Promise<void> {
  const disk = await connectDisk(await attachVolume(host, volume))
  for (let number = 0; number < WRITES; number++) {
    const data = Buffer.alloc(4096, number)
    const offset = byteOffset((number * VOLUME_BYTES) / WRITES)
    await disk.write({ offset, data, durable: false })
  }
  await disk.flush()
  await disk.close()
}

function quantile(times: readonly number[], fraction: number): string {
  const sorted = [...times].sort((a, b) => a - b)
  const value = sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * fraction))]
  return value === undefined ? '-' : `${Math.round(value)} ms`
}

async function main(): Promise<void> {
  const options = drillCommand('open-times')
    .option('--rounds <number>', 'activations, and hand-overs', wholeNumber(1, 10_000), 50)
    .option('--failovers <number>', 'hosts that die', wholeNumber(0, 10_000), 50)
    .parse()
    .opts<OpenTimesOptions>()
  const startedAt = performance.now()
  const rows = await measureOpenTimes(options)
  report<Row>(options, startedAt, {
    brokeOff: null,
    rows: rows.filter(({ times, faults }) => times.length + faults.length > 0),
    titleOf: ({ what }) => what,
    faultsOf: ({ faults }) => faults,
    columns: [
      { title: 'WHAT', value: ({ what }) => what },
      { title: 'TIMES', value: ({ times }) => String(times.length), align: 'right' },
      { title: 'BEST', value: ({ times }) => quantile(times, 0), align: 'right' },
      { title: 'MEDIAN', value: ({ times }) => quantile(times, 0.5), align: 'right' },
      { title: '90 %', value: ({ times }) => quantile(times, 0.9), align: 'right' },
      { title: 'WORST', value: ({ times }) => quantile(times, 1), align: 'right' },
    ],
    remarks: [
      `Coordinator ${coordinatorOf(options)}, ${options.lab === 'netns' ? 'hosts with networks of their own, TLS' : 'on the loopback'}. ` +
        'Each time includes the start of an entry script for each call.',
    ],
  })
}

if (process.argv[1]?.endsWith('open-times.ts') === true) await runDrill(main)
