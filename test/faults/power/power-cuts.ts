/**
 * `npm run vm-power-cuts`: the coordinators, xosand's catalogue and its small files in a virtual machine whose power is cut,
 * again and again; what was acknowledged must be there. Ends with 1 when anything was lost, or when an error that was
 * planted was not found. Needs no root when the programs are installed.
 *
 *     node --import tsx test/faults/power/power-cuts.ts [--cuts 10] [--only LANES] [--control] [--seed S] [--keep] [--json]
 */
import { randomInt } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Command, InvalidArgumentError } from 'commander'
import { wholeNumber } from '../../../cli/commands/common.ts'
import { Console } from '../../../cli/console.ts'
import { formatDuration } from '../../../cli/format.ts'
import { reasonOf } from '../../../core/errors.ts'
import { SeededRandom } from '../../simulator/seeded-random.ts'
import { Campaign } from './campaign.ts'
import { readBlocks, writeBlocks } from './disk-image.ts'
import { type ForeignSystem, foreignSystem, requireForeignPrograms } from './foreign-system.ts'
import { makeFileSystem, makeGuestImage } from './guest-image.ts'
import { Lane } from './lane.ts'
import { LANES, type LaneKind } from './lanes.ts'
import { drawControlCut, drawCut } from './moments.ts'
import { PLANTED_ERRORS } from './planted-errors.ts'
import { endMachines } from './virtual-machine.ts'
import { type Blocks } from './volatile-disk.ts'

const SEED_MAX = 1_000_000_000
/** A planted error must be found within so many cuts. */
const CONTROL_CUTS_MAX = 20

interface Options {
  readonly cuts: number
  readonly only: readonly LaneKind[]
  readonly seed: number
  readonly control?: true
  readonly keep?: true
  readonly json?: true
}

const startedAt = performance.now()
const log = (line: string): void => {
  process.stderr.write(`${formatDuration(performance.now() - startedAt).padStart(12)}  ${line}\n`)
}

function kindsIn(text: string): LaneKind[] {
  const all = Object.keys(LANES) as LaneKind[]
  const chosen = all.filter(kind => text.split(',').some(part => kind.includes(part)))
  if (chosen.length === 0) throw new InvalidArgumentError(`Lanes are: ${all.join(', ')}.`)
  return chosen
}

/** File systems, one for each size, from which every lane's disk begins. */
async function emptyDisks(directory: string, only: readonly LaneKind[]): Promise<Map<LaneKind, Blocks>> {
  const disks = new Map<LaneKind, Blocks>()
  for (const kind of only) {
    const image = await makeFileSystem(directory, kind, LANES[kind].diskBytes)
    disks.set(kind, await readBlocks(image))
    await rm(image)
  }
  return disks
}

interface Setting {
  readonly options: Options
  readonly directory: string
  readonly system: ForeignSystem
  readonly image: string
  readonly disks: ReadonlyMap<LaneKind, Blocks>
}

async function cutReal({ options, disks, ...setting }: Setting): Promise<Lane[]> {
  const random = new SeededRandom(options.seed)
  const lanes = options.only.map(
    kind => new Lane(kind, kind, null, disks.get(kind)!, new SeededRandom(random.below(SEED_MAX)))
  )
  const pauses = new SeededRandom(random.below(SEED_MAX))
  const campaign = new Campaign({ ...setting, lanes, random: pauses, log })
  for (let number = 0; number < options.cuts && campaign.living.length > 0; number++) {
    const plan = drawCut(random, number, options.only)
    await campaign.boot(`cut ${number + 1} of ${options.cuts}`, plan)
  }
  if (campaign.living.length > 0) await campaign.boot('last look', null)
  return lanes
}

async function cutPlanted({ options, disks, ...setting }: Setting): Promise<Lane[]> {
  const random = new SeededRandom(options.seed + 1)
  const planted = PLANTED_ERRORS.filter(({ lane }) => options.only.includes(lane))
  const lanes = planted.map(
    (error, number) =>
      new Lane(
        `planted-${number}`,
        error.lane,
        error,
        disks.get(error.lane)!,
        new SeededRandom(random.below(SEED_MAX))
      )
  )
  const pauses = new SeededRandom(random.below(SEED_MAX))
  const campaign = new Campaign({ ...setting, lanes, random: pauses, log })
  for (let number = 0; number < CONTROL_CUTS_MAX && campaign.living.length > 0; number++) {
    const plan = drawControlCut(random, number, campaign.living)
    await campaign.boot(`planted errors, cut ${number + 1}`, plan)
  }
  if (campaign.living.length > 0) await campaign.boot('planted errors, last look', null)
  return lanes
}

