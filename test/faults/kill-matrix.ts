/**
 * `npm run kill-matrix`: kills every kind of process and every kind of host of a lab, again and again, always with
 * many writes in flight, under a load that overlaps itself and checks every byte it reads. Prints a table; ends
 * with 1 when anything went wrong.
 *
 *     node --import tsx test/faults/kill-matrix.ts [--rounds 10] [--kinds TEXT] [--json] [--keep]
 */
import { copyFile, open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Command } from 'commander'
import { wholeNumber } from '../../cli/commands/common.ts'
import { formatBytes, formatDuration, formatTable } from '../../cli/format.ts'
import { compareFiles } from '../../cli/lab/compare-files.ts'
import { TestLab } from '../support/test-lab.ts'
import { KILL_KINDS, type KillKind } from './matrix/kill-kinds.ts'
import { Matrix, type RoundResult } from './matrix/round.ts'

const VOLUME_BYTES = 64 * 1024 * 1024

interface KindResult {
  readonly kind: KillKind
  readonly rounds: readonly RoundResult[]
  /** What went wrong outside of a finished round. */
  readonly faults: readonly string[]
  /** Whether the comparison found a byte that was changed on purpose. */
  readonly plantedFound: boolean
}

export interface MatrixOptions {
  readonly rounds: number
  readonly kinds: readonly KillKind[]
  /** Keep the lab's data when something went wrong. */
  readonly keep: boolean
  readonly progress: (line: string) => void
}

/** Runs the matrix on a lab of its own. */
export async function runKillMatrix(options: MatrixOptions): Promise<KindResult[]> {
  const lab = await TestLab.start(3)
  const results: KindResult[] = []
  try {
    for (const [index, kind] of options.kinds.entries()) {
      results.push(await runKind(lab, kind, options, 1000 * (index + 1)))
    }
  } finally {
    await lab.dispose(options.keep && results.some(failed))
  }
  return results
}

async function runKind(
  lab: TestLab,
  kind: KillKind,
  options: MatrixOptions,
  seed: number
): Promise<KindResult> {
  const rounds: RoundResult[] = []
  const faults: string[] = []
  let plantedFound = false
  const matrix = await Matrix.open(lab, VOLUME_BYTES, seed)
  try {
    for (let number = 0; number < options.rounds; number++) {
      const result = await matrix.round(kind, number)
      rounds.push(result)
      options.progress(`${kind.name} ${number + 1}/${options.rounds}: ${sentenceOf(result)}`)
    }
    plantedFound = await findsPlantedByte(lab, matrix)
    faults.push(...(await matrix.finish()))
  } catch (error) {
    faults.push(String(error))
    options.progress(`${kind.name}: ${String(error)}`)
  } finally {
    await matrix.dispose()
  }
  // What the drill left killed when it broke off must not spoil the next kind.
  for (const host of lab.hosts) await (await lab.control(host)).start()
  return { kind, rounds, faults, plantedFound }
}

/** Shows that the comparison can fail: one byte of a copy is changed, and must be found where it is. */
async function findsPlantedByte(lab: TestLab, matrix: Matrix): Promise<boolean> {
  const [first, second] = await matrix.files()
  const copy = join(lab.directory, 'planted')
  await copyFile(first, copy)
  const file = await open(copy, 'r+')
  const position = Math.floor(VOLUME_BYTES / 3)
  const byte = Buffer.alloc(1)
  await file.read(byte, 0, 1, position)
  byte[0]! ^= 1
  await file.write(byte, 0, 1, position)
  await file.close()
  const { firstDifference } = await compareFiles(copy, second, VOLUME_BYTES)
  await rm(copy)
  return firstDifference === position
}

function sentenceOf(result: RoundResult): string {
  const { writesInFlight, longestStallMs, bytesCompared, faults } = result
  const outcome = faults.length === 0 ? 'ok' : `FAILED: ${faults.join('; ')}`
  return `${writesInFlight} writes in flight, longest stall ${formatDuration(longestStallMs)}, ${formatBytes(bytesCompared)} equal: ${outcome}`
}

const faultsOf = ({ rounds, faults }: KindResult): string[] => [
  ...rounds.flatMap(round => round.faults),
  ...faults,
]

/** A kind fails by what went wrong, and by a comparison that cannot fail. */
export const failed = (result: KindResult): boolean => faultsOf(result).length > 0 || !result.plantedFound

function tableOf(results: readonly KindResult[]): string[] {
  const total = (value: (round: RoundResult) => number) => (result: KindResult) =>
    result.rounds.reduce((sum, round) => sum + value(round), 0)
  const longest = (value: (round: RoundResult) => number | null) => (result: KindResult) => {
    const times = result.rounds.map(value).filter(time => time !== null)
    return times.length === 0 ? '-' : formatDuration(Math.max(...times))
  }
  return formatTable(
    results,
    [
      { title: 'KILLED', value: ({ kind }) => kind.name },
      { title: 'TIMES', value: ({ rounds }) => String(rounds.length), align: 'right' },
      {
        title: 'IN FLIGHT',
        value: ({ rounds }) => {
          const counts = rounds.map(({ writesInFlight }) => writesInFlight)
          return counts.length === 0 ? '-' : `${Math.min(...counts)}-${Math.max(...counts)}`
        },
        align: 'right',
      },
      { title: 'WRITES', value: result => String(total(r => r.writesAcknowledged)(result)), align: 'right' },
      { title: 'OVERLAP', value: result => String(total(r => r.writesOverlapping)(result)), align: 'right' },
      {
        title: 'VERIFIED',
        value: result => formatBytes(total(r => r.bytesVerified)(result)),
        align: 'right',
      },
      {
        title: 'COMPARED',
        value: result => formatBytes(total(r => r.bytesCompared)(result)),
        align: 'right',
      },
      { title: 'STALL', value: longest(r => r.longestStallMs), align: 'right' },
      { title: 'TAKEOVER', value: longest(r => r.takeoverMs), align: 'right' },
      { title: 'PLANTED', value: ({ plantedFound }) => (plantedFound ? 'found' : 'NOT FOUND') },
      {
        title: '',
        value: result => (failed(result) ? `FAILED: ${faultsOf(result)[0] ?? ''}` : 'ok'),
        shrinks: true,
      },
    ],
    200
  )
}

async function main(): Promise<void> {
  const command = new Command('kill-matrix')
    .option('--rounds <number>', 'kills of each kind', wholeNumber(1, 1000), 10)
    .option('--kinds <text>', 'only kinds whose name contains this')
    .option('--json', 'print one JSON value on standard output')
    .option('--keep', 'keep the data of a lab in which something went wrong')
    .parse()
  const given = command.opts<{ rounds: number; kinds?: string; json?: boolean; keep?: boolean }>()
  const kinds = KILL_KINDS.filter(({ name }) => name.includes(given.kinds ?? ''))
  const progress = (line: string): void => {
    process.stderr.write(`${line}\n`)
  }
  const startedAt = performance.now()
  const results = await runKillMatrix({ rounds: given.rounds, kinds, keep: given.keep === true, progress })
  if (given.json === true) process.stdout.write(`${JSON.stringify(results)}\n`)
  else for (const line of tableOf(results)) process.stdout.write(`${line}\n`)
  process.stderr.write(`in ${formatDuration(performance.now() - startedAt)}\n`)
  process.exitCode = results.some(failed) ? 1 : 0
}

if (process.argv[1]?.endsWith('kill-matrix.ts') === true) await main()
