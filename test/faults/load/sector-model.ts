/**
 * What a correct volume may answer, sector by sector, given what its client saw.
 *
 * Each sector is taken as one register. A write takes effect at some moment between being sent and being
 * answered; one whose answer never came took effect at some moment before the next session began, or never.
 * A read returns the value of some moment between being sent and being answered. So a write that was sent after
 * another one had been answered replaces it, writes that overlapped in time may have gone either way, and what
 * a read has shown decides for all later reads (promise P4).
 *
 * Nearly all sectors have one possible value at any moment; only the others ("open" ones) cost an object.
 */
import { UNKNOWN, ZEROS } from './sector-content.ts'

interface Candidate {
  readonly write: number
  /** When the write is known to have taken effect: its answer, or the first read that showed it. */
  readonly knownAt: number
}

interface OpenSector {
  /** Values that the sector may have if no write under way has touched it. */
  candidates: Candidate[]
  /** Writes sent and not answered. */
  inFlight: number[]
  /** Those of `inFlight` that a read has already shown. */
  shown: number[]
  lastIssuedAt: number
}

interface IssuedWrite {
  readonly firstSector: number
  readonly sectors: number
  readonly issuedAt: number
  readonly zeros: boolean
}

/** Marks a sector in `#settled` that is open. */
const OPEN = -2

/** A read under way: what each sector could have held when it was sent. */
export interface ReadUnderWay {
  readonly firstSector: number
  readonly sectors: number
  readonly startedAt: number
  readonly settled: Int32Array
  /** Sector -> writes that it could hold. */
  readonly open: ReadonlyMap<number, readonly number[]>
  /** Sectors with a write in flight at the start. */
  readonly contended: ReadonlySet<number>
}

export interface Mismatch {
  readonly sector: number
  /** Write found, ZEROS, or UNKNOWN. */
  readonly found: number
  readonly allowed: readonly number[]
}

/** Something that a read decided and that a model made anew from the journal could not know. */
export interface Observation {
  readonly sector: number
  readonly write: number
}

export class SectorModel {
  readonly #settled: Int32Array
  readonly #open = new Map<number, OpenSector>()
  /** By id, from 1. */
  readonly #writes: (IssuedWrite | undefined)[] = [undefined]
  readonly #inFlight = new Set<number>()
  #time = 0

  constructor(sectors: number) {
    this.#settled = new Int32Array(sectors)
  }

  get sectors(): number {
    return this.#settled.length
  }

  /** Id that the next write gets. */
  get nextWrite(): number {
    return this.#writes.length
  }

  /** Notes a write that is about to be sent. @param zeros whether its content is zeros */
  issue(firstSector: number, sectors: number, zeros: boolean): number {
    const id = this.#writes.length
    this.#writes.push({ firstSector, sectors, issuedAt: ++this.#time, zeros })
    this.#inFlight.add(id)
    for (let sector = firstSector; sector < firstSector + sectors; sector++) {
      const open = this.#opened(sector)
      open.inFlight.push(id)
      open.lastIssuedAt = this.#time
    }
    return id
  }

  /** Notes that a write was answered. */
  acknowledge(id: number): void {
    const write = this.#writes[id]!
    const now = ++this.#time
    this.#inFlight.delete(id)
    for (let sector = write.firstSector; sector < write.firstSector + write.sectors; sector++) {
      const open = this.#open.get(sector)!
      open.inFlight = open.inFlight.filter(other => other !== id)
      if (open.shown.includes(id)) {
        open.shown = open.shown.filter(other => other !== id)
      } else {
        this.#takesEffect(open, id, now)
      }
      this.#settle(sector, open)
    }
  }

  /** Notes that a new session has begun: what was not answered before has happened by now, or never will. */
  reopen(): void {
    const now = ++this.#time
    for (const id of this.#inFlight) {
      const { firstSector, sectors } = this.#writes[id]!
      for (let sector = firstSector; sector < firstSector + sectors; sector++) {
        const open = this.#open.get(sector)!
        open.inFlight = open.inFlight.filter(other => other !== id)
        if (!open.shown.includes(id)) open.candidates.push({ write: id, knownAt: now })
        open.shown = open.shown.filter(other => other !== id)
        this.#settle(sector, open)
      }
    }
    this.#inFlight.clear()
  }

