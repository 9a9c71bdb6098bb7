/**
 * What the guests of one volume did and saw, and whether a disk could have behaved so.
 *
 * Each 512-byte sector is a register. Every write has a number of its own, which it stamps into all sectors that it
 * covers, so a read says which write it saw (`linearizability.ts` decides).
 *
 * A loss of power may cost acknowledged writes that were not durable, when every host that held them lost it
 * (`durability.ts` says which these are). Only the history of the sectors that such a write covers is split there: what
 * they hold afterwards must be a value that could have survived, and the same one for everybody. All others go on.
 *
 * Two things that a plain register would allow are not allowed here. What was asked of a primary that is no more can
 * have happened only before the next one began to serve: a block that was in flight may hold the old or the new bytes,
 * but the same ones from then on. And what the guest of a later primary has read is there to stay, also when all power
 * goes after that.
 */
import { REGION_BYTES } from '../../core/units.ts'
import { type Operation, registerConflict, ZEROS } from './linearizability.ts'
import type { SimulatedHost } from './simulated-host.ts'

export { ZEROS } from './linearizability.ts'

export const SECTOR_BYTES = 512

/** A guest, as far as its requests tell. */
export interface Tenant {
  /** The epoch with which it began: who came later has a higher one. */
  readonly tenure: number
  /** The datapath process that serves it. */
  readonly process: object
  /** Name of the host that serves it. */
  readonly host: string
  readonly startedAt: number
}

export interface WriteEntry {
  readonly kind: 'write'
  /** Its number, or ZEROS. */
  readonly value: number
  readonly firstSector: number
  readonly endSector: number
  readonly invokedAt: number
  readonly tenant: Tenant
  /** The guest asked for it to be durable when it is acknowledged. */
  readonly durable: boolean
  /** Infinity while nobody was told that it is done. */
  acknowledgedAt: number
  /** When the guest could rely on it for good: it was told so, by this acknowledgement or by one of a flush. */
  durableAt: number
  /** Who held it when it was acknowledged: while one of them has not lost power it cannot be lost. */
  holders: readonly SimulatedHost[]
  /** Everybody who held it has lost power before it was durable. */
  mayBeLost: boolean
}

export interface ReadEntry {
  readonly kind: 'read'
  readonly sector: number
  readonly value: number
  readonly invokedAt: number
  readonly returnedAt: number
  readonly tenant: Tenant
}

/** From when on nobody may see what was there before; Infinity when that is not certain. */
const certainFrom = ({ mayBeLost, acknowledgedAt }: WriteEntry): number =>
  mayBeLost ? Infinity : acknowledgedAt

/** One sector. */
interface Register {
  /** When its history was split last; 0 at first. */
  splitAt: number
  /** Values that it may have had then. */
  survivors: ReadonlySet<number>
  /** Acknowledged before that, neither durable then nor lost. */
  resting: readonly WriteEntry[]
  /** Values that it may have when one of those is lost later. */
  beneath: ReadonlySet<number>
  writes: WriteEntry[]
  reads: ReadEntry[]
}

const ONLY_ZEROS: ReadonlySet<number> = new Set([ZEROS])

export class History {
  readonly #registers = new Map<number, Register>()
  readonly #tenants: Tenant[] = []
  /** Where and when each tenure was first acknowledged a write. */
  readonly #firstAcknowledged = new Map<number, { readonly host: string; readonly at: number }>()
  readonly #writtenRegions = new Set<number>()
  /** Sectors of which nothing can be said any more. */
  readonly exempt = new Set<number>()
  /** Requests of the guests, of any kind. */
  requests = 0

  /** Somebody begins to read and write. */
  begins(tenant: Tenant): void {
    this.#tenants.push(tenant)
  }

  write(entry: WriteEntry): void {
    for (let sector = entry.firstSector; sector < entry.endSector; sector++) {
      this.#register(sector).writes.push(entry)
    }
    const [first, last] = [entry.firstSector, entry.endSector - 1].map(sector =>
      Math.floor((sector * SECTOR_BYTES) / REGION_BYTES)
    )
    for (let region = first!; region <= last!; region++) this.#writtenRegions.add(region)
  }

