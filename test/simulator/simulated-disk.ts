import { type Disk, type DiskFile } from '../../core/ports/disk.ts'
import { type Random } from '../../core/ports/random.ts'
import { type ByteLength } from '../../core/units.ts'
import { type ByteRange, type CallDetails, type DiskCall, systemError } from './disk-call.ts'
import { PAGE_BYTES, SimulatedInode } from './simulated-file.ts'
import { SimulatedFile } from './simulated-open-file.ts'

export interface SimulatedDiskOptions {
  /** Decides what a power cut keeps and which calls a crash lets through. */
  readonly random: Random
  /** Waits as long as a call takes; called once before and once after its effect. Without it calls end at once. */
  readonly delay?: (call: DiskCall, name: string) => Promise<void>
  /** Space of the disk in bytes; writes beyond it fail with ENOSPC. */
  readonly capacity?: number
  /**
   * A power cut may leave new pages of a file showing what their blocks held before, as ext4 does with
   * data=writeback. By default they show zeros, as on XFS and on ext4 as it comes.
   */
  readonly exposesStaleBlocks?: boolean
}

/** A new name, or a name that goes; what a power cut may undo until the directory is synced. */
interface DirectoryChange {
  readonly directory: string
  apply(names: Map<string, SimulatedInode | 'directory'>): void
}

type Names = Map<string, SimulatedInode | 'directory'>

/** What a disk without a limit says of its space, in bytes. */
const SPACE_WITHOUT_LIMIT = 2 ** 50

/**
 * A host's disk in memory, with everything that real ones do to un-synced writes. `mount` gives a process its view;
 * that process's death (`crash`) and the host's (`powerCut`) leave what they would leave.
 *
 * Faults that it can produce: EIO on chosen calls, ENOSPC (with as much written as there was room for), slowness
 * (through `delay`), un-synced writes lost, kept or torn at sectors in any mixture, new pages that show what their blocks
 * held before, un-synced names lost, damaged bytes, calls under way that have or have not happened when their process
 * dies. It does not reorder what one sync has covered against what came after it.
 */
export class SimulatedDisk {
  readonly random: Random
  capacity: number
  readonly #exposesStaleBlocks: boolean
  /**
   * Called before each call takes effect; throw from it what the call shall fail with. A write may have had a part of its
   * effect then.
   */
  fault: ((call: DiskCall, name: string, range?: ByteRange) => void) | undefined
  /** Called after a write has had its effect, or a part of it. */
  written: ((name: string) => void) | undefined
  readonly delay: ((call: DiskCall, name: string) => Promise<void>) | undefined
  #names: Names = new Map()
  #durableNames: Names = new Map()
  #unsyncedNames: DirectoryChange[] = []
  readonly #mounts = new Set<SimulatedMount>()

  constructor(options: SimulatedDiskOptions) {
    this.random = options.random
    this.capacity = options.capacity ?? Infinity
    this.delay = options.delay
    this.#exposesStaleBlocks = options.exposesStaleBlocks ?? false
  }

  /** The disk as one process sees it. */
  mount(): SimulatedMount {
    const mount = new SimulatedMount(this)
    this.#mounts.add(mount)
    return mount
  }

