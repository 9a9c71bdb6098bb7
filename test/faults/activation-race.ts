/**
 * `npm run activation-race`: two or three hosts are ordered to activate one volume at the same instant, again and
 * again; in a share of the rounds one of them is paused in the middle for seconds, and wakes up not knowing it.
 * Every host that believes that it has won writes. Never may two of them be right at one time; one must be in the end.
 *
 *     node --import tsx test/faults/activation-race.ts [--rounds 200] [--paused 20] [--json]
 */
import { setTimeout as delay } from 'node:timers/promises'
import { Command } from 'commander'
import { wholeNumber } from '../../cli/commands/common.ts'
import { formatDuration } from '../../cli/format.ts'
import { EntryScriptError } from '../../cli/lab/entry-script.ts'
import { type NbdAddress } from '../../cli/lab/guest-disk.ts'
import {
  type PoolHost,
  type PoolVolume,
  activateVolume,
  attachVolume,
  deactivateVolume,
} from '../../cli/lab/pool.ts'
import { TestLab } from '../support/test-lab.ts'
import { type AcknowledgedWrite, claim, findTwoWriters } from './activation/claim.ts'

const VOLUME_BYTES = 4 * 1024 * 1024
/** Winners write for so long after the last answer, so that two of them would be seen. */
const CLAIM_MS = 150
/** "In the end": losers of a round in which nobody won try again this often. */
const ATTEMPTS_MAX = 20
/** Pauses, in milliseconds: most around the promise time, where it matters; a few far beyond. */
const PAUSES_MS = [1_000, 2_000, 3_500, 4_500, 6_000, 8_000, 12_000, 30_000]
const RETRY_MS = 200
/** When nobody has won by then, in milliseconds, somebody is paused all the same. */
const LATEST_WINNER_MS = 5_000
/** An activation takes about so long, in milliseconds; a pause begins somewhere within. */
const ACTIVATION_MS = 400

export interface RaceRound {
  readonly contenders: number
  /** Milliseconds, or null when nobody was paused. */
  readonly pausedMs: number | null
  /** Activations that reported success; more than one only when the right passed on under a host that was paused. */
  readonly winners: number
  readonly attempts: number
  readonly writes: number
  readonly tookMs: number
  /** What other contenders were told, each once. */
  readonly refusals: readonly string[]
  readonly fault: string | null
}

export interface RaceOptions {
  readonly rounds: number
  /** How many of the rounds have a pause in them. */
  readonly paused: number
  readonly progress: (line: string) => void
}

/** Runs the race on a lab of its own. */
export async function runActivationRace(options: RaceOptions): Promise<RaceRound[]> {
  const lab = await TestLab.start(3)
  try {
    const volume = await lab.createVolume(VOLUME_BYTES)
    const addresses = new Map<PoolHost, NbdAddress>()
    for (const host of lab.hosts) addresses.set(host, await attachVolume(host, volume))
    const rounds: RaceRound[] = []
    for (let number = 0; number < options.rounds; number++) {
      const every = options.paused === 0 ? Infinity : Math.ceil(options.rounds / options.paused)
      const pausedMs =
        number % every === every - 1 ? PAUSES_MS[Math.floor(number / every) % PAUSES_MS.length]! : null
      const contenders = lab.hosts.slice(Math.floor(number / 2) % 2)
      const result = await raceOnce(lab, volume, addresses, contenders, pausedMs)
      rounds.push(result)
      const pause = result.pausedMs === null ? '' : `, one paused ${result.pausedMs / 1000} s`
      options.progress(
        `${number + 1}/${options.rounds}: ${result.contenders} hosts${pause}: ${result.winners} won, ` +
          `${result.attempts} attempts, ${result.writes} writes, ${formatDuration(result.tookMs)}` +
          (result.fault === null ? '' : ` FAILED: ${result.fault}`)
      )
    }
    return rounds
  } finally {
    await lab.dispose()
  }
}

