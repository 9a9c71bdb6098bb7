/**
 * What the guests of one volume did and saw, and whether a disk could have behaved so.
 *
 * Each 512-byte sector is a register. Every write has a number of its own, which it stamps into all sectors that it
 * covers, so a read says which write it saw. For registers with distinct values linearizability can be decided exactly
 * (Gibbons and Korach, "Testing shared memories", 1997): the operations on one value span a zone; a history is
 * linearizable if and only if no two forward zones overlap and no backward zone lies inside a forward one.
 *
 * Zeros are not distinct (many operations write them, and a new volume is full of them), so a read of zeros is held to
 * a weaker law: something that wrote zeros must not have been overwritten for certain before the read began.
 *
 * When every in-sync replica has lost power, un-flushed writes may be gone: there the history is split. What a
 * sector holds afterwards must be a value that could have survived, and the same one for everybody.
 */
import { REGION_BYTES } from '../../core/units.ts'

export const SECTOR_BYTES = 512

/** Value of a sector that was never written, or was zeroed. */
export const ZEROS = 0

export interface WriteEntry {
  readonly kind: 'write'
  /** Its number, or ZEROS. */
  readonly value: number
  readonly firstSector: number
  readonly endSector: number
  readonly invokedAt: number
  /** Infinity while nobody was told that it is done. */
  acknowledgedAt: number
  /** When it was certain to survive the loss of all power. */
  durableAt: number
  readonly tenure: number
  /** Name of the host that served it. */
  readonly host: string
  /** The guest asked for it to be durable when it is acknowledged. */
  readonly durable: boolean
  /**
   * It was under way when all power went, and need not be durable: if a replica had answered before that, it is
   * acknowledged on the word of that answer, and may be lost like those acknowledged before.
   */
  readonly doubtful?: boolean
}

/** From when on nobody may see what was there before; Infinity when that is not certain. */
const certainFrom = ({ doubtful, acknowledgedAt }: WriteEntry): number =>
  doubtful === true ? Infinity : acknowledgedAt

export interface ReadEntry {
  readonly kind: 'read'
  readonly sector: number
  readonly value: number
  readonly invokedAt: number
  readonly returnedAt: number
}

export class History {
  readonly #sectors: number
  #writes: WriteEntry[] = []
  #reads: ReadEntry[] = []
  #segmentStart = 0
  /** Values that each sector may hold at the start of the segment; undefined: only what the first segment has, zeros. */
  #survivors: Set<number>[] | undefined
  /** Where and when each tenure was first acknowledged a write. */
  readonly #firstAcknowledged = new Map<number, { readonly host: string; readonly at: number }>()
  readonly #writtenRegions = new Set<number>()
  /** Requests of the guests, of any kind. */
  requests = 0

  constructor(sectors: number) {
    this.#sectors = sectors
  }

  write(entry: WriteEntry): void {
    this.#writes.push(entry)
    const [first, last] = [entry.firstSector, entry.endSector - 1].map(sector =>
      Math.floor((sector * SECTOR_BYTES) / REGION_BYTES)
    )
    for (let region = first!; region <= last!; region++) this.#writtenRegions.add(region)
  }

  /** The regions that anybody ever wrote to. */
  writtenRegions(): readonly number[] {
    return [...this.#writtenRegions].sort((a, b) => a - b)
  }

  /** A write was acknowledged. @returns why that is wrong, or null */
  acknowledged(entry: WriteEntry, now: number): string | null {
    entry.acknowledgedAt = now
    for (const [tenure, { host, at }] of this.#firstAcknowledged) {
      if (tenure > entry.tenure && host !== entry.host) {
        return `P3: tenure ${entry.tenure} on ${entry.host} had a write acknowledged at ${now.toFixed(3)}, tenure ${tenure} on ${host} had one at ${at.toFixed(3)}`
      }
    }
    if (!this.#firstAcknowledged.has(entry.tenure)) {
      this.#firstAcknowledged.set(entry.tenure, { host: entry.host, at: now })
    }
    return null
  }

  /** A flush that began at this moment has succeeded: what was acknowledged before it is durable. */
  flushed(invokedAt: number, now: number): void {
    for (const write of this.#writes) {
      if (certainFrom(write) <= invokedAt && write.durableAt === Infinity) write.durableAt = now
    }
  }

  read(entry: ReadEntry): void {
    // A read that began before the power went may have seen either side.
    if (entry.invokedAt >= this.#segmentStart) this.#reads.push(entry)
  }

  /** Whether a loss of all power at this moment may cost a write that was acknowledged, or is about to be. */
  mayLose(moment: number): boolean {
    return this.#writes.some(
      ({ invokedAt, durableAt, durable, doubtful }) =>
        invokedAt < moment && durableAt === Infinity && !durable && doubtful !== true
    )
  }

  /** Un-flushed writes may be lost from here on. @returns what was wrong up to here */
  split(now: number): string[] {
    const problems = this.check()
    const survivors: Set<number>[] = []
    const writes = this.#writesBySector()
    for (let sector = 0; sector < this.#sectors; sector++) {
      survivors.push(this.#survivorsOf(sector, writes.get(sector) ?? []))
    }
    this.#survivors = survivors
    // What is under way may happen on either side.
    this.#writes = this.#writes
      .filter(({ acknowledgedAt }) => acknowledgedAt === Infinity)
      .map(write => ({ ...write, doubtful: !write.durable }))
    this.#reads = []
    this.#segmentStart = now
    return problems
  }

  /** The entry of the segment that stands for a write that was begun in an earlier one. */
  current(entry: WriteEntry): WriteEntry {
    return (
      this.#writes.find(
        other =>
          other.value === entry.value &&
          other.invokedAt === entry.invokedAt &&
          other.firstSector === entry.firstSector
      ) ?? entry
    )
  }

  #writesBySector(): Map<number, WriteEntry[]> {
    const bySector = new Map<number, WriteEntry[]>()
    for (const write of this.#writes) {
      for (let sector = write.firstSector; sector < write.endSector; sector++) {
        const list = bySector.get(sector)
        if (list === undefined) bySector.set(sector, [write])
        else list.push(write)
      }
    }
    return bySector
  }

