import { copyFile } from 'node:fs/promises'
import { type NbdAddress } from '../../../cli/lab/guest-disk.ts'
import { within } from '../cluster/bounded.ts'
import { contradictions } from '../cluster/late-answers.ts'
import { notePowerLoss } from '../load/journal.ts'
import { faultsOf } from '../load/judge.ts'
import { Load } from '../load/load-client.ts'
import { type LoadReport } from '../load/load-protocol.ts'
import { type Guest, type GuestWork } from './guest.ts'
import { type VolumePlan } from './schedule.ts'

/** The whole volume is read first, on a machine that is busy and maybe in the middle of a fault. */
const CHECK_DEADLINE_MS = 120_000
const END_DEADLINE_MS = 120_000
const WRITES_BETWEEN = 200

/** A guest that was left on a host that another one has replaced. */
export interface LeftBehind {
  /** Another host serves now: from here on it may be answered no read. */
  replaced(): Promise<void>
  /** @param kept file with the volume as the new primary found it @returns what went wrong, as sentences */
  judge(kept: string): Promise<string[]>
  /** Ends it unjudged. */
  abandon(): Promise<void>
}

/** The load generator, in one session after the other, each with the journal of those before. */
export class LoadGuest implements Guest {
  readonly #plan: VolumePlan
  readonly #journal: string
  #seed: number
  #number = 0
  #load: Load | null = null
  #faults: string[] = []
  #finished: LoadReport[] = []
  #last: LoadReport | null = null

  /** @param journal path of the first session's journal; others get a number behind it */
  constructor(plan: VolumePlan, journal: string, seed: number) {
    this.#plan = plan
    this.#journal = journal
    this.#seed = seed
  }

  get work(): GuestWork {
    const reports = [...this.#finished, ...(this.#last === null ? [] : [this.#last])]
    return {
      writes: reports.reduce((sum, report) => sum + report.writesAcknowledged, 0),
      bytesVerified: reports.reduce((sum, report) => sum + report.bytesVerified, 0),
    }
  }

  async begin(address: NbdAddress, powerLost: boolean): Promise<void> {
    const load = this.#open(address, powerLost, false)
    const report = await within('the check of the volume', CHECK_DEADLINE_MS, load.started())
    this.#faults.push(...faultsOf(report))
    if (report.connectionLost) throw new Error('the connection was lost during the check of the volume')
  }

  async progress(deadlineMs: number): Promise<void> {
    if (this.#load === null) throw new Error('no guest is there')
    this.#last = await this.#load.progress(WRITES_BETWEEN, deadlineMs)
  }

  mark(): void {
    this.#load?.mark()
  }

  doomed(): void {
    // It tells a lost connection from an error by itself.
  }

  async longestWaitMs(): Promise<number | null> {
    if (this.#load === null) return null
    this.#last = await this.#load.report()
    return this.#last.longestStallMs
  }

  async kill(): Promise<void> {
    const load = this.#take()
    if (load === null) return
    // What it has found so far, unless its host took it along already.
    const report = await load.report().catch(() => null)
    if (report !== null) this.#note(report)
    await load.dispose()
  }

  async stop(): Promise<void> {
    const load = this.#take()
    if (load === null) return
    const report = await within('the end of the load', END_DEADLINE_MS, load.stop())
    await load.dispose()
    this.#note(report)
    if (report.connectionLost) this.#faults.push('the connection was lost')
  }

  /** Leaves the guest connected where it is; the next session goes on with a copy of its journal. */
  leaveBehind(): LeftBehind | null {
    const load = this.#take()
    if (load === null) return null
    const journal = this.#path
    let since: LoadReport | null = null
    return {
      replaced: async () => {
        since = await load.report()
      },
      judge: async kept => {
        const end = await within('the end of a connection', END_DEADLINE_MS, load.ended()).finally(() =>
          load.dispose()
        )
        const faults = faultsOf(end)
        if (!end.connectionLost) faults.push('the replaced primary did not end the connection')
        const reads = since === null ? 0 : end.readsVerified - since.readsVerified
        if (reads > 0) faults.push(`the replaced primary answered ${reads} reads`)
        const wrong = await contradictions(journal, kept)
        if (wrong > 0) {
          faults.push(
            `${wrong} sectors are not what the replaced primary has said when another host took over`
          )
        }
        this.#finished.push(end)
        return faults
      },
      abandon: () => load.dispose(),
    }
  }

  async checkAll(address: NbdAddress, powerLost: boolean): Promise<void> {
    const load = this.#open(address, powerLost, true)
    const report = await within('the last check of the volume', CHECK_DEADLINE_MS, load.ended())
    this.#load = null
    this.#note(report)
    if (report.connectionLost) this.#faults.push('the connection was lost in the last check')
  }

  takeFaults(): string[] {
    return this.#faults.splice(0)
  }

  /** A session that begins while an older one may still be answered writes into a journal of its own. */
  async continueElsewhere(): Promise<void> {
    const before = this.#path
    this.#number++
    await copyFile(before, this.#path)
  }

  get #path(): string {
    return `${this.#journal}-${this.#number}`
  }

  #open(address: NbdAddress, powerLost: boolean, checkOnly: boolean): Load {
    const { writes, reads, flushEvery } = this.#plan
    if (powerLost) notePowerLoss(this.#path)
    const options = { ...address, journal: this.#path, seed: this.#seed++, writes, reads, flushEvery }
    this.#load = new Load({ ...options, checkOnly })
    return this.#load
  }

  #take(): Load | null {
    const load = this.#load
    this.#load = null
    this.#last = null
    return load
  }

  #note(report: LoadReport): void {
    this.#finished.push(report)
    this.#faults.push(...faultsOf(report))
  }
}