  /** The host loses power: every process on it ends, and what was not synced is kept, lost or torn. */
  powerCut(): void {
    for (const mount of this.#mounts) mount.crash()
    // Each directory keeps some number of its changes, from the oldest: POSIX promises no more than their order.
    for (const directory of new Set(this.#unsyncedNames.map(change => change.directory))) {
      const changes = this.#unsyncedNames.filter(change => change.directory === directory)
      const kept = Math.floor(this.random.fraction() * (changes.length + 1))
      for (const change of changes.slice(0, kept)) change.apply(this.#durableNames)
    }
    this.#unsyncedNames = []
    this.#names = new Map(this.#durableNames)
    for (const name of this.#names.keys()) if (!this.#isReachable(name)) this.#names.delete(name)
    this.#durableNames = new Map(this.#names)
    for (const inode of this.#names.values()) {
      if (inode === 'directory') continue
      if (this.#exposesStaleBlocks) inode.exposeStaleBlocks(this.random)
      inode.cutPower(this.random)
    }
  }

  /** Flips a bit of a file, as a failing medium does. */
  damage(name: string, position: number): void {
    this.inode(name, 'damage').damage(position)
  }

  /** The medium is replaced by an empty one, with no process at it. */
  wipe(): void {
    for (const mount of this.#mounts) mount.crash()
    this.#names = new Map()
    this.#durableNames = new Map()
    this.#unsyncedNames = []
  }

  /** The content of a file as the page cache shows it. @throws ENOENT */
  contentOf(name: string): Uint8Array {
    const inode = this.inode(name, 'open')
    const content = new Uint8Array(inode.size)
    inode.read(content, 0)
    return content
  }

  /** The sectors in which a file shows other bytes than on another disk, in no order. @throws ENOENT */
  differingSectors(name: string, other: SimulatedDisk): number[] {
    return this.inode(name, 'open').sectorsDifferingFrom(other.inode(name, 'open'))
  }

  /** Pages that can still be taken. */
  get freePages(): number {
    return this.capacity === Infinity ? Infinity : Math.floor((this.capacity - this.used) / PAGE_BYTES)
  }

  /** Space that files take, in bytes. */
  get used(): number {
    let pages = 0
    for (const inode of this.#names.values()) if (inode !== 'directory') pages += inode.allocatedPages
    return pages * PAGE_BYTES
  }

  /** Names of files and directories. Changed only through `changeNames`. */
  get names(): ReadonlyMap<string, SimulatedInode | 'directory'> {
    return this.#names
  }

  inode(name: string, call: string): SimulatedInode {
    const found = this.#names.get(name)
    if (found === undefined) throw systemError('ENOENT', call, name)
    if (found === 'directory') throw systemError('EISDIR', call, name)
    return found
  }

  changeNames(directory: string, apply: (names: Names) => void): void {
    apply(this.#names)
    this.#unsyncedNames.push({ directory, apply })
  }

  syncNames(directory: string): void {
    for (const change of this.#unsyncedNames) {
      if (change.directory === directory) change.apply(this.#durableNames)
    }
    this.#unsyncedNames = this.#unsyncedNames.filter(change => change.directory !== directory)
  }

  /** Whether a file would have its name after a power cut now. */
  hasDurably(name: string): boolean {
    const inode = this.#names.get(name)
    return inode !== undefined && this.#durableNames.get(name) === inode && this.#hasDurableParents(name)
  }

  #hasDurableParents(name: string): boolean {
    const parent = parentOf(name)
    return (
      parent === '' || (this.#durableNames.get(parent) === 'directory' && this.#hasDurableParents(parent))
    )
  }

  /** False for what lies in a directory whose own name was lost. */
  #isReachable(name: string): boolean {
    const parent = parentOf(name)
    return parent === '' || (this.#names.get(parent) === 'directory' && this.#isReachable(parent))
  }

  unmount(mount: SimulatedMount): void {
    this.#mounts.delete(mount)
    for (const inode of this.#names.values()) {
      if (
        inode !== 'directory' &&
        inode.lockHolder instanceof SimulatedFile &&
        inode.lockHolder.mount === mount
      ) {
        inode.lockHolder = null
      }
    }
  }
}

/** The parent directory of a name; '' is the store's own directory. */
const parentOf = (name: string): string => name.slice(0, Math.max(name.lastIndexOf('/'), 0))

interface Effect {
  readonly happen: () => unknown
  readonly interrupted: (() => void) | undefined
}

/** Does what a call would do of which nobody hears how it ended. */
function attempt(action: () => unknown): void {
  try {
    action()
  } catch {
    // It fails, and nobody hears of that either.
  }
}

/** One process's view of a disk. After its crash, calls made before and after never settle. */
export class SimulatedMount implements Disk {
  readonly disk: SimulatedDisk
  #dead = false
  /** Effects of calls under way that a crash may or may not let happen. */
  readonly #underWay = new Set<Effect>()

  constructor(disk: SimulatedDisk) {
    this.disk = disk
  }

  get isDead(): boolean {
    return this.#dead
  }

  /** The process dies (SIGKILL): the page cache stays, its locks go, each of its calls under way happens or not. */
  crash(): void {
    if (this.#dead) return
    this.#dead = true
    for (const { happen, interrupted } of this.#underWay) {
      if (this.disk.random.fraction() >= 0.5) continue
      attempt(interrupted ?? happen)
    }
    this.#underWay.clear()
    this.disk.unmount(this)
  }

  /**
   * Runs a call: a wait, its effect, a wait. Never settles once the process is dead.
   */
  async call<Result>(
    kind: DiskCall,
    name: string,
    happen: () => Result,
    details: CallDetails = {}
  ): Promise<Result> {
    const { interrupted } = details
    if (this.#dead) return new Promise<never>(() => undefined)
    const { delay } = this.disk
    if (delay !== undefined) {
      const effect: Effect = { happen, interrupted }
      this.#underWay.add(effect)
      await delay(kind, name)
      this.#underWay.delete(effect)
      if (this.isDead) return new Promise<never>(() => undefined)
    }
    this.#meetFault(kind, name, details)
    const result = happen()
    if (delay !== undefined) {
      await delay(kind, name)
      if (this.isDead) return new Promise<never>(() => undefined)
    }
    return result
  }

  #meetFault(kind: DiskCall, name: string, { interrupted, range }: CallDetails): void {
    try {
      this.disk.fault?.(kind, name, range)
    } catch (error) {
      if (interrupted !== undefined && this.disk.random.fraction() < 0.5) attempt(interrupted)
      throw error
    }
  }

  open(name: string, create: boolean | 'exclusive'): Promise<DiskFile> {
    return this.call('open', name, () => {
      const { disk } = this
      const found = disk.names.get(name)
      if (found === 'directory') throw systemError('EISDIR', 'open', name)
      if (found !== undefined) {
        if (create === 'exclusive') throw systemError('EEXIST', 'open', name)
        return new SimulatedFile(this, found, name)
      }
      if (create === false) throw systemError('ENOENT', 'open', name)
      this.#requireDirectory(parentOf(name), 'open', name)
      this.#requirePage('open', name)
      const inode = new SimulatedInode()
      disk.changeNames(parentOf(name), names => names.set(name, inode))
      return new SimulatedFile(this, inode, name)
    })
  }

  list(directory: string): Promise<string[]> {
    return this.call('list', directory, () =>
      [...this.disk.names.keys()]
        .filter(name => name !== '' && parentOf(name) === directory)
        .map(name => name.slice(directory === '' ? 0 : directory.length + 1))
        .sort()
    )
  }

  makeDirectory(directory: string): Promise<void> {
    return this.call('makeDirectory', directory, () => {
      const parts = directory.split('/')
      for (let depth = 1; depth <= parts.length; depth += 1) {
        const name = parts.slice(0, depth).join('/')
        if (name === '' || this.disk.names.get(name) === 'directory') continue
        if (this.disk.names.has(name)) throw systemError('ENOTDIR', 'mkdir', name)
        this.#requirePage('mkdir', name)
        this.disk.changeNames(parentOf(name), names => names.set(name, 'directory'))
      }
    })
  }

  rename(from: string, to: string): Promise<void> {
    return this.call('rename', from, () => {
      const inode = this.disk.inode(from, 'rename')
      if (parentOf(from) !== parentOf(to)) throw systemError('EXDEV', 'rename', from)
      this.disk.changeNames(parentOf(from), names => {
        names.delete(from)
        names.set(to, inode)
      })
    })
  }

  remove(name: string): Promise<void> {
    return this.call('remove', name, () => {
      const found = this.disk.names.get(name)
      if (found === undefined) return
      if (found === 'directory' && [...this.disk.names.keys()].some(other => parentOf(other) === name)) {
        throw systemError('ENOTEMPTY', 'rmdir', name)
      }
      this.disk.changeNames(parentOf(name), names => names.delete(name))
    })
  }

  syncDirectory(directory: string): Promise<void> {
    return this.call('syncDirectory', directory, () => {
      this.#requireDirectory(directory, 'fsync', directory)
      this.disk.syncNames(directory)
    })
  }

  space(): Promise<{ total: ByteLength; free: ByteLength }> {
    return this.call('space', '', () => ({
      total: Math.min(this.disk.capacity, SPACE_WITHOUT_LIMIT) as ByteLength,
      free: Math.max(Math.min(this.disk.capacity, SPACE_WITHOUT_LIMIT) - this.disk.used, 0) as ByteLength,
    }))
  }

  /** A new name takes a little space, too. */
  #requirePage(call: string, name: string): void {
    if (this.disk.freePages < 1) throw systemError('ENOSPC', call, name)
  }

  #requireDirectory(directory: string, call: string, name: string): void {
    if (directory !== '' && this.disk.names.get(directory) !== 'directory')
      throw systemError('ENOENT', call, name)
  }
}
