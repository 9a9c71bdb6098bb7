/**
 * What disks do worse than being slow or silent. For a time they are full, they answer with errors, or the file system
 * with the store is not mounted: that passes, so it strikes anybody at any time.
 *
 * What takes a replica for good (its files, the whole store, the disk, its metadata) strikes only while all others of the
 * volume are in-sync and well: all but one may be lost, and nobody could know which one is not to be given up meanwhile.
 * A disk that wears out is replaced only when no record relies on it any more.
 */
import { replicasOf } from '../../core/mirror/volume-change.ts'
import { type FaultSchedule } from './faults.ts'
import { SECTOR_BYTES } from './history.ts'
import { type DiskCall, systemError } from './disk-call.ts'
import { PAGE_BYTES } from './simulated-file.ts'
import { type SimulatedHost } from './simulated-host.ts'
import { mapFileOf, metadataFileOf, rawFileOf, type SimulatedVolume } from './simulated-volume.ts'
import { type Universe } from './universe.ts'
import { type SeededRandom } from './world.ts'

export type DiskFaultKind =
  | 'disk full'
  | 'disk fails'
  | 'syncs fail'
  | 'maps cannot be written'
  | 'bad sectors'
  | 'replica lost'
  | 'store lost'
  | 'disk wears out'
  | 'metadata rot'
  | 'data rot'
  | 'store not mounted'

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
const SYNCS: readonly DiskCall[] = ['sync', 'syncDirectory']
/** What a disk does for names. Closing cannot fail in a way that keeps a file open. */
const NAMES: readonly DiskCall[] = ['open', 'list', 'makeDirectory', 'rename', 'remove', 'stat', 'space']

const CHOICES: readonly (readonly DiskCall[])[] = [READS, WRITES, NAMES, [...READS, ...NAMES]]
const SUFFIXES = ['.raw', '.raw', '.map', '.live', 'replica', '']
/** What a replica knows of its data. It vouches for nothing any more once it could not write one of them. */
const KEPT = ['.map', '.live', 'replica']

/** Where the second copy of a replica's metadata begins in its file, in bytes. */
const SLOT_BYTES = 65_536
/** How long something that is to be lost waits for a moment at which it may be, in milliseconds. */
const LOSS_PATIENCE_MS = 15_000
/** A host whose files are gone is back by then, in milliseconds. */
const LONGEST_RESTART_MS = 3_000

