/**
 * A volume on a lab, to which something is done under a load that checks what it reads. Before, the cluster is whole
 * and every replica in-sync; afterwards everything is made whole again, and the replicas are compared.
 */
import { copyFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { reasonOf } from '../../../core/errors.ts'
import { type NbdAddress } from '../../../cli/lab/guest-disk.ts'
import {
  type PoolHost,
  type PoolVolume,
  closeVolume,
  destroyVolume,
  openVolume,
} from '../../../cli/lab/pool.ts'
import { showVolume } from '../../../cli/lab/volume-watch.ts'
import { type TestLab } from '../../support/test-lab.ts'
import { faultsOf } from '../load/judge.ts'
import { Load } from '../load/load-client.ts'
import { type LoadReport } from '../load/load-protocol.ts'
import { until, within } from './bounded.ts'
import { compareReplicas, findsPlantedByte, heal, untilInSync, untilWhole } from './cluster-state.ts'

/** What a host is to the volume. `bystander` has no replica; with three copies on three hosts there is none. */
export type Role = 'primary' | 'secondary' | 'third' | 'bystander' | 'witness'

/** What every drill of a volume finds out. */
export interface DrillResult {
  readonly writesAcknowledged: number
  readonly writesOverlapping: number
  readonly bytesVerified: number
  readonly bytesCompared: number
  readonly plantedFound: boolean
  /** What went wrong, as sentences. */
  readonly faults: readonly string[]
}

const VOLUME_BYTES = 64 * 1024 * 1024
const WRITES = 32
const READS = 4
/** The load goes on for so many acknowledged writes before, during and after a fault. */
const WRITES_BETWEEN = 300
const PROGRESS_DEADLINE_MS = 60_000
/** How long a guest may take to notice that its connection was ended. */
const END_DEADLINE_MS = 60_000
/** The limit that was promised for a replica that is lost. */
const STALL_MS_MAX = 5_000

export class VolumeDrill {
  readonly lab: TestLab
  readonly volume: PoolVolume
  /** Chooses between hosts, and between guests, of equal rank. */
  readonly number: number
  readonly faults: string[] = []
  readonly #roles: ReadonlyMap<Role, PoolHost>
  readonly #loads: Load[] = []
  readonly #reports: LoadReport[] = []
  #journals = 0

  private constructor(lab: TestLab, number: number, volume: PoolVolume, roles: ReadonlyMap<Role, PoolHost>) {
    this.lab = lab
    this.number = number
    this.volume = volume
    this.#roles = roles
  }

  /** Makes the cluster whole, and a volume in it. */
  static async begin(lab: TestLab, number: number): Promise<VolumeDrill> {
    await heal(lab)
    await untilWhole(lab)
    const volume = await newVolume(lab)
    const { replicas } = await showVolume(lab.hosts[0]!, volume)
    const holders = replicas.map(({ host }) => lab.host(host))
    const turned = holders.map((_, index) => holders[(index + number) % holders.length]!)
    const names: readonly Role[] = ['primary', 'secondary', 'third']
    const roles = new Map(turned.map((host, index) => [names[index]!, host]))
    const bystander = lab.hosts.find(host => !holders.includes(host))
    if (bystander !== undefined) roles.set('bystander', bystander)
    if (lab.witness !== null) roles.set('witness', lab.witness)
    return new VolumeDrill(lab, number, volume, roles)
  }

  /** @throws Error when this lab and volume have no such host */
  host(role: Role): PoolHost {
    const host = this.#roles.get(role)
    if (host === undefined) throw new Error(`there is no ${role} here`)
    return host
  }

  /** A host that may take the volume over: in turn one with a replica, and one without if there is one. */
  get successor(): PoolHost {
    const other = this.#roles.get('bystander') ?? this.#roles.get('third')
    return this.number % 2 === 1 && other !== undefined ? other : this.host('secondary')
  }

  /** Does something to the volume, compares the replicas and clears up. What goes wrong is in the result. */
  async run<T>(body: () => Promise<T>): Promise<{ readonly outcome: T | null } & DrillResult> {
    let [outcome, bytesCompared, plantedFound]: [T | null, number, boolean] = [null, 0, false]
    try {
      outcome = await body()
      bytesCompared = await compareReplicas(this.lab, this.volume)
      plantedFound = await findsPlantedByte(this.lab, this.volume)
      if (!plantedFound) this.faults.push('a byte that was changed on purpose was not found')
    } catch (error) {
      this.faults.push(reasonOf(error))
    }
    await this.#end().catch((error: unknown) => this.faults.push(`while clearing up: ${reasonOf(error)}`))
    const sum = (value: (report: LoadReport) => number): number =>
      this.#reports.reduce((total, report) => total + value(report), 0)
    return {
      outcome,
      writesAcknowledged: sum(report => report.writesAcknowledged),
      writesOverlapping: sum(report => report.writesOverlapping),
      bytesVerified: sum(report => report.bytesVerified),
      bytesCompared,
      plantedFound,
      faults: this.faults,
    }
  }

  /** Opens the volume on its primary's host, in-sync, with a guest that has made some progress. */
  async openUnderLoad(): Promise<Load> {
    const primary = this.host('primary')
    const address = await openVolume(primary, this.volume)
    await untilInSync(primary, this.volume)
    const load = await this.startLoad(address)
    await this.progress(load)
    load.mark()
    return load
  }

  /** Each load has a journal of its own: an old one may be answered, wrongly, while a new one writes. */
  async startLoad(address: NbdAddress): Promise<Load> {
    const number = this.#journals++
    if (number > 0) await copyFile(this.journal(number - 1), this.journal(number))
    const load = new Load({
      ...address,
      journal: this.journal(number),
      seed: 1000 * this.number + number,
      writes: WRITES,
      reads: READS,
      // In turn as a modern guest and as tapdisk.
      flushEvery: this.number % 2 === 0 ? 0 : 64,
    })
    this.#loads.push(load)
    const report = await within('the check of the volume', PROGRESS_DEADLINE_MS, load.started())
    this.faults.push(...faultsOf(report))
    return load
  }

  progress(load: Load): Promise<LoadReport> {
    return load.progress(WRITES_BETWEEN, PROGRESS_DEADLINE_MS)
  }

  /**
   * Heals everything, under load, and ends the load when all is as it was.
   *
   * @param primary host that serves the volume now
   * @returns the longest wait meanwhile, in milliseconds
   */
  async comesBack(primary: PoolHost, load: Load): Promise<number> {
    load.mark()
    await heal(this.lab)
    await untilInSync(primary, this.volume)
    await untilWhole(this.lab)
    await this.progress(load)
    const report = await within('the end of the load', END_DEADLINE_MS, load.stop())
    this.#judge(report)
    if (report.connectionLost) this.faults.push('the connection was lost')
    this.limit('while all came back a request was answered', report.longestStallMs)
    return report.longestStallMs
  }

  /** Waits until a guest has noticed that its connection was ended. */
  async endOf(load: Load): Promise<LoadReport> {
    const report = await within('the end of a connection', END_DEADLINE_MS, load.ended())
    if (!report.connectionLost) this.faults.push('the connection was not lost')
    this.#judge(report)
    return report
  }

  /** @param what happened after so many milliseconds, which is a fault beyond a limit */
  limit(what: string, ms: number, maxMs = STALL_MS_MAX): void {
    if (ms > maxMs) this.faults.push(`${what} after ${ms} ms`)
  }

  /** What a load was told, the first one being number 0. */
  journal(number: number): string {
    return join(this.lab.directory, `journal-${this.volume.key}-${number}`)
  }

  #judge(report: LoadReport): void {
    this.#reports.push(report)
    this.faults.push(...faultsOf(report))
  }

  async #end(): Promise<void> {
    for (const load of this.#loads) await load.dispose()
    await heal(this.lab)
    for (const host of this.lab.hosts) await closeVolume(host, this.volume)
    await destroyVolume(this.lab.hosts[0]!, this.volume)
    for (let number = 0; number < this.#journals; number++) await rm(this.journal(number), { force: true })
  }
}

/** A host that was away a moment ago may not have told yet how much space it has; then there are too few to choose from. */
async function newVolume(lab: TestLab): Promise<PoolVolume> {
  let volume: PoolVolume | null = null
  await until('a volume is created', PROGRESS_DEADLINE_MS, async () => {
    volume = await lab.createVolume(VOLUME_BYTES)
    return null
  })
  return volume!
}
