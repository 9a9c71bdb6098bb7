/**
 * `npm run port-attack`: every port of a cluster is tried from a host that is none of its members, while a load that
 * checks every byte goes on. Prints a table; ends with 1 when anybody was answered, the load was disturbed, a log was flooded or
 * silent, or something stayed behind.
 *
 *     node --import tsx test/faults/attack/port-attack.ts [--connections 10000] [--json]
 */
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Command } from 'commander'
import { wholeNumber } from '../../../cli/commands/common.ts'
import { closeVolume } from '../../../cli/lab/pool.ts'
import { reasonOf } from '../../../core/errors.ts'
import { type TestLab } from '../../support/test-lab.ts'
import { faultsOf } from '../load/judge.ts'
import { Load } from '../load/load-client.ts'
import { AttackLab, requireTools } from './attack-lab.ts'
import { type AttackReport, printReport } from './attack-report.ts'
import { Attacker } from './attacker-process.ts'
import { ATTACKS } from './attacks.ts'
import { Campaign } from './campaign.ts'
import { checkWithTools } from './foreign-tools.ts'
import { makeIntruders } from './intruders.ts'
import { PORT_KINDS, findListeners } from './listening.ts'
import { removeConnected } from './removal.ts'
import { readRefusals, tooOften } from './refusals.ts'
import { findSecrets } from './secrets.ts'

const DEPTH = 32
const READS = 4
const CALM_MS = 10_000
/** Half of what an attacker could take of a small network; a flood uses them all. */
const ADDRESSES = 40

interface AttackOptions {
  readonly connections: number
  readonly json?: true
}

const progress = (line: string): void => void process.stderr.write(`${line}\n`)

/** Rejects when the user has had enough. Some say so twice, which must not end the clean-up. */
function interruption(): Promise<never> {
  return new Promise((_, reject) => {
    for (const name of ['SIGINT', 'SIGTERM'] as const) {
      process.on(name, () => reject(new Error(`ended by ${name}`)))
    }
  })
}

async function main(options: AttackOptions): Promise<void> {
  const startedAt = performance.now()
  requireTools()
  const interrupted = interruption()
  interrupted.catch(() => undefined)
  progress('a lab of four hosts starts; one of them is going to be the attacker')
  const starting = AttackLab.startLab()
  let lab: TestLab
  try {
    lab = await Promise.race([starting, interrupted])
  } catch (error) {
    // Whatever has begun is taken back when it is there.
    await starting.then(
      late => late.dispose(),
      () => undefined
    )
    throw error
  }
  const children: { dispose(): Promise<void> }[] = []
  try {
    const report = await Promise.race([attack(lab, options, children), interrupted])
    printReport(report, options.json === true, performance.now() - startedAt)
  } finally {
    for (const child of children) await child.dispose()
    await lab.dispose()
  }
}

async function attack(
  lab: TestLab,
  { connections }: AttackOptions,
  children: { dispose(): Promise<void> }[]
): Promise<AttackReport> {
  const attacked = await AttackLab.prepare(lab)
  const { primary, removed, volume, disk } = attacked
  const journal = join(lab.directory, 'journal')
  const load = new Load({ ...disk, journal, seed: 1, writes: DEPTH, reads: READS, flushEvery: DEPTH })
  children.push(load)
  await load.started()
  progress(`${primary.name} serves the volume; ${removed.name} is removed from the cluster`)
  const removal = await removeConnected(attacked)
  await attacked.untilMembersMoved()
  await attacked.takeRemoved()
  const addresses = await attacked.takeAddresses(ADDRESSES)
  const intruders = await makeIntruders(attacked, [removed.address, ...addresses])
  const open = await findListeners(attacked)
  const attacker = await Attacker.start(lab.labDirectory, removed.name)
  children.push(attacker)
  const member = await Attacker.start(lab.labDirectory, primary.name)
  children.push(member)

  progress('the load alone, for comparison')
  const before = await attacked.volumeState()
  load.mark()
  await delay(CALM_MS)
  const calm = await load.report()
  const campaign = new Campaign({
    attacked,
    load,
    intruders,
    addresses,
    attacker,
    member,
    listeners: open.listeners,
    calmStallMs: calm.longestStallMs,
  })
  const attempts = []
  for (const [index, each] of ATTACKS.entries()) {
    progress(`${index + 1}/${ATTACKS.length} ${each.name}`)
    attempts.push(await campaign.attempt(each, index))
  }
  const floods = []
  for (const kind of PORT_KINDS) {
    progress(`${connections} connections to ${kind.title} that go nowhere`)
    floods.push(await campaign.flood(kind, connections))
  }
  const after = await attacked.volumeState()
  progress('the load ends, the replicas are compared')
  const final = await load.stop()
  await closeVolume(primary, volume)
  const secrets = await findSecrets(attacked)
  const tools = await checkWithTools(attacked, intruders.stranger!)
  const refusals = await readRefusals(attacked)
  return {
    removal,
    attempts,
    floods,
    calmStallMs: calm.longestStallMs,
    listeners: open.listeners.length,
    writesAcknowledged: final.writesAcknowledged,
    bytesVerified: final.bytesVerified,
    comparedBytes: tools.comparedBytes,
    filesSearched: secrets.files,
    processesSearched: secrets.processes,
    logLines: refusals.length,
    faults: [
      ...open.faults,
      ...faultsOf(final),
      ...(final.connectionLost ? ['the connection of the load was lost'] : []),
      ...(before === after ? [] : [`the volume was at ${before}, and is at ${after}`]),
      ...tooOften(refusals),
      ...tools.faults,
      ...secrets.faults,
    ],
  }
}

const command = new Command('port-attack')
  .option(
    '--connections <number>',
    'that stay half-open, to each kind of port',
    wholeNumber(100, 18_000),
    10_000
  )
  .option('--json', 'print one JSON value on standard output')
  .parse()
try {
  await main(command.opts<AttackOptions>())
} catch (error) {
  progress(`FAILED: ${reasonOf(error)}`)
  process.exitCode = 1
}
