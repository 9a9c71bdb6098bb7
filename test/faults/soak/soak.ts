/**
 * `npm run soak`: a lab of three to five hosts with networks, disks and etcd of their own, several volumes under guests that
 * check what they read, and for some minutes one fault after the other, all drawn from a seed. Ends with 1 when anything went
 * wrong. As root.
 *
 *     node --import tsx test/faults/soak/soak.ts [--minutes 30] [--seed S] [--schedule FILE] [--only KINDS] [--keep] [--json]
 */
import { randomInt } from 'node:crypto'
import { appendFileSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Command, InvalidArgumentError } from 'commander'
import { wholeNumber } from '../../../cli/commands/common.ts'
import { Console } from '../../../cli/console.ts'
import { formatBytes, formatDuration } from '../../../cli/format.ts'
import { requireProgram } from '../../../cli/lab/find-program.ts'
import { reasonOf } from '../../../core/errors.ts'
import { within } from '../cluster/bounded.ts'
import { type DrillOptions, milliseconds, runDrill, startLab } from '../cluster/drill-options.ts'
import { Campaign } from './campaign.ts'
import { finish } from './ending.ts'
import { FAULT_KINDS, type FaultKind } from './fault-kinds.ts'
import { FOREIGN_PROGRAMS } from './foreign-tools.ts'
import { type Schedule, drawSchedule, parseSchedule } from './schedule.ts'
import { SoakVolume } from './soak-volume.ts'
import { type KindRow, Tally, whatHappened } from './tally.ts'

const SEED_MAX = 1_000_000_000
const MINUTE_MS = 60_000
/** Everything in an episode has an end of its own; this one is for what has none. */
const EPISODE_DEADLINE_MS = 8 * MINUTE_MS

interface SoakOptions extends Omit<DrillOptions, 'lab'> {
  readonly minutes?: number
  readonly seed?: number
  readonly schedule?: string
  readonly only?: readonly FaultKind[]
}

function kindsIn(text: string): FaultKind[] {
  const all = Object.keys(FAULT_KINDS) as FaultKind[]
  const chosen = all.filter(kind => text.split(',').some(part => kind.includes(part)))
  if (chosen.length === 0) throw new InvalidArgumentError(`Kinds are: ${all.join(', ')}.`)
  return chosen
}

function scheduleOf({ schedule, seed, minutes, only }: SoakOptions): Schedule {
  if (schedule === undefined) return drawSchedule(seed ?? randomInt(SEED_MAX), minutes ?? 30, only)
  const read = parseSchedule(readFileSync(schedule, 'utf8'))
  return minutes === undefined ? read : { ...read, minutes }
}

