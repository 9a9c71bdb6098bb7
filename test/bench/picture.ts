/** A run as a picture: for each workload the systems as bars, with every repetition as a dot. */
import { type Outcome, type Plan } from './measure.ts'
import { figureOf, formatFigure } from './report.ts'
import { median } from './statistics.ts'
import { isSequential } from './workloads.ts'

const PANEL = { width: 460, label: 170, bar: 16, gap: 6, head: 34 }
const COLUMNS = 2

interface Bar {
  readonly title: string
  readonly own: boolean
  readonly figures: readonly number[]
}

/** @returns SVG */
export function pictureOf(plan: Plan, outcome: Outcome): string {
  const panels = plan.links.flatMap(link =>
    plan.workloads.map(workload => {
      const bars = plan.systems.flatMap((system): Bar[] => {
        const found = outcome.series.find(
          each => each.link === link.name && each.workload === workload.name && each.system === system.name
        )
        const figures = (found?.samples ?? []).flatMap(each =>
          each === undefined ? [] : [figureOf(workload, each)]
        )
        const own = system.name.startsWith('xosan')
        return figures.length === 0 ? [] : [{ title: system.title, own, figures }]
      })
      const unit = isSequential(workload) ? 'MB/s' : 'operations/s'
      return { title: `${link.name}: ${workload.about}, ${unit}`, bars }
    })
  )
  const rows = Math.max(...panels.map(({ bars }) => bars.length), 1)
  const height = PANEL.head + rows * (PANEL.bar + PANEL.gap) + 14
  const body = panels.map(({ title, bars }, index) => {
    const x = (index % COLUMNS) * PANEL.width
    const y = Math.floor(index / COLUMNS) * height
    return `<g transform="translate(${x} ${y})">${panel(title, bars)}</g>`
  })
  const size = { width: PANEL.width * COLUMNS, height: height * Math.ceil(panels.length / COLUMNS) }
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${size.width}" height="${size.height}" ` +
      `viewBox="0 0 ${size.width} ${size.height}" font-family="sans-serif" font-size="11">`,
    '<rect width="100%" height="100%" fill="#ffffff"/>',
    ...body,
    '</svg>',
    '',
  ].join('\n')
}

function panel(title: string, bars: readonly Bar[]): string {
  const most = Math.max(...bars.flatMap(({ figures }) => figures), 1)
  const room = PANEL.width - PANEL.label - 70
  const long = (value: number): number => Math.round((value / most) * room * 10) / 10
  const lines = bars.map(({ title: name, own, figures }, index) => {
    const y = PANEL.head + index * (PANEL.bar + PANEL.gap)
    const middle = median(figures)
    const dots = figures.map(
      value =>
        `<circle cx="${PANEL.label + long(value)}" cy="${y + PANEL.bar / 2}" r="2" fill="#222" opacity="0.45"/>`
    )
    return [
      `<text x="${PANEL.label - 6}" y="${y + 12}" text-anchor="end">${escaped(name)}</text>`,
      `<rect x="${PANEL.label}" y="${y}" width="${long(middle)}" height="${PANEL.bar}" fill="${own ? '#1f77b4' : '#c7c7c7'}"/>`,
      ...dots,
      `<text x="${PANEL.label + long(Math.max(...figures)) + 8}" y="${y + 12}">${formatFigure(middle)}</text>`,
    ].join('')
  })
  return `<text x="8" y="20" font-weight="bold">${escaped(title)}</text>${lines.join('\n')}`
}

const escaped = (text: string): string => text.replace(/&/g, '&amp;').replace(/</g, '&lt;')
