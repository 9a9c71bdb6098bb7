/**
 * `npm run false-alarms -- --minutes 30`: a cluster with nothing wrong but that every core has more to do than it can.
 * No replica may be taken out, no volume taken over or opened again: the daemons' own logs and the volumes' epochs say.
 *
 *     node --import tsx test/faults/cluster/false-alarms.ts [--minutes 30] [--burners N] [--lab loopback]
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { readFile, stat } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { z } from 'zod'
import { wholeNumber } from '../../../cli/commands/common.ts'
import { formatBytes } from '../../../cli/format.ts'
import { type PoolHost, type PoolVolume, openVolume } from '../../../cli/lab/pool.ts'
import { showVolume } from '../../../cli/lab/volume-watch.ts'
import { DATAPATHS, type TestLab } from '../../support/test-lab.ts'
import { faultsOf } from '../load/judge.ts'
import { Load } from '../load/load-client.ts'
import { within } from './bounded.ts'
import { allHosts, untilInSync, untilWhole } from './cluster-state.ts'
import {
  type DrillOptions,
  drillCommand,
  milliseconds,
  progress,
  report,
  runDrill,
  startLab,
} from './drill-options.ts'

const HOSTS = 3
const VOLUME_BYTES = 64 * 1024 * 1024
const WRITES = 32
const READS = 4
const LOOK_MS = 30_000
const END_DEADLINE_MS = 120_000
/** A minute, in milliseconds. */
const MINUTE_MS = 60_000

interface AlarmOptions extends DrillOptions {
  readonly minutes: number
  readonly burners: number
}

/** What a datapath process says of a volume when it believes that something is wrong, by its message. */
const ALARMS = {
  takenOut: 'replica taken out',
  replaced: 'replaced',
  openedAgain: 'opening again',
} as const
/** A session that was lost and found again: nobody is harmed by it, but it should not be. */
const DISCONNECTED = 'replica disconnected'

interface Row {
  readonly host: string
  readonly volume: string
  readonly writes: number
  readonly bytesVerified: number
  readonly longestWaitMs: number
  readonly takenOut: number
  readonly replaced: number
  readonly openedAgain: number
  readonly disconnected: number
  readonly faults: readonly string[]
}

const logLine = z.object({ message: z.string(), volume: z.string().optional() })

interface Scene {
  readonly host: PoolHost
  readonly volume: PoolVolume
  readonly load: Load
  readonly epoch: number
}

/** Runs the load on a lab of its own. */
export async function countFalseAlarms(options: AlarmOptions): Promise<Row[]> {
  const lab = await startLab(options, HOSTS)
  const burners: ChildProcess[] = []
  const scenes: Scene[] = []
  let failed = true
  try {
    await untilWhole(lab)
    for (const [index, host] of lab.hosts.entries()) scenes.push(await openUnderLoad(lab, host, index))
    const logs = await Promise.all(logFiles(lab).map(async path => ({ path, from: (await stat(path)).size })))
    for (let count = 0; count < options.burners; count++) {
      burners.push(spawn(process.execPath, ['-e', 'for (;;);'], { stdio: 'ignore' }))
    }
    for (const { load } of scenes) load.mark()
    await watch(scenes, options.minutes * MINUTE_MS)
    const said = (await Promise.all(logs.map(({ path, from }) => linesOf(path, from)))).flat()
    const rows = await Promise.all(scenes.map(scene => rowOf(lab, scene, said)))
    failed = rows.some(({ faults }) => faults.length > 0)
    return rows
  } finally {
    for (const burner of burners) burner.kill('SIGKILL')
    for (const { load } of scenes) await load.dispose()
    await lab.dispose(options.keep === true && failed)
  }
}

async function openUnderLoad(lab: TestLab, host: PoolHost, index: number): Promise<Scene> {
  const volume = await lab.createVolume(VOLUME_BYTES)
  const address = await openVolume(host, volume)
  await untilInSync(host, volume)
  const load = new Load({
    ...address,
    journal: join(lab.directory, `journal-${volume.key}`),
    seed: index,
    writes: WRITES,
    reads: READS,
    // One as tapdisk, the others as guests that flush often and seldom.
    flushEvery: [0, 32, 256][index]!,
  })
  await load.started()
  return { host, volume, load, epoch: (await showVolume(host, volume)).epoch }
}

