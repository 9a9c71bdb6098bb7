/**
 * What disks do worse than being slow or silent, for a time: they are full, they answer with errors, or the file system
 * with the store is not mounted. Nothing is lost by it, so it strikes anybody at any time.
 */
import { replicasOf } from '../../core/mirror/volume-change.ts'
import { type FaultSchedule } from './faults.ts'
import { SECTOR_BYTES } from './history.ts'
import { type DiskCall, systemError } from './simulated-disk.ts'
import { PAGE_BYTES } from './simulated-file.ts'
import { type SimulatedHost } from './simulated-host.ts'
import { rawFileOf, type SimulatedVolume } from './simulated-volume.ts'
import { type Universe } from './universe.ts'
import { type SeededRandom } from './world.ts'

export type DiskFaultKind = 'disk full' | 'disk fails' | 'bad sectors' | 'store not mounted'

/** Something that makes calls of a disk fail with EIO. */
interface Defect {
  readonly calls: ReadonlySet<DiskCall>
  /** How the names of the files begin and end that are concerned. */
  readonly prefix: string
  readonly suffix: string
  /** The bytes that are concerned; null for all. A write gives them other sectors, and mends them by that. */
  range: { from: number; to: number } | null
  /** Calls that it will still meet. */
  left: number
}

const READS: readonly DiskCall[] = ['read']
const WRITES: readonly DiskCall[] = ['write', 'punch', 'reserve', 'resize']
/** What a disk does for names. Closing cannot fail in a way that keeps a file open. */
const NAMES: readonly DiskCall[] = ['open', 'list', 'makeDirectory', 'rename', 'remove', 'stat', 'space']

const CHOICES: readonly (readonly DiskCall[])[] = [READS, WRITES, NAMES, [...READS, ...NAMES]]
const SUFFIXES = ['.raw', '.raw', '.map', '.live', 'replica', '']

/** A read that was refused is given up with the second look after that, in milliseconds. */
const LATE_MS = 2_000

export class DiskFaults {
  readonly #universe: Universe
  readonly #faults: FaultSchedule
  readonly #random: SeededRandom
  readonly #defects = new Map<SimulatedHost, Set<Defect>>()
  /** What was there until a moment ago: who met it last may say so now. */
  readonly #mended = new Set<Defect>()

  constructor(universe: Universe, faults: FaultSchedule) {
    this.#universe = universe
    this.#faults = faults
    this.#random = universe.world.random.fork()
  }

  /** Brings a fault upon a host, and takes it away after a time in milliseconds. */
  async strike(kind: DiskFaultKind, host: SimulatedHost, forMs: number): Promise<void> {
    switch (kind) {
      case 'disk full':
        return this.#fill(host, forMs)
      case 'disk fails':
        return this.#fail(host, forMs)
      case 'bad sectors':
        return this.#spoilSectors(host, forMs)
      case 'store not mounted':
        return this.#unmount(host, forMs)
    }
  }

  /** Every disk is well: space is freed, what failed is replaced. */
  heal(): void {
    for (const defects of this.#defects.values()) for (const defect of defects) this.#isMended(defect)
    this.#defects.clear()
    for (const host of this.#universe.hosts) {
      host.disk.capacity = Infinity
      host.disk.fault = undefined
      host.storeIsMissing = false
      host.disturbedAt = this.#universe.world.now
    }
  }

  #isMended(defect: Defect): void {
    this.#mended.add(defect)
    this.#universe.world.after(LATE_MS, () => this.#mended.delete(defect))
  }

  /** Whether some disk cannot read a sector now: then a guest may be told so, if no other replica can. */
  cannotRead(volume: SimulatedVolume, first: number, end: number): boolean {
    const file = rawFileOf(volume)
    const [from, to] = [first * SECTOR_BYTES, end * SECTOR_BYTES]
    return [this.#mended, ...this.#defects.values()].some(defects =>
      [...defects].some(defect => meets(defect, 'read', file, { from, to }))
    )
  }

