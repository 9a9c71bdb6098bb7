/** Boots a machine, cuts its power, and boots it again, until all cuts are made; those lanes that went wrong stay out. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { formatDuration } from '../../../cli/format.ts'
import { type Lane } from './lane.ts'
import { type CutPlan, momentText } from './moments.ts'
import { PowerCycle, type PowerCycleOptions } from './power-cycle.ts'

/** Before it is known how long opening takes. */
const OPENING_MS_GUESSED = 4_000
const CONSOLE_LINES = 15
const BOOTS_MAX = 3

export interface CampaignOptions extends Omit<PowerCycleOptions, 'plan' | 'openingMs'> {
  readonly log: (line: string) => void
}

export class Campaign {
  readonly #options: CampaignOptions
  #openingMs = OPENING_MS_GUESSED

  constructor(options: CampaignOptions) {
    this.#options = options
  }

  /** Lanes in which nothing has gone wrong. */
  get living(): readonly Lane[] {
    return this.#options.lanes.filter(({ fault }) => fault === null)
  }

  /**
   * One boot, or another one when the guest's kernel does not come up, as may happen to emulated timers on a busy machine.
   * @param plan when its power is cut; null: as soon as everything has been looked at
   * @throws Error when it does not come up again and again
   */
  async boot(title: string, plan: CutPlan | null): Promise<void> {
    const { log, ...options } = this.#options
    const lanes = this.living
    const bootedAt = performance.now()
    const cycle = { ...options, lanes, plan, openingMs: this.#openingMs }
    let { openingMs, notStarted } = await PowerCycle.run(cycle)
    for (let attempt = 1; notStarted !== null && attempt < BOOTS_MAX; attempt++) {
      log(`${title}: booted again, since the guest did not start: ${notStarted}`)
      ;({ openingMs, notStarted } = await PowerCycle.run(cycle))
    }
    if (notStarted !== null) throw new Error(`the guest does not start: ${notStarted}`)
    this.#openingMs = openingMs ?? this.#openingMs
    const moment = plan === null ? 'when everything was looked at' : momentText(plan.moment)
    const opening = openingMs === null ? 'not opened' : `opened in ${formatDuration(openingMs)}`
    log(`${title}, ${moment}: ${opening}; off after ${formatDuration(performance.now() - bootedAt)}`)
    const wrong = lanes.filter(({ fault }) => fault !== null)
    for (const { name, planted, fault } of wrong) {
      log(`  ${planted?.name ?? name}: ${fault!.kind}: ${fault!.reason}`)
    }
    if (wrong.some(({ planted }) => planted === null)) await this.#showConsole()
  }

  async #showConsole(): Promise<void> {
    const text = await readFile(join(this.#options.directory, 'console.log'), 'utf8').catch(() => '')
    for (const line of text
      .trim()
      .split('\n')
      .slice(-CONSOLE_LINES)
      .filter(line => line.trim() !== '')) {
      this.#options.log(`  console: ${line.trim()}`)
    }
  }
}
