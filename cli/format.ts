/** Numbers and tables as people read them on a terminal. */

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB']

/** A number of bytes in the largest unit that leaves at least 1, with three digits: `1.50 GiB`. */
export function formatBytes(bytes: number): string {
  let value = bytes
  let unit = 0
  // 999.5 would be printed as 1000, four digits.
  while (unit < UNITS.length - 1 && value >= (unit === 0 ? 1024 : 999.5)) {
    value /= 1024
    unit += 1
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2
  return `${value.toFixed(digits)} ${UNITS[unit] ?? ''}`
}

/** A duration in milliseconds as `0.4 s`, `12 s`, `3 min 05 s` or `2 h 10 min`. */
export function formatDuration(milliseconds: number): string {
  const seconds = Math.round(milliseconds / 1000)
  if (milliseconds < 9_950) return `${(milliseconds / 1000).toFixed(1)} s`
  if (seconds < 60) return `${seconds} s`
  const minutes = Math.floor(seconds / 60)
  if (minutes < 60) return `${minutes} min ${String(seconds % 60).padStart(2, '0')} s`
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, '0')} min`
}

export interface Column<Row> {
  readonly title: string
  readonly value: (row: Row) => string
  /** Numbers stand to the right. */
  readonly align?: 'left' | 'right'
  /** The column that gives way when the terminal is narrow; the last such one in the table. */
  readonly shrinks?: boolean
}

/** Between two columns. */
const GAP = '  '
/** No column is cut to fewer characters than this. */
const COLUMN_WIDTH_MIN = 6

/**
 * Lines of a table that fits into a width: columns that shrink give way first, from the widest on; what still does
 * not fit is cut at the end of the line.
 */
export function formatTable<Row>(
  rows: readonly Row[],
  columns: readonly Column<Row>[],
  width: number
): string[] {
  const cells = [
    columns.map(({ title }) => title),
    ...rows.map(row => columns.map(({ value }) => value(row))),
  ]
  const widths = columns.map((_, index) => Math.max(...cells.map(line => line[index]!.length)))
  const total = (): number => widths.reduce((sum, each) => sum + each, 0) + GAP.length * (columns.length - 1)
  while (total() > width) {
    const widest = columns
      .map((column, index) => ({ index, shrinks: column.shrinks === true }))
      .filter(({ index, shrinks }) => shrinks && widths[index]! > COLUMN_WIDTH_MIN)
      .sort((a, b) => widths[b.index]! - widths[a.index]!)[0]
    if (widest === undefined) break
    widths[widest.index]! -= 1
  }
  return cells.map(line =>
    line
      .map((text, index) => {
        const fitted = cut(text, widths[index]!)
        return columns[index]!.align === 'right'
          ? fitted.padStart(widths[index]!)
          : fitted.padEnd(widths[index]!)
      })
      .join(GAP)
      .trimEnd()
      .slice(0, width)
  )
}

function cut(text: string, width: number): string {
  return text.length <= width ? text : `${text.slice(0, width - 1)}…`
}

/** Lines of a text that fit into a width, broken at spaces; those after the first one are indented. */
export function wrapText(text: string, width: number, indent: string): string[] {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line.trim() !== '' && line.length + 1 + word.length > width) {
      lines.push(line)
      line = indent + word
    } else {
      line = line === '' ? word : `${line} ${word}`
    }
  }
  return [...lines, line]
}

/** How far a copy is and when it will be done, as one line. */
export function formatProgress(done: number, total: number, elapsedMs: number): string {
  const fraction = total === 0 ? 1 : Math.min(done / total, 1)
  const bar = '#'.repeat(Math.round(fraction * 20)).padEnd(20, '.')
  const rate = elapsedMs > 0 ? (done / elapsedMs) * 1000 : 0
  const remaining = rate > 0 ? `${formatDuration(((total - done) / rate) * 1000)} left` : 'time left unknown'
  return `[${bar}] ${Math.floor(fraction * 100)} %  ${formatBytes(done)} of ${formatBytes(total)}  ${formatBytes(rate)}/s  ${remaining}`
}