  /** A host's disk cannot read the places that guests of a volume like. */
  async spoilPlaces(host: SimulatedHost, volume: SimulatedVolume, forMs: number): Promise<void> {
    const defects = volume.hotSectors.map(sector => {
      const range = { from: sector * SECTOR_BYTES, to: (sector + 24) * SECTOR_BYTES }
      return { calls: new Set(READS), prefix: rawFileOf(volume), suffix: '', range, left: Infinity }
    })
    await Promise.all(defects.map(async defect => this.#withDefect(host, defect, forMs)))
  }

  // -- full ---------------------------------------------------------------------------------------------------------------

  async #fill(host: SimulatedHost, forMs: number): Promise<void> {
    const { hosts, world } = this.#universe
    const how = this.#random.fraction()
    const holders = this.#holdersOf(this.#random.pick(this.#universe.volumes))
    const hit = how < 0.5 ? [host] : how < 0.8 ? holders : this.#random.shuffled(hosts).slice(1)
    await Promise.all(
      hit.map(async each => {
        if (each.disk.capacity !== Infinity) return
        // Nearly full: what comes first still fits.
        const room = this.#random.pick([0, 0, 1 + this.#random.below(4), 1 + this.#random.below(64)])
        this.#faults.count(room === 0 ? 'disk full: no page left' : 'disk full: nearly')
        world.log('FAULT', `disk of ${each.name} has ${room} pages left`)
        each.disk.capacity = each.disk.used + room * PAGE_BYTES
        await world.pause(forMs * this.#random.between(0.5, 1))
        world.log('FAULT', `space is freed on ${each.name}`)
        each.disk.capacity = Infinity
        each.disturbedAt = world.now
      })
    )
  }

  // -- errors -------------------------------------------------------------------------------------------------------------

  async #fail(host: SimulatedHost, forMs: number): Promise<void> {
    const calls = this.#random.pick(CHOICES)
    // A map that cannot be written counts as a loss of what was not durable, as a failed sync does: not struck yet.
    const suffix = calls === WRITES ? '.raw' : this.#random.pick(SUFFIXES)
    const left = this.#random.chance(0.5) ? 1 + this.#random.below(3) : Infinity
    this.#faults.count(`disk fails: ${calls[0]!}${left < Infinity ? ', a few calls' : ''}`)
    await this.#withDefect(host, { calls: new Set(calls), prefix: '', suffix, range: null, left }, forMs)
  }

  async #spoilSectors(host: SimulatedHost, forMs: number): Promise<void> {
    const volume = this.#random.pick(this.#universe.volumes)
    const sector = this.#random.pick(volume.hotSectors) + this.#random.below(8)
    const range = { from: sector * SECTOR_BYTES, to: (sector + 1 + this.#random.below(16)) * SECTOR_BYTES }
    const defect = { calls: new Set(READS), prefix: rawFileOf(volume), suffix: '', range, left: Infinity }
    await this.#withDefect(host, defect, 2 * forMs)
  }

  async #withDefect(host: SimulatedHost, defect: Defect, forMs: number): Promise<void> {
    const { world } = this.#universe
    const where = defect.range === null ? '' : ` from byte ${defect.range.from} to ${defect.range.to}`
    world.log('FAULT', `${[...defect.calls].join()} of *${defect.suffix}${where} fails on ${host.name}`)
    const defects = this.#defects.get(host) ?? new Set()
    this.#defects.set(host, defects)
    defects.add(defect)
    host.disk.fault = (call, name, bytes) => this.#meet(defects, call, name, bytes)
    await world.pause(forMs)
    if (defects.delete(defect)) this.#isMended(defect)
    if (defects.size > 0) return
    host.disk.fault = undefined
    host.disturbedAt = world.now
  }

  #meet(defects: Set<Defect>, call: DiskCall, name: string, bytes?: { from: number; to: number }): void {
    for (const defect of defects) {
      if (call === 'write' && defect.range !== null && name.startsWith(defect.prefix))
        mend(defect.range, bytes!)
      if (!meets(defect, call, name, bytes)) continue
      defect.left--
      if (defect.left === 0) defects.delete(defect)
      this.#faults.count(`EIO of ${call}`)
      throw systemError('EIO', call, name)
    }
  }

  // -- away -----------------------------------------------------------------------------------------------------------------

  /** The store is not there when the process starts, and comes later as it was. */
  async #unmount(host: SimulatedHost, forMs: number): Promise<void> {
    const { world } = this.#universe
    if (host.process === null) return
    host.crash()
    host.storeIsMissing = true
    await world.pause(this.#random.between(20, 1_000))
    host.start()
    await world.pause(forMs)
    host.storeIsMissing = false
    host.disturbedAt = world.now
  }

  #holdersOf(volume: SimulatedVolume): SimulatedHost[] {
    const { hosts } = this.#universe
    return replicasOf(this.#universe.stateOf(volume)).map(({ host }) => hosts.find(({ id }) => id === host)!)
  }
}

function meets(
  { calls, prefix, suffix, range }: Defect,
  call: DiskCall,
  name: string,
  bytes?: { readonly from: number; readonly to: number }
): boolean {
  if (!calls.has(call) || !name.startsWith(prefix) || !name.endsWith(suffix)) return false
  return range === null || (bytes !== undefined && bytes.from < range.to && range.from < bytes.to)
}

/** Takes what was written out of a range of bad sectors; the middle of one goes as a whole. */
function mend(
  range: { from: number; to: number },
  written: { readonly from: number; readonly to: number }
): void {
  if (written.from >= range.to || range.from >= written.to) return
  if (written.from > range.from) range.to = written.from
  else range.from = Math.min(written.to, range.to)
}
