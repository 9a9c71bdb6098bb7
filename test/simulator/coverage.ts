/**
 * Which passages of the mirror no universe has reached. V8 counts blocks of the bundled script; its source map says
 * where they come from. A passage is a stretch that never ran, named by the line of the source on which it begins.
 */
import { readFileSync } from 'node:fs'
import { SourceMap } from 'node:module'
import { dirname, relative, resolve } from 'node:path'
import { PROJECT_ROOT } from './bundle.ts'
import { NEVER_REACHED, type NeverReached } from './never-reached.ts'
import { type Stretches } from './worker-messages.ts'

/** The protocol. Its order of things is what the simulator alone can try, so universes must reach all of it. */
const PROTOCOL = /^(core\/mirror|datapath\/(mirror|resync))\b/

/**
 * What the protocol stands on, and what stands on it: the format on disk, and the process without its sockets. Universes
 * run these too, but most of their branches are about files and calls, not about the order of things; they have tests of
 * their own, on real disks and sockets.
 */
const AROUND =
  /^(datapath\/replica-local|datapath\/process(?=\/(admissions|datapath-node|guest-connection|guest-device|local-peer|local-session|maintenance|peer-process|replica-host|volume)\b))/

/** What stops the process because it cannot happen. A universe that reached one would be broken. */
const ASSERTION = /throw new RangeError\(|assert\.fail\(|new XosanError\('INTERNAL'/

export interface Passage {
  readonly file: string
  /** From 1. */
  readonly line: number
  readonly column: number
  /** The line of the source on which it begins. */
  readonly text: string
}

export interface CoverageReport {
  /** Passages of the protocol that were not reached and have no reason. */
  readonly neverReached: readonly Passage[]
  /** Assertions that did not fail. */
  readonly assertions: readonly Passage[]
  /** Passages that were not reached, with the reason why. */
  readonly explained: readonly (Passage & { readonly reason: string })[]
  /** Reasons for what was reached, or is not there any more. */
  readonly outdated: readonly NeverReached[]
  /** Folder around the protocol -> its passages that were not reached here. */
  readonly around: Readonly<Record<string, readonly Passage[]>>
}

export class Coverage {
  readonly #script: string
  #notReached: Stretches | null = null

  /** @param script the bundled worker, with its source map beside it */
  constructor(script: string) {
    this.#script = script
  }

  /** Adds what one worker has not reached: what counts is what none has. */
  add(stretches: Stretches): void {
    this.#notReached = this.#notReached === null ? stretches : common(this.#notReached, stretches)
  }

  report(): CoverageReport {
    const passages = this.#passages()
    const reasons = new Map(NEVER_REACHED.map(entry => [`${entry.file} ${entry.text}`, entry]))
    const neverReached: Passage[] = []
    const assertions: Passage[] = []
    const explained: (Passage & { reason: string })[] = []
    const outdated = new Set(NEVER_REACHED)
    const around: Record<string, Passage[]> = {}
    for (const passage of passages) {
      const [folder] = AROUND.exec(passage.file) ?? []
      if (folder !== undefined) {
        if (!ASSERTION.test(passage.text)) (around[folder] ??= []).push(passage)
        continue
      }
      const known = reasons.get(`${passage.file} ${passage.text}`)
      if (known === undefined) (ASSERTION.test(passage.text) ? assertions : neverReached).push(passage)
      else {
        // A line may have several passages, and has one reason.
        if (outdated.delete(known)) explained.push({ ...passage, reason: known.reason })
      }
    }
    return { neverReached, assertions, explained, outdated: [...outdated], around }
  }

  #passages(): Passage[] {
    const script = readFileSync(this.#script, 'utf8')
    const text = readFileSync(`${this.#script}.map`, 'utf8')
    const payload = JSON.parse(text) as SourceMap['payload'] & { readonly sourcesContent: readonly string[] }
    const map = new SourceMap(payload)
    const starts = lineStarts(script)
    // As they were when they were bundled.
    const sources = new Map(
      payload.sources.map((source, index) => [source, payload.sourcesContent[index]!.split('\n')])
    )
    const found = new Map<string, Passage>()
    for (const [start, end] of this.#notReached ?? []) {
      // Braces, commas and blanks that V8 counts are no code.
      const word = /\w/.exec(script.slice(start, end))
      if (word === null) continue
      const at = start + word.index
      const line = lineOf(starts, at)
      const entry = map.findEntry(line, at - starts[line]!)
      if (!('originalSource' in entry)) continue
      const path = resolve(dirname(this.#script), entry.originalSource)
      const file = relative(PROJECT_ROOT, path)
      if (!PROTOCOL.test(file) && !AROUND.test(file)) continue
      const passage = {
        file,
        line: entry.originalLine + 1,
        column: entry.originalColumn + 1,
        text: sources.get(entry.originalSource)![entry.originalLine]!.trim(),
      }
      found.set(`${file}:${passage.line}:${passage.column}`, passage)
    }
    return [...found.values()].sort((a, b) => (a.file < b.file ? -1 : a.file > b.file ? 1 : a.line - b.line))
  }
}

/** What is in both. */
function common(a: Stretches, b: Stretches): Stretches {
  const both: [number, number][] = []
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    const [one, other] = [a[i]!, b[j]!]
    const [start, end] = [Math.max(one[0], other[0]), Math.min(one[1], other[1])]
    if (start < end) both.push([start, end])
    if (one[1] < other[1]) i++
    else j++
  }
  return both
}

function lineStarts(text: string): number[] {
  const starts = [0]
  for (let at = text.indexOf('\n'); at !== -1; at = text.indexOf('\n', at + 1)) starts.push(at + 1)
  return starts
}

function lineOf(starts: readonly number[], offset: number): number {
  let [low, high] = [0, starts.length]
  while (high - low > 1) {
    const middle = (low + high) >> 1
    if (starts[middle]! <= offset) low = middle
    else high = middle
  }
  return low
}
