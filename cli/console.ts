import { type Column, formatTable, wrapText } from './format.ts'

/** Width of a terminal that does not say how wide it is. */
const WIDTH_UNKNOWN = 80

/**
 * What a command says. With `--json`, standard output carries one JSON value and nothing else, and what is meant
 * for people who wait goes nowhere.
 */
export class Console {
  readonly json: boolean
  readonly #live = process.stdout.isTTY
  #liveLine = false

  constructor(json: boolean) {
    this.json = json
  }

  /** One line for people. */
  line(text = ''): void {
    if (!this.json) {
      this.#endLiveLine()
      process.stdout.write(`${text}\n`)
    }
  }

  /** Sentences, which take as many lines as they need. */
  paragraph(text: string, indent: string): void {
    for (const line of wrapText(text, this.#width(), indent)) this.line(line)
  }

  table<Row>(rows: readonly Row[], columns: readonly Column<Row>[]): void {
    for (const text of formatTable(rows, columns, this.#width())) {
      this.line(text)
    }
  }

  /** A line that the next one replaces on a terminal; elsewhere, where it cannot be replaced, an ordinary one. */
  progress(text: string): void {
    if (this.json) return
    if (!this.#live) {
      this.line(text)
      return
    }
    process.stdout.write(`\r\x1b[K${text.slice(0, this.#width() - 1)}`)
    this.#liveLine = true
  }

  /** The result for programs; does nothing without `--json`. */
  result(value: unknown): void {
    if (this.json) {
      process.stdout.write(`${JSON.stringify(value)}\n`)
    }
  }

  #endLiveLine(): void {
    if (this.#liveLine) {
      process.stdout.write('\n')
      this.#liveLine = false
    }
  }

  #width(): number {
    const { columns } = process.stdout
    return process.stdout.isTTY && columns > 0 ? columns : WIDTH_UNKNOWN
  }
}