/** The end of a name: the ids before it say little. */
const briefly = (name: string): string => name.slice(-8)

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
      case 'syncs fail':
        return this.#failSome(host, SYNCS, this.#random.pick(SUFFIXES), forMs)
      case 'maps cannot be written':
        return this.#failSome(host, WRITES, this.#random.pick(KEPT), forMs)
      case 'bad sectors':
        return this.#spoilSectors(host, forMs)
      case 'replica lost':
        return this.#lose(host, forMs, volume => this.#removeFiles(host, volume))
      case 'metadata rot':
        return this.#lose(host, forMs, volume => this.#rotMetadata(host, volume))
      case 'store lost':
        return this.#loseStore(host, forMs)
      case 'disk wears out':
        return this.#wearOut(host, forMs)
      case 'data rot':
        this.#rotData(host)
        return
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
    await this.#failSome(host, calls, calls === WRITES ? '.raw' : this.#random.pick(SUFFIXES), forMs)
  }

  async #failSome(
    host: SimulatedHost,
    calls: readonly DiskCall[],
    suffix: string,
    forMs: number
  ): Promise<void> {
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
    host.disk.fault = (call, name, bytes) => this.#meet(host, defects, call, name, bytes)
    await world.pause(forMs)
    if (defects.delete(defect)) this.#isMended(defect)
    if (defects.size > 0) return
    host.disk.fault = undefined
    host.disturbedAt = world.now
  }

  #meet(
    host: SimulatedHost,
    defects: Set<Defect>,
    call: DiskCall,
    name: string,
    bytes?: { from: number; to: number }
  ): void {
    for (const defect of defects) {
      if (call === 'write' && defect.range !== null && name.startsWith(defect.prefix)) {
        // A read that was refused before this is given up with the next look.
        this.#isMended({ ...defect, range: { ...defect.range } })
        mend(defect.range, bytes!)
      }
      if (!meets(defect, call, name, bytes)) continue
      defect.left--
      if (defect.left === 0) defects.delete(defect)
      this.#faults.count(`EIO of ${call}`)
      const isLoss = call === 'sync' || (WRITES.includes(call) && !name.endsWith('.raw'))
      const volume = this.#universe.volumes.find(({ key }) => name.startsWith(`volumes/${key}/`))
      if (isLoss && volume !== undefined) host.failedToKeep(volume.key)
      throw systemError('EIO', call, name)
    }
  }

  // -- lost ---------------------------------------------------------------------------------------------------------------

  /** A host's process ends, and when the next one starts something is gone of its replica of one volume. */
  async #lose(host: SimulatedHost, forMs: number, strike: (volume: SimulatedVolume) => void): Promise<void> {
    const volume = this.#random.pick(this.#universe.volumes)
    if (!(await this.#whenSpared(host, [volume]))) return
    host.crash()
    strike(volume)
    await this.#startLater(host, forMs)
  }

  /** The whole disk is another one, and empty. */
  async #loseStore(host: SimulatedHost, forMs: number): Promise<void> {
    const { pool, volumes } = this.#universe
    // In a pool xosand makes stores, and an administrator would have to have it make this one.
    if (pool !== null) return this.#lose(host, forMs, volume => this.#removeFiles(host, volume))
    const held = volumes.filter(volume => this.#holdersOf(volume).includes(host))
    if (!(await this.#whenSpared(host, held))) return
    this.#replaceDisk(host)
    // Somebody else has filled the new one.
    if (this.#random.chance(0.4)) void this.#fill(host, forMs + LONGEST_RESTART_MS)
    await this.#startLater(host, forMs)
  }

  /** Every call fails until the record relies on the host for nothing any more; then the disk is replaced. */
  async #wearOut(host: SimulatedHost, forMs: number): Promise<void> {
    const { pool, world } = this.#universe
    if (pool !== null) return
    const calls = new Set([...READS, ...WRITES, ...SYNCS, ...NAMES])
    const defect = { calls, prefix: '', suffix: '', range: null, left: Infinity }
    const limit = world.now + LOSS_PATIENCE_MS
    const isOver = this.#withDefect(host, defect, LOSS_PATIENCE_MS)
    while (!this.#faults.over && world.now < limit && this.#isReliedOn(host)) await world.pause(50)
    if (this.#faults.over || world.now >= limit || this.#isReliedOn(host) || host.process === null)
      return isOver
    this.#replaceDisk(host)
    this.#defects.get(host)?.delete(defect)
    await this.#startLater(host, forMs)
  }

  #replaceDisk(host: SimulatedHost): void {
    this.#faults.count('lost: a disk with all that is on it')
    host.crash()
    for (const volume of this.#universe.volumes) this.#universe.losses.ofReplica(volume, host)
    host.replaceDisk()
  }

  async #startLater(host: SimulatedHost, forMs: number): Promise<void> {
    await this.#universe.world.pause(Math.min(forMs, LONGEST_RESTART_MS))
    host.start()
  }

  /** Waits until all other replicas of volumes are certain to stay; false if that does not come to be. */
  async #whenSpared(host: SimulatedHost, volumes: readonly SimulatedVolume[]): Promise<boolean> {
    const { world } = this.#universe
    const limit = world.now + LOSS_PATIENCE_MS
    while (!this.#faults.over && world.now < limit) {
      if (host.process !== null && volumes.every(volume => this.#canSpare(volume, host))) return true
      await world.pause(7)
    }
    return false
  }

  /** Whether this host has a replica, and all others of the volume are in-sync and well, and nobody wants the volume. */
  #canSpare(volume: SimulatedVolume, host: SimulatedHost): boolean {
    const state = this.#universe.stateOf(volume)
    const others = replicasOf(state).filter(replica => replica.host !== host.id)
    if (others.length === 0 || others.length === replicasOf(state).length) return false
    // One that is lost the record may trust for long: its primary may be cut off, or not reach the coordinator.
    const { losses } = this.#universe
    if (others.some(({ inSync, replica }) => !inSync || losses.replicas.has(replica))) return false
    if (state.reserved.epoch !== state.epoch) return false
    const primary = this.#universe.hosts.find(({ id }) => id === state.primary)
    const mirror = primary?.running === true ? primary.node!.volume(volume.key)?.mirror : null
    if (mirror == null || mirror.phase !== 'serving' || mirror.epoch() !== state.epoch) return false
    if (mirror.replicas().some(replica => replica.host !== host.id && replica.trouble !== null)) return false
    return this.#holdersOf(volume).every(other => other === host || this.#isWell(other))
  }

  #isWell({ disk, diskHangs, running, storeIsMissing }: SimulatedHost): boolean {
    return running && !diskHangs && !storeIsMissing && disk.fault === undefined && disk.capacity === Infinity
  }

  /** Whether some record counts on what a host holds, or is about to. */
  #isReliedOn(host: SimulatedHost): boolean {
    return this.#universe.volumes.some(volume => {
      const state = this.#universe.stateOf(volume)
      const isInSync = replicasOf(state).some(replica => replica.host === host.id && replica.inSync)
      return isInSync || state.reserved.epoch !== state.epoch
    })
  }

  #removeFiles(host: SimulatedHost, volume: SimulatedVolume): void {
    const directory = `volumes/${volume.key}`
    const names = [...host.disk.names.keys()].filter(name => name.startsWith(`${directory}/`))
    if (names.length === 0) return
    const gone = this.#random.chance(0.4) ? names : [this.#random.pick(names)]
    this.#tell(host, `has lost ${gone.map(briefly).join(' ')}`)
    this.#faults.count(`lost: ${gone.length === names.length ? 'all files' : 'a file'} of a replica`)
    this.#universe.losses.ofReplica(volume, host)
    host.disk.changeNames(directory, all => {
      for (const name of gone) all.delete(name)
    })
    host.disk.syncNames(directory)
  }

  // -- other bytes --------------------------------------------------------------------------------------------------------

  /** Bits are others in what is read whenever a replica is opened: it is found out at once, and not when it is the last. */
  #rotMetadata(host: SimulatedHost, volume: SimulatedVolume): void {
    const [kind, file, places] = this.#random.pick([
      [
        'one copy of what a replica says of itself',
        metadataFileOf(volume),
        [this.#random.pick([0, SLOT_BYTES])],
      ],
      ['both copies of what a replica says of itself', metadataFileOf(volume), [0, SLOT_BYTES]],
      ['the head of a map', mapFileOf(volume), [0]],
      ['write intents', mapFileOf(volume), [PAGE_BYTES]],
    ] as const)
    if (!host.disk.names.has(file)) return
    this.#tell(host, `has other bits in ${briefly(file)}: ${kind}`)
    this.#faults.count(`rot: ${kind}`)
    if (!kind.startsWith('one copy')) this.#universe.losses.ofReplica(volume, host)
    for (const at of places) host.disk.damage(file, at + this.#random.below(100))
  }

  /** A bit of a guest's data is another one. Nothing can notice that, and nobody has promised to: it is only counted. */
  #rotData(host: SimulatedHost): void {
    const volume = this.#random.pick(this.#universe.volumes)
    const file = rawFileOf(volume)
    const inode = host.disk.names.get(file)
    const sector = this.#random.pick(volume.hotSectors) + this.#random.below(64)
    if (inode === undefined || inode === 'directory' || !inode.holds(sector * SECTOR_BYTES)) return
    this.#tell(host, `has another bit in sector ${sector} of ${briefly(file)}`)
    this.#faults.count('rot: a bit of data')
    volume.history.exempt.add(sector)
    host.disk.damage(file, sector * SECTOR_BYTES + this.#random.below(SECTOR_BYTES))
  }

  #tell(host: SimulatedHost, what: string): void {
    this.#universe.world.log('FAULT', `${host.name} ${what}`)
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