async function watch(scenes: readonly Scene[], durationMs: number): Promise<void> {
  const startedAt = performance.now()
  for (;;) {
    const leftMs = durationMs - (performance.now() - startedAt)
    if (leftMs <= 0) return
    await delay(Math.min(LOOK_MS, leftMs))
    const reports = await Promise.all(scenes.map(({ load }) => load.report()))
    const minutes = ((performance.now() - startedAt) / MINUTE_MS).toFixed(1)
    const writes = reports.map(({ writesAcknowledged }) => writesAcknowledged).join(', ')
    const wait = Math.max(...reports.map(({ longestStallMs }) => longestStallMs))
    progress(`after ${minutes} minutes: writes ${writes}; longest wait ${milliseconds(wait)}`)
    if (reports.some(({ errors, connectionLost }) => connectionLost || errors.length > 0)) return
  }
}

async function rowOf(
  lab: TestLab,
  { host, volume, load, epoch }: Scene,
  said: readonly z.infer<typeof logLine>[]
): Promise<Row> {
  const about = (message: string): number =>
    said.filter(line => line.volume === volume.key && line.message === message).length
  const end = await within('the end of the load', END_DEADLINE_MS, load.stop())
  const shown = await showVolume(host, volume)
  const restarts = (await (await lab.control(host)).status()).processes.filter(
    process => process.restarts !== 0
  )
  const takenOut = about(ALARMS.takenOut)
  const replaced = about(ALARMS.replaced)
  const openedAgain = about(ALARMS.openedAgain)
  const faults = [
    ...faultsOf(end),
    ...(end.connectionLost ? ['the connection was lost'] : []),
    ...(takenOut > 0 ? [`replicas were taken out ${takenOut} times`] : []),
    ...(replaced > 0 ? [`the primary was replaced ${replaced} times`] : []),
    ...(openedAgain > 0 ? [`it was opened again ${openedAgain} times`] : []),
    ...(shown.epoch === epoch ? [] : [`the epoch rose from ${epoch} to ${shown.epoch}`]),
    ...(shown.primary === host.uuid ? [] : ['it has another primary']),
    ...restarts
      .filter(process => process.restarts !== null)
      .map(({ name }) => `${name} of ${host.name} was started again`),
  ]
  return {
    host: host.name,
    volume: volume.key,
    writes: end.writesAcknowledged,
    bytesVerified: end.bytesVerified,
    longestWaitMs: end.longestStallMs,
    takenOut,
    replaced,
    openedAgain,
    disconnected: about(DISCONNECTED),
    faults,
  }
}

const logFiles = (lab: TestLab): string[] =>
  allHosts(lab).flatMap(({ name, witness }) =>
    witness === true
      ? []
      : Array.from({ length: DATAPATHS }, (_, index) =>
          join(lab.labDirectory, name, 'log', `datapath-${index}.log`)
        )
  )

/** What a program has logged since its log had a length in bytes. */
async function linesOf(path: string, from: number): Promise<z.infer<typeof logLine>[]> {
  const text = (await readFile(path)).subarray(from).toString('utf8')
  return text
    .split('\n')
    .filter(line => line.startsWith('{'))
    .map(line => logLine.parse(JSON.parse(line)))
}

async function main(): Promise<void> {
  const cores = availableParallelism()
  const options = drillCommand('false-alarms')
    .option('--minutes <number>', 'how long', wholeNumber(1, 10_000), 30)
    .option('--burners <number>', 'processes that only burn CPU', wholeNumber(0, 1000), cores)
    .parse()
    .opts<AlarmOptions>()
  const startedAt = performance.now()
  const rows = await countFalseAlarms(options)
  report<Row>(options, startedAt, {
    brokeOff: null,
    rows,
    titleOf: ({ host }) => `the volume on ${host}`,
    faultsOf: ({ faults }) => faults,
    columns: [
      { title: 'HOST', value: ({ host }) => host },
      { title: 'WRITES', value: ({ writes }) => String(writes), align: 'right' },
      { title: 'VERIFIED', value: row => formatBytes(row.bytesVerified), align: 'right' },
      { title: 'WAIT', value: row => milliseconds(row.longestWaitMs), align: 'right' },
      { title: 'TAKEN OUT', value: row => String(row.takenOut), align: 'right' },
      { title: 'REPLACED', value: row => String(row.replaced), align: 'right' },
      { title: 'REOPENED', value: row => String(row.openedAgain), align: 'right' },
      { title: 'DISCONN.', value: row => String(row.disconnected), align: 'right' },
    ],
    remarks: [
      `${options.minutes} minutes; three guests with ${WRITES} writes and ${READS} reads in flight each, and ` +
        `${options.burners} processes that only burn CPU, on ${cores} cores.`,
    ],
  })
}

if (process.argv[1]?.endsWith('false-alarms.ts') === true) await runDrill(main)
