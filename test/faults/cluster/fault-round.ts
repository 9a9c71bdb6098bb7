/** A fault of one host, and what a guest notices of it: nothing but a wait, or that another host serves its volume. */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { byteOffset } from '../../../core/units.ts'
import { type NbdAddress, connectDisk } from '../../../cli/lab/guest-disk.ts'
import { type PoolHost, closeVolume, takeOverVolume } from '../../../cli/lab/pool.ts'
import { type TestLab } from '../../support/test-lab.ts'
import { type Load } from '../load/load-client.ts'
import { type LoadReport } from '../load/load-protocol.ts'
import { within } from './bounded.ts'
import { type HostFault } from './host-faults.ts'
import { contradictions, keepVolume } from './late-answers.ts'
import { type DrillResult, type Role, VolumeDrill } from './volume-drill.ts'

interface FaultOutcome {
  readonly writesInFlight: number
  /** Longest time that a request waited during the fault, at a client whose host was the primary; in milliseconds. */
  readonly stallMs: number
  /** Longest time in which it was answered nothing at all. */
  readonly silenceMs: number
  /** The longest wait after the fault, while the host came back. */
  readonly returnStallMs: number
  /** From the fault until another host had answered a read; null when the primary stayed. */
  readonly servedElsewhereMs: number | null
  /** Whether a replaced primary's client got no error, no read, and no answer that is not true; null without one. */
  readonly held: boolean | null
  /** Writes that a replaced primary answered late: every replica had them before it was replaced. */
  readonly lateAnswers: number
}

export interface FaultResult extends FaultOutcome, DrillResult {
  readonly host: string
  readonly role: Role
  readonly fault: string
}

const TAKEOVER_PATIENCE_MS = 60_000
/** The limit that was promised. */
const SERVED_ELSEWHERE_MS_MAX = 10_000

const NOTHING: FaultOutcome = {
  writesInFlight: 0,
  stallMs: 0,
  silenceMs: 0,
  returnStallMs: 0,
  servedElsewhereMs: null,
  held: null,
  lateAnswers: 0,
}

/** Runs a fault of one host to its end, on a volume of its own. */
export async function runFault(
  lab: TestLab,
  fault: HostFault,
  role: Role,
  number: number
): Promise<FaultResult> {
  const drill = await VolumeDrill.begin(lab, number)
  const { outcome, ...result } = await drill.run(() => new FaultRound(drill, fault).under(drill.host(role)))
  return { ...NOTHING, ...outcome, ...result, host: drill.host(role).name, role, fault: fault.name }
}

class FaultRound {
  readonly #drill: VolumeDrill
  readonly #fault: HostFault

  constructor(drill: VolumeDrill, fault: HostFault) {
    this.#drill = drill
    this.#fault = fault
  }

  async under(victim: PoolHost): Promise<FaultOutcome> {
    const load = await this.#drill.openUnderLoad()
    const writesInFlight = await this.#fault.inflict(this.#drill.lab, victim, load)
    const startedAt = performance.now()
    const rest =
      victim === this.#drill.host('primary')
        ? await this.#moves(victim, load, startedAt)
        : await this.#goesOn(load, startedAt)
    return { ...NOTHING, writesInFlight, ...rest }
  }

  /** The primary stays: its guest notices at most a wait. */
  async #goesOn(load: Load, startedAt: number): Promise<Partial<FaultOutcome>> {
    await this.#drill.progress(load)
    await this.#lasting(startedAt)
    const { longestStallMs, longestSilenceMs } = await this.#drill.progress(load)
    const returnStallMs = await this.#drill.comesBack(this.#drill.host('primary'), load)
    this.#drill.limit('a request was answered', longestStallMs)
    return { stallMs: longestStallMs, silenceMs: longestSilenceMs, returnStallMs }
  }

  /** The primary's host is lost: another one serves, and the guest that was left behind is told nothing. */
  async #moves(victim: PoolHost, old: Load, startedAt: number): Promise<Partial<FaultOutcome>> {
    const { volume, successor } = this.#drill
    if (this.#fault.endsGuest) await this.#drill.endOf(old)
    const address = await takeOverVolume(successor, volume, TAKEOVER_PATIENCE_MS)
    await readOnce(address)
    const servedElsewhereMs = Math.round(performance.now() - startedAt)
    this.#drill.limit('another host served', servedElsewhereMs, SERVED_ELSEWHERE_MS_MAX)
    const heldSince = this.#fault.endsGuest ? null : await old.report()
    if (heldSince !== null) await keepVolume(address, this.#kept)
    const load = await this.#drill.startLoad(address)
    await this.#drill.progress(load)
    await this.#lasting(startedAt)
    const { longestStallMs } = await this.#drill.progress(load)
    const returnStallMs = await this.#drill.comesBack(successor, load)
    const left = heldSince === null ? {} : await this.#leftBehind(victim, old, heldSince)
    // The guest of the primary that was lost waits until another host serves.
    const stallMs = Math.max(servedElsewhereMs, longestStallMs)
    return { stallMs, silenceMs: servedElsewhereMs, returnStallMs, servedElsewhereMs, ...left }
  }

  /** What the client of a replaced primary was told since another host serves. */
  async #leftBehind(victim: PoolHost, old: Load, since: LoadReport): Promise<Partial<FaultOutcome>> {
    const { faults, volume } = this.#drill
    const before = faults.length
    if ((await old.report()).connectionLost) faults.push('the replaced primary ended the connection')
    await closeVolume(victim, volume)
    const end = await this.#drill.endOf(old)
    const reads = end.readsVerified - since.readsVerified
    if (reads > 0) faults.push(`the replaced primary answered ${reads} reads`)
    const wrong = await contradictions(this.#drill.journal(0), this.#kept)
    await rm(this.#kept)
    if (wrong > 0) {
      faults.push(`${wrong} sectors are not what the replaced primary has said when another host took over`)
    }
    return { held: faults.length === before, lateAnswers: end.writesAcknowledged - since.writesAcknowledged }
  }

  /** The volume as the new primary found it. */
  get #kept(): string {
    return join(this.#drill.lab.directory, `kept-${this.#drill.volume.key}`)
  }

  async #lasting(startedAt: number): Promise<void> {
    await delay(Math.max(0, this.#fault.lastsMs - (performance.now() - startedAt)))
  }
}

async function readOnce({ socket, exportName }: NbdAddress): Promise<void> {
  const disk = await connectDisk({ socket, exportName })
  await within('the first read', TAKEOVER_PATIENCE_MS, disk.read(byteOffset(0), Buffer.alloc(4096)))
  await disk.close()
}