  /** Notes that a read is about to be sent. */
  startRead(firstSector: number, sectors: number): ReadUnderWay {
    const settled = this.#settled.slice(firstSector, firstSector + sectors)
    const open = new Map<number, number[]>()
    const contended = new Set<number>()
    for (let index = 0; index < sectors; index++) {
      if (settled[index] !== OPEN) continue
      const sector = firstSector + index
      const { candidates, inFlight } = this.#open.get(sector)!
      open.set(sector, [...candidates.map(({ write }) => write), ...inFlight])
      if (inFlight.length > 0) contended.add(sector)
    }
    return { firstSector, sectors, startedAt: ++this.#time, settled, open, contended }
  }

  /**
   * Judges what a read returned.
   *
   * @param identify the write whose content a sector of the answer holds
   * @param observed called for each sector about which the read decided something
   */
  endRead(
    read: ReadUnderWay,
    identify: (sector: number) => number,
    observed: (observation: Observation) => void
  ): Mismatch[] {
    const mismatches: Mismatch[] = []
    this.#time++
    for (let index = 0; index < read.sectors; index++) {
      const sector = read.firstSector + index
      const found = identify(sector)
      const settled = this.#settled[sector]!
      if (settled !== OPEN && settled === read.settled[index] && this.#holds(settled, found)) continue
      const allowed = this.#allowed(read, sector, index)
      const match = allowed.find(write => this.#holds(write, found))
      if (match === undefined && !this.#cameAndWent(read, sector, found)) {
        mismatches.push({ sector, found, allowed })
      } else if (match !== undefined && this.#observe(read, sector, match, found)) {
        observed({ sector, write: match })
      }
    }
    return mismatches
  }

  /** Applies what an earlier model's read decided. */
  replayObservation({ sector, write }: Observation): void {
    const open = this.#open.get(sector)
    if (open === undefined) return
    this.#time++
    if (open.inFlight.includes(write)) this.#show(open, write)
    else this.#keepOnly(open, this.#contentOf(write))
    this.#settle(sector, open)
  }

  #opened(sector: number): OpenSector {
    let open = this.#open.get(sector)
    if (open === undefined) {
      const write = this.#settled[sector]!
      open = { candidates: [{ write, knownAt: 0 }], inFlight: [], shown: [], lastIssuedAt: 0 }
      this.#open.set(sector, open)
      this.#settled[sector] = OPEN
    }
    return open
  }

  #settle(sector: number, open: OpenSector): void {
    if (open.inFlight.length === 0 && open.candidates.length === 1) {
      this.#settled[sector] = open.candidates[0]!.write
      this.#open.delete(sector)
    }
  }

  /** From `now` on every value that was there before the write was sent is gone. */
  #takesEffect(open: OpenSector, id: number, now: number): void {
    const { issuedAt } = this.#writes[id]!
    open.candidates = open.candidates.filter(({ knownAt }) => knownAt > issuedAt)
    open.candidates.push({ write: id, knownAt: now })
  }

  #show(open: OpenSector, id: number): void {
    open.shown.push(id)
    this.#takesEffect(open, id, this.#time)
  }

  #keepOnly(open: OpenSector, content: number): void {
    // Of several writes of the same content the one that is known last is replaced last: the careful choice.
    const [latest] = open.candidates
      .filter(({ write }) => this.#contentOf(write) === content)
      .sort((a, b) => b.knownAt - a.knownAt)
    open.candidates = latest === undefined ? open.candidates : [latest]
  }

  #contentOf(write: number): number {
    return write === ZEROS || this.#writes[write]!.zeros ? ZEROS : write
  }

  #holds(write: number, found: number): boolean {
    return this.#contentOf(write) === found
  }

  #isQuiet(read: ReadUnderWay, sector: number): boolean {
    if (read.contended.has(sector)) return false
    const open = this.#open.get(sector)
    const lastIssuedAt = open?.lastIssuedAt ?? this.#writes[this.#settled[sector]!]?.issuedAt ?? 0
    return lastIssuedAt <= read.startedAt
  }

  #allowed(read: ReadUnderWay, sector: number, index: number): number[] {
    const open = this.#open.get(sector)
    const now =
      open === undefined
        ? [this.#settled[sector]!]
        : [...open.candidates.map(({ write }) => write), ...open.inFlight]
    if (this.#isQuiet(read, sector)) return now
    const before = read.open.get(sector) ?? [read.settled[index]!]
    return [...new Set([...now, ...before])]
  }

  /** Whether a write of this content was sent and replaced while the read was under way. */
  #cameAndWent(read: ReadUnderWay, sector: number, found: number): boolean {
    if (found === UNKNOWN) return false
    for (let id = this.#writes.length - 1; id > 0; id--) {
      const write = this.#writes[id]!
      if (write.issuedAt < read.startedAt) return false
      const covers = sector >= write.firstSector && sector < write.firstSector + write.sectors
      if (covers && this.#holds(id, found)) return true
    }
    return false
  }

  /** @returns whether the read decided something */
  #observe(read: ReadUnderWay, sector: number, match: number, found: number): boolean {
    const open = this.#open.get(sector)
    if (open === undefined) return false
    if (this.#isQuiet(read, sector)) {
      if (open.candidates.length === 1) return false
      this.#keepOnly(open, found)
      this.#settle(sector, open)
      return true
    }
    // Zeros do not tell from which write they came, so they decide nothing while writes are under way.
    if (found === ZEROS || !open.inFlight.includes(match) || open.shown.includes(match)) return false
    this.#show(open, match)
    return true
  }
}
