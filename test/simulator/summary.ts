/** What many universes amount to. */
import { type CoverageReport } from './coverage.ts'
import { NEVER_SEEN, type NeverSeen } from './never-reached.ts'
import { POSSIBLE } from './transitions.ts'
import { type UniverseReport } from './universe.ts'

export interface Summary {
  readonly universes: number
  readonly failed: number
  readonly failedSeeds: readonly number[]
  readonly seconds: number
  readonly universesPerMinute: number
  readonly virtualHours: number
  readonly medians: Readonly<
    Record<'faults' | 'takeovers' | 'resyncs' | 'guestOperations' | 'events', number>
  >
  /** Kind -> how often. */
  readonly faults: Readonly<Record<string, number>>
  readonly transitions: Readonly<Record<string, number>>
  /** Steps of the protocol that are possible, were not seen and have no reason. */
  readonly transitionsNeverSeen: readonly string[]
  /** Those that were not seen, with the reason why. */
  readonly transitionsExplained: readonly NeverSeen[]
  /** Reasons for steps that were seen, or that nobody takes for possible. */
  readonly transitionsOutdated: readonly NeverSeen[]
  /** Steps that were seen, though nobody thought of them. */
  readonly transitionsUnforeseen: readonly string[]
  /** How many of the universes were watched for the passages that they reached. */
  readonly covered: number
  readonly coverage: CoverageReport | null
}

export function summarise(
  reports: readonly UniverseReport[],
  seconds: number,
  coverage: { readonly covered: number; readonly report: CoverageReport | null }
): Summary {
  const median = (pick: (report: UniverseReport) => number): number =>
    reports.map(pick).sort((a, b) => a - b)[Math.floor(reports.length / 2)] ?? 0
  const failedSeeds = reports.filter(({ problems }) => problems.length > 0).map(({ seed }) => seed)
  const transitions = total(reports.map(report => report.transitions))
  const notSeen = POSSIBLE.filter(name => transitions[name] === undefined)
  return {
    universes: reports.length,
    failed: failedSeeds.length,
    failedSeeds,
    seconds: Math.round(seconds),
    universesPerMinute: Math.round((reports.length / seconds) * 60),
    virtualHours: Math.round(reports.reduce((sum, { virtualMs }) => sum + virtualMs, 0) / 36_000) / 100,
    medians: {
      faults: median(report => Object.values(report.faults).reduce((sum, count) => sum + count, 0)),
      takeovers: median(report => report.takeovers),
      resyncs: median(report => report.resyncs),
      guestOperations: median(report => report.operations),
      events: median(report => report.events),
    },
    faults: total(reports.map(report => report.faults)),
    transitions,
    transitionsNeverSeen: notSeen.filter(name => !NEVER_SEEN.some(({ step }) => step === name)),
    transitionsExplained: NEVER_SEEN.filter(({ step }) => notSeen.includes(step)),
    transitionsOutdated: NEVER_SEEN.filter(({ step }) => !notSeen.includes(step)),
    transitionsUnforeseen: Object.keys(transitions).filter(name => !POSSIBLE.includes(name)),
    covered: coverage.covered,
    coverage: coverage.report,
  }
}

function total(counts: readonly Readonly<Record<string, number>>[]): Record<string, number> {
  const sum: Record<string, number> = {}
  for (const one of counts)
    for (const [name, count] of Object.entries(one)) sum[name] = (sum[name] ?? 0) + count
  return Object.fromEntries(Object.entries(sum).sort(([a], [b]) => (a < b ? -1 : 1)))
}

export function printSummary(summary: Summary): void {
  const { universes, seconds, universesPerMinute, virtualHours, medians, faults, failedSeeds } = summary
  console.log(
    `${universes} universes in ${seconds} s (${universesPerMinute} a minute), ${virtualHours} simulated hours`
  )
  console.log(
    `median of each: ${medians.faults} faults, ${medians.takeovers} takeovers, ${medians.resyncs} resyncs, ` +
      `${medians.guestOperations} guest operations, ${medians.events} events`
  )
  printCounts('faults', faults)
  printCounts('steps of the protocol', summary.transitions)
  printList('steps that are possible and were never seen', summary.transitionsNeverSeen)
  printList('steps that were seen and nobody has foreseen', summary.transitionsUnforeseen)
  printList(
    'steps that were never seen, and why',
    summary.transitionsExplained.map(({ step, reason }) => `${step}\n      ${reason}`)
  )
  printList(
    'outdated reasons for steps: seen, or not possible any more',
    summary.transitionsOutdated.map(({ step }) => step)
  )
  if (summary.coverage !== null) printCoverage(summary.coverage, summary.covered)
  console.log(verdictOnReach(summary))
  console.log(failedSeeds.length === 0 ? 'no promise was broken' : `BROKEN in ${failedSeeds.length} seeds:`)
  for (const seed of failedSeeds) console.log(`  npm run sim -- --seed ${seed}`)
}

/** In one line, whether everything was reached. */
function verdictOnReach(summary: Summary): string {
  const { coverage, covered, transitionsNeverSeen, transitionsExplained, transitionsOutdated } = summary
  const { neverReached = [], explained = [], outdated = [] } = coverage ?? {}
  const outdatedCount = outdated.length + transitionsOutdated.length
  const reasons =
    `${explained.length + transitionsExplained.length} passages and steps were not, each for its reason` +
    (outdatedCount === 0 ? '' : `; ${outdatedCount} reasons are outdated`)
  const wrong = [
    [neverReached.length, 'passages were never reached and have no reason'],
    [transitionsNeverSeen.length, 'steps were never seen and have no reason'],
  ].flatMap(([count, what]) => (count === 0 ? [] : [`${count} ${what}`]))
  if (wrong.length > 0)
    return `NOT ALL OF THE PROTOCOL WAS REACHED by ${covered} covered universes: ${wrong.join(', ')}`
  return `all of the protocol was reached by ${covered} covered universes; ${reasons}`
}

function printCoverage(
  { neverReached, assertions, explained, outdated, around }: CoverageReport,
  covered: number
): void {
  printList(
    `of the protocol never reached by ${covered} universes`,
    neverReached.map(({ file, line, column, text }) => `${file}:${line}:${column}  ${text}`)
  )
  printList(
    'assertions that never failed',
    assertions.map(({ file, line, text }) => `${file}:${line}  ${text}`)
  )
  printList(
    'never reached, and why',
    explained.map(({ file, line, text, reason }) => `${file}:${line}  ${text}\n      ${reason}`)
  )
  printList(
    'outdated reasons: reached, or not there any more',
    outdated.map(({ file, text }) => `${file}  ${text}`)
  )
  console.log('around the protocol, run by other tests too, passages not reached here (--json names them):')
  for (const [folder, passages] of Object.entries(around)) console.log(`  ${folder}: ${passages.length}`)
}

function printCounts(title: string, counts: Readonly<Record<string, number>>): void {
  console.log(`${title}:`)
  for (const [name, count] of Object.entries(counts)) {
    console.log(`  ${name.padEnd(38)} ${String(count).padStart(9)}`)
  }
}

function printList(title: string, lines: readonly string[]): void {
  console.log(lines.length === 0 ? `${title}: none` : `${title}, ${lines.length}:`)
  for (const line of lines) console.log(`  ${line}`)
}
