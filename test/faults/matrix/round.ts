import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { type Comparison, compareFiles } from '../../../cli/lab/compare-files.ts'
import { type NbdAddress } from '../../../cli/lab/guest-disk.ts'
import {
  type PoolHost,
  type PoolVolume,
  closeVolume,
  destroyVolume,
  openVolume,
  takeOverVolume,
} from '../../../cli/lab/pool.ts'
import { replicaFiles, waitUntilInSync } from '../../../cli/lab/volume-watch.ts'
import { datapathIndexOf } from '../../../core/placement/datapath-index.ts'
import { type VolumeKey } from '../../../core/units.ts'
import { type TestLab } from '../../support/test-lab.ts'
import { faultsOf } from '../load/judge.ts'
import { Load } from '../load/load-client.ts'
import { type LoadReport } from '../load/load-protocol.ts'
import { type KillKind, processesOf } from './kill-kinds.ts'

export const WRITES_IN_FLIGHT_MIN = 16
/** Kept in flight; more than enough are there at every moment. */
const WRITES = 32
const READS = 4
/** The load goes on for so many acknowledged writes before and after a kill. */
const WRITES_BETWEEN = 300
const PROGRESS_DEADLINE_MS = 60_000
const IN_SYNC_DEADLINE_MS = 120_000
/** A takeover compares the replicas in the background; they must be equal within this time. */
const EQUAL_DEADLINE_MS = 30_000
/** Another host must serve within ten seconds; this is when waiting for it ends. */
const TAKEOVER_PATIENCE_MS = 60_000
const POLL_MS = 50

export interface RoundResult {
  readonly writesInFlight: number
  readonly writesAcknowledged: number
  readonly writesOverlapping: number
  readonly bytesVerified: number
  readonly longestStallMs: number
  /** From the kill until another host had opened the volume; null when the guest's connection went on. */
  readonly takeoverMs: number | null
  readonly bytesCompared: number
  /** What went wrong, as sentences. */
  readonly faults: readonly string[]
}

/** A volume under load, killed at again and again. */
export class Matrix {
  readonly #lab: TestLab
  readonly #volume: PoolVolume
  readonly #journal: string
  #primary: PoolHost
  #address: NbdAddress
  #load: Load | null = null
  #seed: number
  #flushEvery = 0

  private constructor(lab: TestLab, volume: PoolVolume, address: NbdAddress, seed: number) {
    this.#lab = lab
    this.#volume = volume
    this.#primary = lab.hosts[0]!
    this.#address = address
    this.#seed = seed
    this.#journal = join(lab.directory, `journal-${volume.key}`)
  }

  /** Makes a volume and opens it. @param size in bytes */
  static async open(lab: TestLab, size: number, seed: number): Promise<Matrix> {
    const volume = await lab.createVolume(size)
    return new Matrix(lab, volume, await openVolume(lab.hosts[0]!, volume), seed)
  }

