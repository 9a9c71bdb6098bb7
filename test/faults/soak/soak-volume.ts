/** A volume of a soak, its guest, and whoever serves it; the part of xapi and HA is played here. */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { reasonOf } from '../../../core/errors.ts'
import { datapathIndexOf } from '../../../core/placement/datapath-index.ts'
import { type VolumeKey, byteOffset } from '../../../core/units.ts'
import { type NbdAddress, connectDisk } from '../../../cli/lab/guest-disk.ts'
import { type PoolHost, type PoolVolume, closeVolume, openVolume } from '../../../cli/lab/pool.ts'
import { showVolume } from '../../../cli/lab/volume-watch.ts'
import { DATAPATHS, type TestLab } from '../../support/test-lab.ts'
import { until, within } from '../cluster/bounded.ts'
import { keepVolume } from '../cluster/late-answers.ts'
import { ForeignGuest } from './foreign-guest.ts'
import { type Guest } from './guest.ts'
import { type LeftBehind, LoadGuest } from './load-guest.ts'
import { type Schedule, type VolumePlan } from './schedule.ts'

/** Everything is healed long before; a volume that cannot be opened by then is stuck. */
const OPEN_PATIENCE_MS = 120_000
/** One attempt; the entry scripts end by themselves before. */
const ATTEMPT_MS = 90_000
const RETRY_MS = 100
const CLOSE_PATIENCE_MS = 60_000

interface Left {
  readonly guest: LeftBehind
  readonly host: PoolHost
  /** The volume as the new primary found it; null when it cannot be judged by that. */
  readonly kept: string | null
}

export class SoakVolume {
  readonly index: number
  readonly volume: PoolVolume
  readonly guest: Guest
  readonly holders: readonly PoolHost[]
  readonly faults: string[] = []
  readonly #lab: TestLab
  #host: PoolHost
  #address: NbdAddress | null = null
  /** Holders that have lost what they had not synced, since all replicas were known to be equal. */
  readonly #lostPower = new Set<PoolHost>()
  #powerLost = false
  /** Hosts on which it was attached, and may still be. */
  readonly #attached = new Set<PoolHost>()
  #left: Left[] = []
  #kept = 0

  private constructor(
    lab: TestLab,
    index: number,
    volume: PoolVolume,
    holders: readonly PoolHost[],
    guest: Guest
  ) {
    this.#lab = lab
    this.index = index
    this.volume = volume
    this.holders = holders
    this.guest = guest
    this.#host = holders[index % holders.length]!
  }