async function soak(options: SoakOptions): Promise<void> {
  const startedAt = performance.now()
  requireRoot()
  const schedule = scheduleOf(options)
  const directory = mkdtempSync(join(tmpdir(), 'xosan-soak-'))
  const file = join(directory, 'schedule.json')
  writeFileSync(file, `${JSON.stringify(schedule, null, 1)}\n`)
  const log = (text: string): void => {
    const text2 = `${formatDuration(performance.now() - startedAt)}  ${text}`
    process.stderr.write(`${text2}\n`)
    appendFileSync(join(directory, 'log'), `${text2}\n`)
  }
  const { hosts, copies, volumes, powerCuts, unsyncedBytesMax, diskBytes } = schedule
  log(
    `seed ${schedule.seed}: ${hosts} hosts, ${volumes.length} volumes of ${copies} copies; ` +
      `losing what is un-synced: ${powerCuts.join(', ') || 'none'}; the schedule is in ${file}`
  )
  const tally = new Tally()
  const lab = await startLab({ ...options, lab: 'netns', coordinator: 'etcd' }, hosts, {
    copies,
    powerCuts,
    unsyncedBytesMax,
    diskBytes,
  })
  const opened: SoakVolume[] = []
  let [compared, planted] = [0, 0]
  try {
    for (const index of volumes.keys()) opened.push(await SoakVolume.create(lab, schedule, index))
    const campaign = new Campaign({ lab, schedule, volumes: opened, tally, log })
    await campaign.settle()
    log('all volumes are in-sync under load; it begins')
    const end = performance.now() + schedule.minutes * MINUTE_MS
    for (const [number, episode] of schedule.episodes.entries()) {
      if (performance.now() >= end) break
      await within(`episode ${number}`, EPISODE_DEADLINE_MS, campaign.episode(number, episode))
    }
    log('healing, and comparing everything')
    ;({ compared, planted } = await finish(lab, opened, campaign, tally))
  } catch (error) {
    tally.fault(`it broke off: ${reasonOf(error)}`)
  }
  for (const volume of opened) {
    await volume.dispose()
    for (const fault of volume.takeFaults()) tally.fault(fault)
  }
  const happened = await whatHappened(lab)
  await lab
    .dispose(options.keep === true && (tally.faults.length > 0 || tally.episodes === 0))
    .catch((error: unknown) => tally.fault(`ending the lab: ${reasonOf(error)}`))
  const failed = tally.faults.length > 0 || tally.episodes === 0
  const work = opened.map(({ guest }) => guest.work)
  const sum = (value: (one: (typeof work)[number]) => number): number =>
    work.reduce((total, one) => total + value(one), 0)
  const out = new Console(options.json === true)
  const remarks = [
    `${tally.episodes} episodes; ${sum(one => one.writes)} writes acknowledged, ` +
      `${formatBytes(sum(one => one.bytesVerified))} read and judged.`,
    `${happened.resyncs} resyncs of ${formatBytes(happened.bytesResynced)}, ${happened.reconciled} takeovers ` +
      `reconciled, ${happened.membershipChanges} changes of membership.`,
    `${formatBytes(compared)} of replicas' files compared at the end; planted differences found: ${planted} of ` +
      `${opened.length}.`,
    `Seed ${schedule.seed}; again with: npm run soak -- --schedule ${file}`,
  ]
  out.result({
    seed: schedule.seed,
    schedule: file,
    rows: tally.rows,
    faults: tally.faults,
    ...happened,
    compared,
    remarks,
  })
  out.table<KindRow>(
    tally.rows.filter(({ count }) => count > 0),
    [
      { title: 'FAULT', value: ({ kind }) => kind },
      { title: 'TIMES', value: ({ count }) => String(count), align: 'right' },
      { title: 'LONGEST WAIT', value: row => milliseconds(row.longestWaitMs), align: 'right' },
      { title: 'SERVED ELSEWHERE', value: row => milliseconds(row.longestMoveMs), align: 'right' },
    ]
  )
  out.line()
  for (const remark of remarks) out.paragraph(remark, '  ')
  for (const fault of tally.faults) out.paragraph(`FAILED: ${fault}`, '  ')
  out.line(`${failed ? 'FAILED' : 'Nothing was lost'}, in ${formatDuration(performance.now() - startedAt)}`)
  process.exitCode = failed ? 1 : 0
}

function requireRoot(): void {
  if (process.geteuid?.() !== 0) {
    throw new Error('a soak needs root: its hosts have networks and file systems of their own')
  }
  for (const [program, packageName] of Object.entries(FOREIGN_PROGRAMS)) {
    requireProgram('A soak', program, packageName)
  }
}

const options = new Command('soak')
  .option('--minutes <number>', 'for how long faults are done', wholeNumber(1, 100_000))
  .option('--seed <number>', 'draws the same schedule again', wholeNumber(0, SEED_MAX))
  .option('--schedule <file>', 'does what a file says that an earlier soak has written')
  .option(
    '--only <kinds>',
    'draws only from kinds whose names contain one of these, as `killed,full`',
    kindsIn
  )
  .option('--keep', 'keep the data of a lab in which something went wrong')
  .option('--json', 'print one JSON value on standard output')
  .parse()
  .opts<SoakOptions>()
await runDrill(() => soak(options))