  /** The regions that anybody ever wrote to. */
  writtenRegions(): readonly number[] {
    return [...this.#writtenRegions].sort((a, b) => a - b)
  }

  /** The sectors of a region that anybody ever wrote to, in order. */
  *writtenSectors(region: number): Generator<number> {
    const first = (region * REGION_BYTES) / SECTOR_BYTES
    for (let sector = first; sector < first + REGION_BYTES / SECTOR_BYTES; sector++) {
      if (this.#registers.has(sector)) yield sector
    }
  }

  /** A write was acknowledged. @returns why that is wrong, or null */
  acknowledged(entry: WriteEntry, now: number): string | null {
    entry.acknowledgedAt = now
    const { tenure: mine, host: here } = entry.tenant
    for (const [tenure, { host, at }] of this.#firstAcknowledged) {
      if (tenure > mine && host !== here) {
        return `P3: tenure ${mine} on ${here} had a write acknowledged at ${now.toFixed(3)}, tenure ${tenure} on ${host} had one at ${at.toFixed(3)}`
      }
    }
    if (!this.#firstAcknowledged.has(mine)) this.#firstAcknowledged.set(mine, { host: here, at: now })
    return null
  }

  /** @returns why what was read is wrong, as far as that is certain already; else null */
  read(entry: ReadEntry): string | null {
    if (this.exempt.has(entry.sector)) return null
    const register = this.#register(entry.sector)
    if (entry.invokedAt >= register.splitAt) {
      register.reads.push(entry)
      return null
    }
    // It began before the power went, and may have seen either side.
    const { survivors, writes } = register
    if (survivors.has(entry.value) || writes.some(({ value }) => value === entry.value)) return null
    return `P1: sector ${entry.sector} was read as ${entry.value} beside a loss of power that this value has not survived`
  }

  /**
   * Writes may be lost from here on.
   * @param sectors where that is so, and where it was so before and nobody has written since
   * @returns what was wrong up to here
   */
  split(lost: Iterable<WriteEntry>, sectors: Iterable<number>, now: number): string[] {
    const problems: string[] = []
    const registers: (readonly [number, Register])[] = []
    for (const sector of sectors) {
      const register = this.#registers.get(sector)
      if (register === undefined) continue
      registers.push([sector, register])
      const problem = this.#check(sector, register)
      if (problem !== null) problems.push(problem)
    }
    for (const write of lost) write.mayBeLost = true
    for (const [, register] of registers) {
      const isDurable = (write: WriteEntry): boolean => write.durableAt !== Infinity
      const isCertain = (write: WriteEntry): boolean => isDurable(write) || certainFrom(write) !== Infinity
      const [survivors, beneath] = [isCertain, isDurable].map(isThere => this.#survivorsOf(register, isThere))
      register.survivors = survivors!
      register.beneath = beneath!
      register.resting = [...register.writes, ...register.resting].filter(
        write => isCertain(write) && !isDurable(write)
      )
      // What is under way may happen on either side.
      register.writes = register.writes.filter(
        write => write.acknowledgedAt === Infinity && this.#effectBy(write) > now
      )
      register.reads = []
      register.splitAt = now
    }
    return problems
  }

  /** Everything that is wrong with the history since the last split of each sector; empty when nothing is. */
  check(): string[] {
    const problems: string[] = []
    for (const [sector, register] of this.#registers) {
      const problem = this.#check(sector, register)
      if (problem !== null) problems.push(problem)
    }
    return problems
  }

  #register(sector: number): Register {
    let register = this.#registers.get(sector)
    if (register === undefined) {
      register = {
        splitAt: 0,
        survivors: ONLY_ZEROS,
        resting: [],
        beneath: ONLY_ZEROS,
        writes: [],
        reads: [],
      }
      this.#registers.set(sector, register)
    }
    return register
  }

  /** By when a write had its effect, if it ever has one. */
  #effectBy(entry: WriteEntry): number {
    let by = certainFrom(entry)
    // When the next primary serves, whatever the last one was asked has happened or never will.
    for (const { tenure, process, startedAt } of this.#tenants) {
      if (tenure > entry.tenant.tenure && process !== entry.tenant.process) by = Math.min(by, startedAt)
    }
    return Math.max(by, entry.invokedAt)
  }

  /** Whether the guest that read this relies on it for good, although no write or flush said that it may. */
  #isSettled(read: ReadEntry, writes: readonly WriteEntry[], splitAt: number): boolean {
    const { tenant, value } = read
    const writer = writes.find(write => write.value === value && write.invokedAt <= read.returnedAt)
    if (writer === undefined) return tenant.startedAt >= splitAt
    return value !== ZEROS && writer.tenant.tenure < tenant.tenure && writer.tenant.process !== tenant.process
  }

  /** @param isThere whether a write is certain to stay */
  #survivorsOf(register: Register, isThere: (write: WriteEntry) => boolean): Set<number> {
    const { writes, reads, splitAt, resting } = register
    const initial = this.#initialOf(register)
    const settled = reads.filter(read => this.#isSettled(read, writes, splitAt))
    // What is certain to stay, and when it was there at the latest to begin with.
    const certain = [...writes.filter(isThere), ...settled]
    const overwritten = (after: number, value: number): boolean =>
      certain.some(other => other.invokedAt > after && (other.kind === 'write' || other.value !== value))
    const possible = new Set<number>()
    for (const write of writes) {
      if (!overwritten(Math.min(this.#effectBy(write), write.acknowledgedAt), write.value))
        possible.add(write.value)
    }
    // Nothing certain covers it: whatever was there before may be there still.
    if (!certain.some(({ kind }) => kind === 'write')) {
      const before = typeof initial === 'string' ? register.survivors : initial.known
      const older = resting.every(isThere) ? [] : register.beneath
      for (const value of [...before, ...older]) if (!overwritten(splitAt, value)) possible.add(value)
    }
    return possible
  }

  #check(sector: number, register: Register): string | null {
    if (this.exempt.has(sector) || register.reads.length === 0) return null
    const { writes, reads } = register
    const initial = this.#initialOf(register)
    if (typeof initial === 'string') return `${initial} (sector ${sector})`
    const seenValues = new Set(reads.map(({ value }) => value))
    const conflict = registerConflict({
      initial: initial.operation,
      writes: writes.map(write => {
        const { value, invokedAt } = write
        const latestAt = this.#effectBy(write)
        // A write that nobody was told of and nobody saw need not have happened.
        const seen = value !== ZEROS && seenValues.has(value)
        return { value, invokedAt, endedAt: seen ? latestAt : certainFrom(write), latestAt }
      }),
      reads: reads.map(({ value, invokedAt, returnedAt }) => ({ value, invokedAt, endedAt: returnedAt })),
    })
    return conflict === null ? null : `${conflict} (sector ${sector})`
  }

  /** What the sector held when its history began, or was split last. @returns what is wrong when it cannot be told */
  #initialOf({
    splitAt,
    survivors,
    writes,
    reads,
  }: Register): { readonly operation: Operation; readonly known: ReadonlySet<number> } | string {
    const operation = { invokedAt: splitAt, endedAt: splitAt }
    const written = new Set(writes.map(({ value }) => value))
    const old = reads.filter(({ value }) => !written.has(value))
    const first = old.find(({ value }) => value !== ZEROS) ?? old[0]
    if (first === undefined) {
      const value = survivors.has(ZEROS) ? ZEROS : [...survivors][0]!
      return { operation: { ...operation, value }, known: survivors }
    }
    if (!survivors.has(first.value)) {
      return splitAt === 0
        ? `P1: read as write ${first.value}, which was never written there`
        : `P1: read as write ${first.value}, after a power cut that it cannot have survived`
    }
    const other = old.find(({ value }) => value !== first.value)
    if (other !== undefined) {
      return `P4: read as write ${first.value} and as write ${other.value} after one power cut`
    }
    return { operation: { ...operation, value: first.value }, known: survivors }
  }
}