  /** Makes a volume, opens it where it has a replica, and starts its guest. */
  static async create(lab: TestLab, schedule: Schedule, index: number): Promise<SoakVolume> {
    const plan = schedule.volumes[index]!
    const volume = await lab.createVolume(plan.size)
    const { replicas } = await showVolume(lab.hosts[0]!, volume)
    const holders = replicas.map(({ host }) => lab.host(host))
    const made = new SoakVolume(
      lab,
      index,
      volume,
      holders,
      guestOf(lab, plan, volume, schedule.seed + index)
    )
    await made.open(made.#host)
    return made
  }

  /** Who serves it, or is about to. */
  get host(): PoolHost {
    return this.#host
  }

  /** Name of its datapath process on every host. */
  get datapath(): string {
    return `datapath-${datapathIndexOf(this.volume.key as VolumeKey, DATAPATHS)}`
  }

  /** Holders that have lost no writes. */
  get survivors(): readonly PoolHost[] {
    return this.holders.filter(holder => !this.#lostPower.has(holder))
  }

  /** A process that held its replica on a host has ended, and what it had not synced is lost. */
  noteLoss(host: PoolHost): void {
    if (!this.holders.includes(host)) return
    this.#lostPower.add(host)
    if (this.survivors.length === 0) this.#powerLost = true
  }

  /** All replicas hold the same, durably. */
  noteEqual(): void {
    this.#lostPower.clear()
  }

  /** Opens it on a host whose guest begins there. */
  async open(host: PoolHost): Promise<void> {
    this.#host = host
    this.#attached.add(host)
    this.#address = await within('activation', ATTEMPT_MS, openVolume(host, this.volume))
    await this.#begin()
  }

  /** The guest dies with its host. */
  async guestDies(): Promise<void> {
    await this.guest.kill()
  }

  /** The guest goes on where it is, to be told nothing; what it was told is judged later. */
  leaveGuest(): LeftBehind | null {
    return this.guest instanceof LoadGuest ? this.guest.leaveBehind() : null
  }

  /**
   * Serves it on another host, as HA does that has given a host up.
   *
   * @param choose a host to try; asked again when that fails
   * @param left the guest that was left on the old one
   * @returns when the first read was answered, by `performance.now()`
   */
  async moveTo(choose: () => PoolHost, left: LeftBehind | null): Promise<number> {
    const old = this.#host
    const end = performance.now() + OPEN_PATIENCE_MS
    let servedAt: number | null = null
    for (;;) {
      this.#host = choose()
      this.#attached.add(this.#host)
      try {
        this.#address = await within('activation', ATTEMPT_MS, openVolume(this.#host, this.volume))
        await readOnce(this.#address)
        servedAt ??= performance.now()
        if (left !== null) await this.#replaced(left, old)
        left = null
        await this.#begin()
        return servedAt
      } catch (error) {
        await this.guest.kill()
        if (performance.now() >= end) {
          throw new Error(`stuck: it cannot be opened on ${this.#host.name}: ${reasonOf(error)}`, {
            cause: error,
          })
        }
        // Left activated there it could not be opened on the next one.
        await closeVolume(this.#host, this.volume).catch(() => undefined)
        await delay(RETRY_MS)
      }
    }
  }

  /** Detaches it everywhere but where it is served, and judges guests that were left behind. All hosts are up. */
  async cleanUp(): Promise<void> {
    for (const host of this.#attached) {
      if (host === this.#host) continue
      await until(`a detach on ${host.name}`, CLOSE_PATIENCE_MS, async () => {
        await closeVolume(host, this.volume)
        return null
      })
      this.#attached.delete(host)
    }
    for (const { guest, kept } of this.#left.splice(0)) {
      if (kept !== null) {
        this.faults.push(...(await guest.judge(kept)))
        await rm(kept, { force: true })
      } else await guest.abandon()
    }
  }

  /** Ends the guest in order, opens it on another host, checks all that was known, and closes it. */
  async finish(other: PoolHost): Promise<void> {
    await this.guest.stop()
    await closeVolume(this.#host, this.volume)
    this.#attached.delete(this.#host)
    this.#host = other
    const address = await openVolume(other, this.volume)
    await this.guest.checkAll(address, this.#takePowerLoss())
    await closeVolume(other, this.volume)
  }

  /** What went wrong since this was asked last, as sentences. */
  takeFaults(): string[] {
    return [...this.faults.splice(0), ...this.guest.takeFaults()].map(
      fault => `volume ${this.index}: ${fault}`
    )
  }

  async dispose(): Promise<void> {
    await this.guest.kill()
    for (const { guest } of this.#left) await guest.abandon()
  }

  /** Keeps the volume as the new primary found it, to judge by it what the guest of the old one was told. */
  async #replaced(left: LeftBehind, old: PoolHost): Promise<void> {
    await left.replaced()
    // After a loss of all power the new primary owes the old guest less than it was told.
    const kept = this.#powerLost ? null : join(this.#lab.directory, `kept-${this.volume.key}-${this.#kept++}`)
    this.#left.push({ guest: left, host: old, kept })
    if (kept !== null) await keepVolume(this.#address!, kept)
    if (this.guest instanceof LoadGuest) await this.guest.continueElsewhere()
  }

  async #begin(): Promise<void> {
    await this.guest.begin(this.#address!, this.#takePowerLoss())
  }

  #takePowerLoss(): boolean {
    const lost = this.#powerLost
    this.#powerLost = false
    return lost
  }
}

function guestOf(lab: TestLab, plan: VolumePlan, { key, size }: PoolVolume, seed: number): Guest {
  const path = join(lab.directory, `guest-${key}`)
  return plan.guest === 'load' ? new LoadGuest(plan, path, seed) : new ForeignGuest(size, path, seed)
}

async function readOnce({ socket, exportName }: NbdAddress): Promise<void> {
  const disk = await connectDisk({ socket, exportName })
  try {
    await within('the first read', OPEN_PATIENCE_MS, disk.read(byteOffset(0), Buffer.alloc(4096)))
  } finally {
    await disk.close()
  }
}