  #survivorsOf(sector: number, covering: readonly WriteEntry[]): Set<number> {
    const possible = new Set<number>()
    const overwritten = (after: number): boolean =>
      covering.some(({ invokedAt, durableAt }) => durableAt !== Infinity && invokedAt > after)
    for (const { value, acknowledgedAt } of covering) if (!overwritten(acknowledgedAt)) possible.add(value)
    // Nothing durable covers it: whatever was there before may be there still.
    if (!covering.some(({ durableAt }) => durableAt !== Infinity)) {
      for (const value of this.#survivors?.[sector] ?? [ZEROS]) possible.add(value)
    }
    return possible
  }

  /** Everything that is wrong with the history since the last split; empty when nothing is. */
  check(): string[] {
    const problems: string[] = []
    const reads = new Map<number, ReadEntry[]>()
    for (const read of this.#reads) {
      const list = reads.get(read.sector)
      if (list === undefined) reads.set(read.sector, [read])
      else list.push(read)
    }
    const writes = this.#writesBySector()
    for (const [sector, list] of reads) {
      const problem = this.#checkSector(sector, list, writes.get(sector) ?? [])
      if (problem !== null) problems.push(problem)
    }
    return problems
  }

  #checkSector(sector: number, reads: readonly ReadEntry[], writes: readonly WriteEntry[]): string | null {
    const initial = this.#initialOf(sector, reads, writes)
    if (typeof initial === 'string') return initial
    const all = [...writes, initial]
    const clusters = new Map<number, { start: number; end: number; written: number }>()
    for (const write of all) {
      if (write.value === ZEROS) continue
      // A write that nobody was told of and nobody saw need not have happened.
      clusters.set(write.value, {
        start: write.invokedAt,
        end: certainFrom(write),
        written: write.invokedAt,
      })
    }
    for (const read of reads) {
      if (read.value === ZEROS) {
        if (!zerosPossible(read, all)) return `P1/P4: ${seen(read)}, but zeros were overwritten before`
        continue
      }
      const cluster = clusters.get(read.value)
      if (cluster === undefined) return `P1: ${seen(read)}, which was never written there`
      if (read.returnedAt < cluster.written) return `P4: ${seen(read)} before it was written`
      cluster.end = Math.min(cluster.end, read.returnedAt)
      cluster.start = Math.max(cluster.start, read.invokedAt)
    }
    return zonesConflict(sector, [...clusters])
  }

  /** The write that stands for what the sector held when the segment began. */
  #initialOf(
    sector: number,
    reads: readonly ReadEntry[],
    writes: readonly WriteEntry[]
  ): WriteEntry | string {
    const at = this.#segmentStart
    const entry = {
      kind: 'write' as const,
      firstSector: sector,
      endSector: sector + 1,
      invokedAt: at,
      acknowledgedAt: at,
      durableAt: at,
      durable: true,
      tenure: 0,
      host: '',
    }
    if (this.#survivors === undefined) return { ...entry, value: ZEROS }
    const written = new Set(writes.map(({ value }) => value))
    const possible = this.#survivors[sector]!
    const old = reads.filter(({ value }) => !written.has(value))
    const first = old.find(({ value }) => value !== ZEROS) ?? old[0]
    if (first === undefined) return { ...entry, value: possible.has(ZEROS) ? ZEROS : [...possible][0]! }
    if (!possible.has(first.value))
      return `P1: ${seen(first)}, after a power cut that it cannot have survived so`
    const other = old.find(({ value }) => value !== first.value)
    if (other !== undefined) return `P4: ${seen(first)} and ${seen(other)} after one power cut`
    return { ...entry, value: first.value }
  }
}

const seen = ({ sector, value, invokedAt, returnedAt }: ReadEntry): string =>
  `sector ${sector} read as ${value === ZEROS ? 'zeros' : `write ${value}`} from ${invokedAt.toFixed(3)} to ${returnedAt.toFixed(3)}`

function zerosPossible(read: ReadEntry, writes: readonly WriteEntry[]): boolean {
  return writes.some(
    zero =>
      zero.value === ZEROS &&
      zero.invokedAt <= read.returnedAt &&
      !writes.some(
        other =>
          other.value !== ZEROS && other.invokedAt > certainFrom(zero) && certainFrom(other) < read.invokedAt
      )
  )
}

type Cluster = [number, { readonly start: number; readonly end: number }]

function zonesConflict(sector: number, clusters: readonly Cluster[]): string | null {
  // `end`: the first moment at which an operation on the value had ended; `start`: the last at which one began.
  const forward = clusters.filter(([, { start, end }]) => end < start).sort((a, b) => a[1].end - b[1].end)
  for (let i = 1; i < forward.length; i++) {
    const [earlier, later] = [forward[i - 1]!, forward[i]!]
    if (later[1].end < earlier[1].start) {
      return `P4: sector ${sector} went from write ${earlier[0]} to write ${later[0]} and back`
    }
  }
  for (const [value, { start, end }] of clusters) {
    if (end < start || end === Infinity) continue
    const around = forward.find(([, zone]) => zone.end < start && end < zone.start)
    if (around !== undefined) {
      return `P1/P4: sector ${sector} was read as write ${around[0]} although write ${value} had replaced it`
    }
  }
  return null
}
