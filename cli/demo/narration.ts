import { formatDuration, formatTable } from '../format.ts'

interface Check {
  readonly what: string
  readonly result: string
  readonly ok: boolean
}

/** The demo's voice: numbered steps with their time, a line that shows progress, and a table of checks. */
export class Narration {
  readonly #checks: Check[] = []
  readonly #live = process.stdout.isTTY
  readonly #startedAt = performance.now()
  #step = 0
  #silent = false

  say(text = ''): void {
    this.#write(`${text}\n`)
  }

  /** Says nothing any more: the demo was interrupted, and what is still going on is of no interest. */
  silence(): void {
    this.#silent = true
  }

  /** Says what is going on, then what came of it. @param action returns the rest of the sentence */
  async step(title: string, action: (progress: (text: string) => void) => Promise<string>): Promise<void> {
    const number = String(++this.#step).padStart(2)
    const startedAt = performance.now()
    const live = (text: string): void => {
      if (this.#live) this.#write(`\r\x1b[K${number}  ${title} ${text}`.slice(0, 4 + this.#width()))
    }
    live('...')
    const outcome = await action(live)
    const took = formatDuration(performance.now() - startedAt)
    this.#write(`${this.#live ? '\r\x1b[K' : ''}${number}  ${title}\n      ${outcome} (${took})\n`)
  }

  check(what: string, result: string, ok: boolean): void {
    this.#checks.push({ what, result, ok })
  }

  /** Prints the table. @returns whether all is well */
  conclude(): boolean {
    const ok = this.#checks.every(check => check.ok)
    this.say()
    const lines = formatTable(
      this.#checks,
      [
        { title: 'CHECK', value: check => check.what },
        { title: 'RESULT', value: check => check.result, shrinks: true },
        { title: '', value: check => (check.ok ? 'ok' : 'FAILED') },
      ],
      this.#width()
    )
    for (const line of lines) this.say(line)
    this.say()
    const took = formatDuration(performance.now() - this.#startedAt)
    this.say(
      ok ? `All ${this.#checks.length} checks passed, in ${took}.` : `Something is wrong; it took ${took}.`
    )
    return ok
  }

  #write(text: string): void {
    if (!this.#silent) process.stdout.write(text)
  }

  #width(): number {
    return process.stdout.isTTY && process.stdout.columns > 0 ? Math.min(process.stdout.columns, 110) : 100
  }
}
