/** The table that `npm run sim:mutants` prints while it goes on: a row for each error, in eighty columns. */

export interface Verdict {
  /** Place in the list of all errors, from 1. */
  readonly number: number
  readonly mutant: string
  /** Promises that the error breaks. */
  readonly breaks: readonly string[]
  /** The promise whose checker caught it; null when none of the right ones did. */
  readonly caughtBy: string | null
  /** Promises that other universes broke before that. */
  readonly othersBroken: readonly string[]
  /** Universes that were looked into. */
  readonly universes: number
  /** Of real time. */
  readonly seconds: number
  /** The problem by which it was caught, or the first of any, with its seed. */
  readonly example: string
}

const WIDTH = 80
/** How often it says what goes on where no terminal is, in milliseconds. */
const NEWS_MS = 30_000

export class MutantTable {
  readonly #count: number
  readonly #seeds: number
  readonly #started = performance.now()
  /** Universes so far of those that are looked at. */
  readonly #underWay = new Map<string, number>()
  #judged = 0
  #missed = 0
  #saidAt = performance.now()
  #hasHead = false

  /** @param count of errors @param seeds universes that one may survive */
  constructor(count: number, seeds: number) {
    this.#count = count
    this.#seeds = seeds
  }

  /** One more universe was looked into. */
  progress(mutant: string, universes: number): void {
    this.#underWay.set(mutant, universes)
    const now = performance.now()
    const { isTTY } = process.stderr
    if (now - this.#saidAt < (isTTY ? 200 : NEWS_MS)) return
    this.#saidAt = now
    const underWay = [...this.#underWay].map(([name, seeds]) => `${name} (${seeds})`).join(', ')
    const text = `${this.#judged} of ${this.#count} judged, ${this.#missed} not caught; ${underWay}`
    if (isTTY) process.stderr.write(`\r\x1b[K${text.slice(0, WIDTH - 1)}`)
    else process.stderr.write(`${text}\n`)
  }

  judged(verdict: Verdict, isSilent: boolean): void {
    this.#underWay.delete(verdict.mutant)
    this.#judged++
    if (verdict.caughtBy === null) this.#missed++
    if (process.stderr.isTTY) process.stderr.write('\r\x1b[K')
    if (isSilent) return
    if (!this.#hasHead) console.log(row('', 'by', 'seeds', 'time', 'deliberate error'))
    this.#hasHead = true
    const { number, caughtBy, universes, seconds, mutant, example, othersBroken } = verdict
    console.log(row(String(number), caughtBy ?? '-', String(universes), `${seconds} s`, mutant))
    if (caughtBy !== null) return
    const others = othersBroken.length === 0 ? '' : `, only ${othersBroken.join(' ')} broken`
    console.log(row('', '', '', '', `NOT CAUGHT in ${universes} universes${others}`))
    if (example !== '') console.log(row('', '', '', '', example))
  }

  end(verdicts: readonly Verdict[]): void {
    const minutes = Math.round((performance.now() - this.#started) / 60_000)
    const universes = verdicts.reduce((sum, verdict) => sum + verdict.universes, 0)
    console.log(
      `${this.#judged - this.#missed} of ${this.#judged} errors were caught by a checker of a promise that they break,\n` +
        `each in at most ${this.#seeds} universes; ${universes} universes in ${minutes} min`
    )
  }
}

/** One row; what is too long for the last column goes on below. */
function row(number: string, by: string, seeds: string, time: string, text: string): string {
  const head = `${number.padStart(3)} ${by.padEnd(3)} ${seeds.padStart(5)} ${time.padStart(6)}  `
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > WIDTH - head.length) {
      lines.push(line)
      line = word
    } else line = line === '' ? word : `${line} ${word}`
  }
  lines.push(line)
  return lines.map((part, at) => (at === 0 ? head : ' '.repeat(head.length)) + part).join('\n')
}