async function raceOnce(
  lab: TestLab,
  volume: PoolVolume,
  addresses: ReadonlyMap<PoolHost, NbdAddress>,
  contenders: readonly PoolHost[],
  pausedMs: number | null
): Promise<RaceRound> {
  const startedAt = performance.now()
  const stop = new AbortController()
  const claims: Promise<AcknowledgedWrite[]>[] = []
  const refusals = new Set<string>()
  let noteWinner: (host: PoolHost) => void = () => undefined
  const firstWinner = new Promise<PoolHost>(resolve => (noteWinner = resolve))
  const activate = async (host: PoolHost): Promise<boolean> => {
    try {
      await activateVolume(host, volume)
    } catch (error) {
      if (!(error instanceof EntryScriptError)) throw error
      refusals.add(
        error.code === 'no JSON' ? error.message : [error.code, ...error.params].join(' ').slice(0, 120)
      )
      return false
    }
    noteWinner(host)
    claims.push(claim(host.name, addresses.get(host)!, stop.signal))
    return true
  }

  let paused = pausedMs !== null
  // While one host is paused the others go on trying, so that the right to write passes on under the sleeper.
  const compete = async (host: PoolHost): Promise<boolean> => {
    for (;;) {
      if (await activate(host)) return true
      if (!paused) return false
      await delay(RETRY_MS)
    }
  }
  const race = Promise.all(contenders.map(compete))
  if (pausedMs !== null) await pauseOne(lab, contenders, firstWinner, pausedMs)
  paused = false
  const winners = (await race).filter(Boolean).length
  let attempts = 1
  let won = winners
  while (won === 0 && attempts < ATTEMPTS_MAX) {
    attempts += 1
    for (const host of contenders) if (won === 0 && (await activate(host))) won += 1
  }
  await delay(CLAIM_MS)
  stop.abort()
  const writes = (await Promise.all(claims)).flat()
  for (const host of contenders) await deactivateVolume(host, volume)
  return {
    contenders: contenders.length,
    pausedMs,
    winners,
    attempts,
    writes: writes.length,
    tookMs: Math.round(performance.now() - startedAt),
    refusals: [...refusals],
    fault: faultOf(winners, won, pausedMs, writes),
  }
}

/**
 * Stops everything of one host and lets it go on later: one of the contenders somewhere in the middle of the
 * activation, or the one that has just won, which then has a right that passes on while it sleeps.
 */
async function pauseOne(
  lab: TestLab,
  contenders: readonly PoolHost[],
  firstWinner: Promise<PoolHost>,
  pausedMs: number
): Promise<void> {
  const anyone = contenders[Math.floor(Math.random() * contenders.length)]!
  const victim =
    Math.random() < 0.5 ? anyone : await Promise.race([firstWinner, delay(LATEST_WINNER_MS, anyone)])
  const control = await lab.control(victim)
  await delay(Math.random() * ACTIVATION_MS)
  await control.pause()
  await delay(pausedMs)
  await control.resume()
}

function faultOf(
  winners: number,
  won: number,
  pausedMs: number | null,
  writes: readonly AcknowledgedWrite[]
): string | null {
  if (won === 0) return `nobody won in ${ATTEMPTS_MAX} attempts`
  // A host that was paused after it had won may have been replaced; then both have been told so, in turn.
  if (winners > 1 && pausedMs === null) return `${winners} hosts were told that they have won`
  if (writes.length === 0) return 'the winner could not write'
  return findTwoWriters(writes)
}

async function main(): Promise<void> {
  const command = new Command('activation-race')
    .option('--rounds <number>', 'how often', wholeNumber(1, 100_000), 200)
    .option(
      '--paused <number>',
      'how many of the rounds have a pause of 1 to 30 s',
      wholeNumber(0, 100_000),
      20
    )
    .option('--json', 'print one JSON value on standard output')
    .parse()
  const { rounds, paused, json } = command.opts<{ rounds: number; paused: number; json?: boolean }>()
  const startedAt = performance.now()
  const results = await runActivationRace({
    rounds,
    paused,
    progress: line => process.stderr.write(`${line}\n`),
  })
  const faults = results.filter(({ fault }) => fault !== null)
  if (json === true) process.stdout.write(`${JSON.stringify(results)}\n`)
  else {
    const withPause = results.filter(({ pausedMs }) => pausedMs !== null).length
    const three = results.filter(({ contenders }) => contenders === 3).length
    const refusals = new Map<string, number>()
    for (const text of results.flatMap(round => round.refusals))
      refusals.set(text, (refusals.get(text) ?? 0) + 1)
    for (const [text, count] of refusals) process.stdout.write(`losers were told ${count} times: ${text}\n`)
    process.stdout.write(
      `${results.length} races (${three} of three hosts, ${results.length - three} of two; ${withPause} with a pause): ` +
        `${faults.length} faults, one winner in the end in ${results.length - faults.length}, ` +
        `passed on in ${results.filter(({ winners }) => winners > 1).length}, at the first attempt in ${results.filter(({ attempts }) => attempts === 1).length}, ` +
        `${results.reduce((sum, { writes }) => sum + writes, 0)} writes, in ${formatDuration(performance.now() - startedAt)}\n`
    )
  }
  process.exitCode = faults.length === 0 ? 0 : 1
}

if (process.argv[1]?.endsWith('activation-race.ts') === true) await main()