  /** @param number alternates what can be alternated: flushes or none, which host takes over */
  async round(kind: KillKind, number: number): Promise<RoundResult> {
    const faults: string[] = []
    const roles = await this.#lab.roles(this.#primary, this.#volume)
    const target = roles[kind.role]
    const control = await this.#lab.control(target)
    this.#flushEvery = number % 2 === 0 ? 0 : 64
    const load = await this.#startLoad(faults)
    await load.progress(WRITES_BETWEEN, PROGRESS_DEADLINE_MS)
    const victims = await processesOf(kind.part, control, datapathIndexOf(this.#volume.key as VolumeKey, 2))
    load.mark()
    const writesInFlight = await load.signal('SIGKILL', victims, WRITES_IN_FLIGHT_MIN)
    const killedAt = performance.now()
    let before: LoadReport | null = null
    let takeoverMs: number | null = null
    let running = load
    if (kind.guestSees === 'gone') {
      before = await load.ended()
      if (!before.connectionLost) faults.push('the connection was not lost')
      faults.push(...faultsOf(before))
      const next = number % 2 === 0 ? roles.secondary : roles.bystander
      running = await this.#openElsewhere(kind, target, next, faults)
      takeoverMs = Math.round(performance.now() - killedAt)
    }
    await running.progress(WRITES_BETWEEN, PROGRESS_DEADLINE_MS)
    await control.start()
    await waitUntilInSync(this.#primary, this.#volume, IN_SYNC_DEADLINE_MS)
    await running.progress(WRITES_BETWEEN, PROGRESS_DEADLINE_MS)
    const after = await running.stop()
    this.#load = null
    faults.push(...faultsOf(after))
    if (after.connectionLost) faults.push('the connection was lost')
    const comparison = await this.#compare(kind)
    if (comparison.firstDifference !== null) {
      faults.push(`the replicas differ at byte ${comparison.firstDifference}`)
    }
    const both = [after, ...(before === null ? [] : [before])]
    return {
      writesInFlight,
      writesAcknowledged: sum(both, report => report.writesAcknowledged),
      writesOverlapping: sum(both, report => report.writesOverlapping),
      bytesVerified: sum(both, report => report.bytesVerified),
      longestStallMs: Math.max(takeoverMs ?? 0, ...both.map(report => report.longestStallMs)),
      takeoverMs,
      bytesCompared: comparison.bytes,
      faults,
    }
  }

  /** Compares the raw files of the replicas of the volume as it is. */
  async compareReplicas(): Promise<Comparison> {
    const [first, second] = await this.files()
    return await compareFiles(first, second, this.#volume.size)
  }

  async files(): Promise<readonly [string, string]> {
    const files = [...(await replicaFiles(this.#lab.paths, this.#volume)).values()]
    const [first, second] = files
    if (first === undefined || second === undefined) throw new Error(`${files.length} replica files found`)
    return [first, second]
  }

  /** Checks the whole volume against the journal once more, closes and destroys it. @returns what went wrong */
  async finish(): Promise<readonly string[]> {
    const faults: string[] = []
    const load = this.#newLoad(true)
    faults.push(...faultsOf(await load.ended()))
    this.#load = null
    await closeVolume(this.#primary, this.#volume)
    await destroyVolume(this.#primary, this.#volume)
    await rm(this.#journal, { force: true })
    return faults
  }

  async dispose(): Promise<void> {
    await this.#load?.dispose()
  }

  #newLoad(checkOnly: boolean): Load {
    this.#load = new Load({
      ...this.#address,
      journal: this.#journal,
      seed: this.#seed++,
      writes: WRITES,
      reads: READS,
      flushEvery: this.#flushEvery,
      checkOnly,
    })
    return this.#load
  }

  async #startLoad(faults: string[]): Promise<Load> {
    const load = this.#newLoad(false)
    faults.push(...faultsOf(await load.started()))
    return load
  }

  async #openElsewhere(kind: KillKind, old: PoolHost, next: PoolHost, faults: string[]): Promise<Load> {
    // A VM whose disk died on a living host is cleaned up there before it starts elsewhere; a dead host is not asked.
    if (kind.part !== 'all') await closeVolume(old, this.#volume)
    this.#address = await takeOverVolume(next, this.#volume, TAKEOVER_PATIENCE_MS)
    this.#primary = next
    return await this.#startLoad(faults)
  }

  async #compare(kind: KillKind): Promise<Comparison> {
    const end = performance.now() + EQUAL_DEADLINE_MS
    for (;;) {
      const comparison = await this.compareReplicas()
      const mayWait = kind.guestSees === 'gone' && performance.now() < end
      if (comparison.firstDifference === null || !mayWait) return comparison
      await delay(POLL_MS)
    }
  }
}

const sum = <T>(items: readonly T[], value: (item: T) => number): number =>
  items.reduce((total, item) => total + value(item), 0)