function report(
  options: Options,
  real: readonly Lane[],
  planted: readonly Lane[],
  brokeOff: string | null
): void {
  const out = new Console(options.json === true)
  const caught = (lane: Lane): boolean => lane.fault !== null && lane.fault.kind !== 'failed'
  const failures = [
    ...real.flatMap(({ name, fault }) =>
      fault === null ? [] : [`${name}: ${fault.kind} after ${fault.cuts} cuts: ${fault.reason}`]
    ),
    ...planted.flatMap(lane =>
      caught(lane) ? [] : [`${lane.planted!.name}: ${lane.fault?.reason ?? 'not found'}`]
    ),
    ...real.flatMap(({ name, opened }) => (opened === 0 ? [`${name}: it was never opened`] : [])),
    ...(brokeOff === null ? [] : [`it broke off: ${brokeOff}`]),
  ]
  const textOf = ({ fault }: Lane): string => (fault === null ? 'nothing lost' : `FAILED: ${fault.kind}`)
  out.result({
    seed: options.seed,
    lanes: real.map(rowOf),
    planted: planted.map(lane => ({ ...rowOf(lane), planted: lane.planted!.name, found: caught(lane) })),
    failures,
  })
  if (real.length > 0)
    out.table(real, [
      { title: 'LANE', value: ({ name }) => name },
      { title: '', value: textOf },
      { title: 'CUTS', value: ({ cuts }) => String(cuts), align: 'right' },
      { title: 'OPENED', value: ({ opened }) => String(opened), align: 'right' },
      { title: 'ITEMS', value: ({ acknowledged }) => String(acknowledged), align: 'right' },
      { title: 'IN FLIGHT', value: ({ inFlight }) => String(inFlight), align: 'right' },
      { title: 'THERE', value: ({ inFlightKept }) => String(inFlightKept), align: 'right' },
      { title: 'CACHED', value: ({ volatileSectors }) => String(volatileSectors), align: 'right' },
      { title: 'LOST', value: ({ lostSectors }) => String(lostSectors), align: 'right' },
    ])
  out.line()
  out.table(planted, [
    { title: 'PLANTED ERROR', value: lane => lane.planted!.name },
    { title: '', value: lane => (caught(lane) ? `found: ${lane.fault!.kind}` : 'NOT FOUND') },
    { title: 'CUTS', value: ({ cuts, fault }) => String(fault?.cuts ?? cuts), align: 'right' },
    { title: 'ITEMS', value: ({ acknowledged }) => String(acknowledged), align: 'right' },
    { title: 'LOST', value: ({ lostSectors }) => String(lostSectors), align: 'right' },
  ])
  out.line()
  for (const { planted: error, fault } of planted) {
    if (fault !== null) out.paragraph(`${error!.name}: ${fault.reason}`, '  ')
  }
  for (const failure of failures) out.paragraph(`FAILED: ${failure}`, '  ')
  const took = formatDuration(performance.now() - startedAt)
  out.line(`${failures.length === 0 ? 'Nothing was lost' : 'FAILED'}, seed ${options.seed}, in ${took}`)
  process.exitCode = failures.length === 0 ? 0 : 1
}

const rowOf = ({ name, cuts, opened, acknowledged, inFlight, inFlightKept, olderFound, ...lane }: Lane) => ({
  lane: name,
  cuts,
  opened,
  acknowledged,
  inFlight,
  inFlightKept,
  olderFound,
  volatileSectors: lane.volatileSectors,
  lostSectors: lane.lostSectors,
  fault: lane.fault,
})

async function powerCuts(options: Options): Promise<void> {
  await requireForeignPrograms(log)
  const directory = await mkdtemp(join(tmpdir(), 'xosan-power-'))
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.once(name, () => {
      void endMachines()
        .then(() => rm(directory, { recursive: true, force: true }))
        .finally(() => process.exit(130))
    })
  }
  let real: Lane[] = []
  let planted: Lane[] = []
  let brokeOff: string | null = null
  try {
    const system = await foreignSystem(log)
    const image = await makeGuestImage(directory, system, PLANTED_ERRORS)
    const setting = { options, directory, system, image, disks: await emptyDisks(directory, options.only) }
    log(`seed ${options.seed}`)
    if (options.control !== true) real = await cutReal(setting)
    planted = await cutPlanted(setting)
  } catch (error) {
    brokeOff = reasonOf(error)
  }
  const keep = options.keep === true || real.some(({ fault }) => fault !== null)
  if (keep) {
    for (const { name, kind, blocks } of [...real, ...planted]) {
      await writeBlocks(join(directory, `${name}.img`), LANES[kind].diskBytes, blocks)
    }
    log(`the disks, as they were when they were looked at last: ${directory}`)
  } else {
    await rm(directory, { recursive: true, force: true })
  }
  report(options, real, planted, brokeOff)
}

const program = new Command('vm-power-cuts')
  .option('--cuts <number>', 'how often the power is cut', wholeNumber(1, 10_000), 10)
  .option(
    '--only <lanes>',
    'lanes whose names contain one of these',
    kindsIn,
    Object.keys(LANES) as LaneKind[]
  )
  .option(
    '--seed <number>',
    'draws moments and what the disks keep',
    wholeNumber(0, SEED_MAX),
    randomInt(SEED_MAX)
  )
  .option('--control', 'only the planted errors, which must be found')
  .option('--keep', 'keep the disks')
  .option('--json', 'print one JSON value on standard output')
  .action(powerCuts)
await program.parseAsync()
