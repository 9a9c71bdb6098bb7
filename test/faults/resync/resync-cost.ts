/**
 * `npm run resync-cost`: what it costs to bring a replica back that was away while a guest wrote 4 KiB blocks all over
 * its disk: bytes on the wire against bytes written and against a full copy, and what the guest feels of it.
 *
 *     node --import tsx test/faults/resync/resync-cost.ts [--sizes 1,10,100,500] [--pairs 5] [--json]
 */
import { execFile } from 'node:child_process'
import { rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { InvalidArgumentError } from 'commander'
import { wholeNumber } from '../../../cli/commands/common.ts'
import { Console } from '../../../cli/console.ts'
import { formatBytes, formatDuration } from '../../../cli/format.ts'
import { requireProgram } from '../../../cli/lab/find-program.ts'
import { connectDisk } from '../../../cli/lab/guest-disk.ts'
import { labCut, labJoin } from '../../../cli/lab/lab-links.ts'
import { type PoolHost, type PoolVolume, closeVolume, openVolume } from '../../../cli/lab/pool.ts'
import { replicaFiles, showVolume, waitUntilInSync } from '../../../cli/lab/volume-watch.ts'
import { REGION_BYTES } from '../../../core/units.ts'
import { type NbdClient } from '../../../datapath/replica-remote/nbd-client.ts'
import { type TestLab } from '../../support/test-lab.ts'
import { until } from '../cluster/bounded.ts'
import { findsPlantedByte, untilWhole } from '../cluster/cluster-state.ts'
import {
  type DrillOptions,
  coordinatorOf,
  drillCommand,
  progress,
  runDrill,
  startLab,
} from '../cluster/drill-options.ts'
import { type Latencies, fill, measureGuest, quantile, writeScattered } from './guest-work.ts'
import { linkBytes, passedSince } from './link-bytes.ts'

const run = promisify(execFile)

const MIB = 2 ** 20
const VOLUME_BYTES = 4 * 2 ** 30
/** The part of the volume that is written before, and that all outages write to. */
const FILLED_BYTES = 2 ** 30
const HOSTS = 2
/** Far more than anything takes on a machine that has nothing else to do. */
const DEADLINE_MS = 600_000
const LOOK_MS = 25
/**
 * Before an outage the guest rests, so that write intents of what it wrote before are cleared: 1 GiB of regions in each
 * round of 2 s, and none before it has been left alone for one.
 */
const REST_MS = 10_000
/** A guest's requests are timed for so long with a resync beside them, and for so long without. */
const WINDOW_MS = 3_000
/** Written in the outage before such a window: enough for the resync to outlast it. */
const PAIR_BYTES = 64 * MIB

interface CostOptions extends DrillOptions {
  readonly sizes: readonly number[]
  readonly pairs: number
}

/** One outage and the resync after it. */
interface CostRow {
  readonly what: 'scattered' | 'in order' | 'full copy'
  /** In the outage: different blocks, and the regions that they lie in. Null for the full copy. */
  readonly writtenBytes: number | null
  readonly regionBytes: number | null
  /** On the primary's link from the end of the outage until all is in-sync. */
  readonly sentBytes: number
  readonly receivedBytes: number
  /** From the end of the outage until the primary has begun to copy, and from there until all is in-sync. */
  readonly contactMs: number
  readonly resyncMs: number
}

interface Pair {
  readonly without: Latencies
  readonly during: Latencies
}

/** A volume on two hosts, open on one of them, half filled. */
interface Scene {
  readonly lab: TestLab
  readonly primary: PoolHost
  readonly secondary: PoolHost
  readonly volume: PoolVolume
  readonly disk: NbdClient
}

async function begin(lab: TestLab): Promise<Scene> {
  await untilWhole(lab)
  const [primary, secondary] = [lab.hosts[0]!, lab.hosts[1]!]
  const volume = await lab.createVolume(VOLUME_BYTES)
  const disk = await connectDisk(await openVolume(primary, volume))
  await waitUntilInSync(primary, volume, DEADLINE_MS)
  progress(`filling ${formatBytes(FILLED_BYTES)} ...`)
  await fill(disk, FILLED_BYTES)
  return { lab, primary, secondary, volume, disk }
}

const stateOfSecondary = async ({ primary, secondary, volume }: Scene): Promise<string> =>
  (await showVolume(primary, volume)).replicas.find(({ host }) => host === secondary.uuid)?.state ?? 'missing'

async function cutOff(scene: Scene): Promise<void> {
  await labCut(scene.lab.labDirectory, scene.secondary.name)
  await until('the secondary is taken out', DEADLINE_MS, async () => {
    const state = await stateOfSecondary(scene)
    return state === 'stale' ? null : `it is ${state}`
  })
}

/** Waits until a resync has begun. @returns after how many milliseconds */
async function untilRebuilding(scene: Scene): Promise<number> {
  const startedAt = performance.now()
  while ((await stateOfSecondary(scene)) === 'stale') {
    if (performance.now() - startedAt > DEADLINE_MS) throw new Error('no resync has begun')
    await delay(LOOK_MS)
  }
  return performance.now() - startedAt
}

/** Ends an outage by an action, and counts until the secondary is in-sync. */
async function resync(scene: Scene, endOutage: () => Promise<unknown>): Promise<Omit<CostRow, 'what'>> {
  const { lab, primary, volume } = scene
  const before = await linkBytes(lab, primary)
  await endOutage()
  const contactMs = await untilRebuilding(scene)
  const startedAt = performance.now()
  await waitUntilInSync(primary, volume, DEADLINE_MS)
  const resyncMs = performance.now() - startedAt
  const { sent, received } = passedSince(await linkBytes(lab, primary), before)
  return {
    writtenBytes: null,
    regionBytes: null,
    sentBytes: sent,
    receivedBytes: received,
    contactMs,
    resyncMs,
  }
}

async function outage(scene: Scene, what: CostRow['what'], writtenBytes: number): Promise<CostRow> {
  const { disk, lab } = scene
  await delay(REST_MS)
  await cutOff(scene)
  let regionBytes = writtenBytes
  if (what === 'in order') await fill(disk, writtenBytes)
  else regionBytes = REGION_BYTES * (await writeScattered(disk, writtenBytes, FILLED_BYTES, REGION_BYTES))
  const cost = await resync(scene, () => labJoin(lab.labDirectory, null))
  progress(`${formatBytes(writtenBytes)} ${what}: ${formatBytes(cost.sentBytes)} sent`)
  return { ...cost, what, writtenBytes, regionBytes }
}

/** The secondary loses its files: what a resync without intents would cost. */
async function fullCopy(scene: Scene): Promise<CostRow> {
  const { lab, secondary, volume } = scene
  const control = await lab.control(secondary)
  await control.kill()
  const files = await replicaFiles(lab.paths, volume)
  const file = files.get(secondary.uuid)
  if (file === undefined) throw new Error(`no replica of ${secondary.name} among ${[...files.keys()].join()}`)
  await rm(dirname(file), { recursive: true })
  const cost = await resync(scene, () => control.start())
  progress(`full copy: ${formatBytes(cost.sentBytes)} sent`)
  return { ...cost, what: 'full copy' }
}

/** The same guest, for the same time, while a replica is brought back and while nothing else happens. */
async function pair(scene: Scene): Promise<Pair> {
  const { disk, lab, primary, volume } = scene
  await cutOff(scene)
  await writeScattered(disk, PAIR_BYTES, FILLED_BYTES, REGION_BYTES)
  await labJoin(lab.labDirectory, null)
  await untilRebuilding(scene)
  const during = await measureGuest(disk, FILLED_BYTES, after(WINDOW_MS))
  if ((await stateOfSecondary(scene)) !== 'rebuilding')
    throw new Error('the resync was over before the guest had been timed')
  await waitUntilInSync(primary, volume, DEADLINE_MS)
  const without = await measureGuest(disk, FILLED_BYTES, after(WINDOW_MS))
  progress(
    `guest writes: ${millis(quantile(during.writes, 0.5))} ms, ${millis(quantile(without.writes, 0.5))}`
  )
  return { without, during }
}

const after = (ms: number): (() => boolean) => {
  const end = performance.now() + ms
  return () => performance.now() >= end
}

/** What qemu-img says of the replicas' raw files, once the volume is closed. @throws Error when they differ */
async function compare({ lab, volume, primary, disk }: Scene): Promise<void> {
  await disk.close()
  await closeVolume(primary, volume)
  const [first, second] = [...(await replicaFiles(lab.paths, volume)).values()]
  progress('comparing the replicas ...')
  await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', first!, second!])
  if (!(await findsPlantedByte(lab, volume))) {
    throw new Error('a byte that was changed on purpose was not found')
  }
}

const millis = (value: number): string => value.toFixed(2)
const times = (value: number): string => `${value < 10 ? value.toFixed(2) : value.toFixed(1)} x`

/** A figure of the guest: with a resync, without, and the median of the pairs' ratios. */
interface LatencyRow {
  readonly what: string
  readonly without: number
  readonly during: number
  readonly ratio: number
}

const FIGURES: readonly (readonly [string, (latencies: Latencies) => number])[] = [
  ['read, median, ms', ({ reads }) => quantile(reads, 0.5)],
  ['read, 99 %, ms', ({ reads }) => quantile(reads, 0.99)],
  ['read, per second', ({ reads, elapsedMs }) => (reads.length * 1000) / elapsedMs],
  ['write, median, ms', ({ writes }) => quantile(writes, 0.5)],
  ['write, 99 %, ms', ({ writes }) => quantile(writes, 0.99)],
  ['write, per second', ({ writes, elapsedMs }) => (writes.length * 1000) / elapsedMs],
]

function latencyRows(pairs: readonly Pair[]): LatencyRow[] {
  const middle = (values: number[]): number =>
    quantile(
      values.sort((a, b) => a - b),
      0.5
    )
  return FIGURES.map(([what, figure]) => ({
    what,
    without: middle(pairs.map(({ without }) => figure(without))),
    during: middle(pairs.map(({ during }) => figure(during))),
    ratio: middle(pairs.map(({ without, during }) => figure(during) / figure(without))),
  }))
}

async function main(): Promise<void> {
  const options = drillCommand('resync-cost')
    .option('--sizes <list>', 'MiB written in each outage', sizes, [1, 10, 100, 500])
    .option('--pairs <number>', 'times that the guest is timed', wholeNumber(0, 100), 5)
    .parse()
    .opts<CostOptions>()
  requireProgram('Comparing replicas', 'qemu-img', 'qemu-utils')
  if (options.lab !== 'netns') throw new Error('bytes are counted on links, which hosts on the loopback lack')
  const startedAt = performance.now()
  const lab = await startLab(options, HOSTS)
  let failed = true
  try {
    const scene = await begin(lab)
    const rows: CostRow[] = []
    for (const size of options.sizes) rows.push(await outage(scene, 'scattered', size * MIB))
    rows.push(await outage(scene, 'in order', Math.max(...options.sizes) * MIB))
    rows.push(await fullCopy(scene))
    const pairs: Pair[] = []
    for (let number = 0; number < options.pairs; number++) pairs.push(await pair(scene))
    await compare(scene)
    failed = false
    print(options, rows, latencyRows(pairs), performance.now() - startedAt)
  } finally {
    await lab.dispose(options.keep === true && failed)
  }
}

function print(options: CostOptions, rows: readonly CostRow[], guest: LatencyRow[], tookMs: number): void {
  const out = new Console(options.json === true)
  const full = rows.at(-1)!
  out.result({ rows, guest, tookMs })
  const bytes = (value: number | null): string => (value === null ? '-' : formatBytes(value))
  out.table(rows, [
    { title: '', value: ({ what }) => what },
    { title: 'WRITTEN', value: row => bytes(row.writtenBytes), align: 'right' },
    { title: 'REGIONS', value: row => bytes(row.regionBytes), align: 'right' },
    { title: 'SENT', value: row => bytes(row.sentBytes), align: 'right' },
    { title: 'BACK', value: row => bytes(row.receivedBytes), align: 'right' },
    {
      title: '/ WRITTEN',
      value: ({ sentBytes, writtenBytes }) => (writtenBytes === null ? '-' : times(sentBytes / writtenBytes)),
      align: 'right',
    },
    { title: '/ FULL', value: row => times(row.sentBytes / full.sentBytes), align: 'right' },
    { title: 'RESYNC', value: row => formatDuration(row.resyncMs), align: 'right' },
  ])
  out.line()
  if (options.pairs > 0) {
    out.table(guest, [
      { title: 'GUEST', value: ({ what }) => what },
      { title: 'WITHOUT', value: ({ without }) => without.toFixed(2), align: 'right' },
      { title: 'DURING', value: ({ during }) => during.toFixed(2), align: 'right' },
      { title: 'RATIO', value: ({ ratio }) => times(ratio), align: 'right' },
    ])
    out.line()
  }
  out.paragraph(
    `A volume of ${formatBytes(VOLUME_BYTES)}, ${formatBytes(FILLED_BYTES)} of it filled; in each outage different 4 KiB ` +
      'blocks of that part are written, at random. SENT and BACK are counted by the kernel on the primary’s link, from ' +
      'the end of the outage until all is in-sync, with TLS, TCP and Ethernet; the last line is a replica that was ' +
      `lost. The guest: four readers and four writers of 4 KiB for ${WINDOW_MS / 1000} s, ${options.pairs} times with a ` +
      'resync beside them and without; medians, and the median of the pairs’ ratios.',
    '  '
  )
  out.paragraph(
    `Coordinator ${coordinatorOf(options)}, TLS. qemu-img finds the replicas equal, and a planted byte was found.`,
    '  '
  )
  out.line(`in ${formatDuration(tookMs)}`)
}

function sizes(text: string): readonly number[] {
  const found = text.split(',').map(Number)
  const max = FILLED_BYTES / MIB
  if (found.every(size => Number.isInteger(size) && size > 0 && size <= max)) return found
  throw new InvalidArgumentError(`Not a list of whole numbers from 1 to ${max}.`)
}

if (process.argv[1]?.endsWith('resync-cost.ts') === true) await runDrill(main)
