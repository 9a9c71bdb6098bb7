import assert from 'node:assert'
import { type Random } from '../../core/ports/random.ts'

/** The grain of the simulated page cache and of allocation, in bytes. */
export const PAGE_BYTES = 4096
/** What a disk writes whole or not at all, in bytes. */
export const SECTOR_BYTES = 512
/** What a block holds that the file system gave to a file without having written it. */
const STALE = 0xdb
const ZERO_PAGE = new Uint8Array(PAGE_BYTES)

type Pages = Map<number, Uint8Array>

/** A change of a file that a power cut can still undo. `data` null stands for zeros (a punched hole). */
interface Unsynced {
  readonly position: number
  readonly length: number
  readonly data: Uint8Array | null
}

/**
 * One file of the simulated disk: what the page cache shows, what the disk surely holds, and between the two the
 * changes that no `sync` has covered yet, in their order.
 */
export class SimulatedInode {
  /** Which open file holds the lock; null when none. */
  lockHolder: object | null = null
  readonly #cache: Pages = new Map()
  readonly #durable: Pages = new Map()
  readonly #reserved = new Set<number>()
  #unsynced: Unsynced[] = []
  #size = 0
  #durableSize = 0
  #syncsBegun = 0
  #sizeSyncedBy = 0

  get size(): number {
    return this.#size
  }

  /** Pages that take space. */
  get allocatedPages(): number {
    let extra = 0
    for (const page of this.#reserved) if (!this.#cache.has(page)) extra += 1
    return this.#cache.size + extra
  }

  /** Number of pages that writing a range would newly take. */
  missingPages(position: number, length: number): number {
    let missing = 0
    for (let page = Math.floor(position / PAGE_BYTES); page * PAGE_BYTES < position + length; page += 1) {
      if (!this.#cache.has(page) && !this.#reserved.has(page)) missing += 1
    }
    return missing
  }

  read(into: Uint8Array, position: number): void {
    copyOut(this.#cache, into, position)
    const beyond = this.#size - position
    if (beyond < into.length) into.fill(0, Math.max(beyond, 0))
  }

  /** The disk sectors in which this file and another one show different bytes, in no order. */
  sectorsDifferingFrom(other: SimulatedInode): number[] {
    const differing: number[] = []
    for (const [page, bytes] of this.#cache) {
      addDiffering(differing, page, bytes, other.#cache.get(page) ?? ZERO_PAGE)
    }
    for (const [page, bytes] of other.#cache) {
      if (!this.#cache.has(page)) addDiffering(differing, page, bytes, ZERO_PAGE)
    }
    return differing
  }

  /** The page cache, page by page; a page that is missing holds zeros. Not to be changed. */
  get cached(): ReadonlyMap<number, Uint8Array> {
    return this.#cache
  }

  /** The changes that no sync has covered, as ranges of bytes, oldest first. */
  get unsynced(): readonly { readonly position: number; readonly length: number }[] {
    return this.#unsynced
  }

  /** What is durable of a page, for certain; null for zeros. Not to be changed. */
  durablePage(page: number): Uint8Array | null {
    return this.#durable.get(page) ?? null
  }

  /** Every state that a power cut now could leave a disk sector in, oldest first. */
  survivorsOf(sector: number): Uint8Array[] {
    const position = sector * SECTOR_BYTES
    const page = Math.floor(position / PAGE_BYTES)
    let state = (this.#durable.get(page) ?? ZERO_PAGE).slice(
      position % PAGE_BYTES,
      (position % PAGE_BYTES) + SECTOR_BYTES
    )
    const states = [state]
    for (const change of this.#unsynced) {
      const from = Math.max(change.position, position)
      const to = Math.min(change.position + change.length, position + SECTOR_BYTES)
      if (from >= to) continue
      state = state.slice()
      if (change.data === null) state.fill(0, from - position, to - position)
      else state.set(change.data.subarray(from - change.position, to - change.position), from - position)
      states.push(state)
    }
    return states
  }

  write(data: Uint8Array, position: number): void {
    this.#apply({ position, length: data.length, data: data.slice() })
    this.#size = Math.max(this.#size, position + data.length)
  }

  punch(position: number, length: number): void {
    const end = Math.min(position + length, this.#size)
    if (end > position) this.#apply({ position, length: end - position, data: null })
  }

  reserve(position: number, length: number): void {
    for (let page = Math.floor(position / PAGE_BYTES); page * PAGE_BYTES < position + length; page += 1) {
      this.#reserved.add(page)
    }
    this.#size = Math.max(this.#size, position + length)
  }

  resize(size: number): void {
    if (size < this.#size) this.#apply({ position: size, length: this.#size - size, data: null })
    this.#size = size
  }

  /** Notes what a sync that starts now will cover. @returns what to call when it succeeds, or when it fails */
  beginSync(): { readonly succeed: () => void; readonly fail: (random: Random) => void } {
    const size = this.#size
    const last = this.#unsynced.at(-1)
    this.#syncsBegun += 1
    const order = this.#syncsBegun
    const take = (): Unsynced[] => {
      // Another sync may have taken a part meanwhile; what was covered is all up to the same last change.
      const end = last === undefined ? 0 : this.#unsynced.indexOf(last) + 1
      return this.#unsynced.splice(0, end)
    }
    return {
      succeed: () => {
        for (const change of take()) applyTo(this.#durable, change)
        if (order > this.#sizeSyncedBy) {
          this.#durableSize = size
          this.#sizeSyncedBy = order
        }
      },
      // As Linux does: the pages count as clean afterwards, whether or not they reached the disk.
      fail: random => {
        for (const change of take()) if (random.fraction() < 0.5) applyTo(this.#durable, change)
      },
    }
  }

  /**
   * A file system may make the space of a new page durable before its data: then the page shows what was on the disk
   * there before, which belongs to nobody.
   */
  exposeStaleBlocks(random: Random): void {
    for (const page of this.#cache.keys()) {
      if (this.#durable.has(page) || this.#reserved.has(page) || random.fraction() < 0.5) continue
      this.#durable.set(page, new Uint8Array(PAGE_BYTES).fill(STALE))
    }
  }

  /**
   * What a power cut leaves: for every sector the state after some number of the un-synced changes that touch it.
   * Whole files, pages or sectors go different ways, in proportions drawn anew for each cut.
   */
  cutPower(random: Random): void {
    const changes = this.#unsynced
    this.#unsynced = []
    const count = changes.length
    const limit = limitOf(random, count)
    changes.forEach((change, order) => {
      const end = change.position + change.length
      let at = change.position
      while (at < end) {
        const sector = Math.floor(at / SECTOR_BYTES)
        const upTo = Math.min((sector + 1) * SECTOR_BYTES, end)
        if (order < limit(sector)) {
          const from = at - change.position
          const data = change.data === null ? null : change.data.subarray(from, from + upTo - at)
          applyTo(this.#durable, { position: at, length: upTo - at, data })
        }
        at = upTo
      }
    })
    const grown = Math.max(this.#size, this.#durableSize)
    const shrunk = Math.min(this.#size, this.#durableSize)
    this.#durableSize = random.fraction() < 0.5 ? grown : shrunk
    this.#size = this.#durableSize
    truncate(this.#durable, this.#size)
    this.#cache.clear()
    for (const [page, bytes] of this.#durable) this.#cache.set(page, bytes.slice())
    this.lockHolder = null
  }

  /** Whether a byte lies in a page that takes space, in the cache and on the disk. */
  holds(position: number): boolean {
    const page = Math.floor(position / PAGE_BYTES)
    return this.#cache.has(page) && this.#durable.has(page)
  }

  /** Flips one bit, in the cache and on the disk: a fault of the medium. */
  damage(position: number): void {
    for (const pages of [this.#cache, this.#durable]) {
      const page = writablePage(pages, Math.floor(position / PAGE_BYTES))
      page[position % PAGE_BYTES]! ^= 1
    }
  }

  #apply(change: Unsynced): void {
    applyTo(this.#cache, change)
    if (change.data === null) {
      const first = Math.ceil(change.position / PAGE_BYTES)
      for (let page = first; (page + 1) * PAGE_BYTES <= change.position + change.length; page += 1) {
        this.#reserved.delete(page)
      }
    }
    this.#unsynced.push(change)
  }
}

/** How many of the un-synced changes reach each sector, drawn once per sector and power cut. */
function limitOf(random: Random, count: number): (sector: number) => number {
  const kind = random.fraction()
  if (kind < 0.15) return () => 0
  if (kind < 0.3) return () => count
  if (kind < 0.45) {
    const cut = Math.floor(random.fraction() * (count + 1))
    return () => cut
  }
  const grain = kind < 0.7 ? PAGE_BYTES / SECTOR_BYTES : 1
  const limits = new Map<number, number>()
  return sector => {
    const key = Math.floor(sector / grain)
    let limit = limits.get(key)
    if (limit === undefined) {
      limit = Math.floor(random.fraction() * (count + 1))
      // Often all or nothing: with many changes a number in between says nearly always "some".
      if (random.fraction() < 0.5) limit = random.fraction() < 0.5 ? 0 : count
      limits.set(key, limit)
    }
    return limit
  }
}

function addDiffering(sectors: number[], page: number, one: Uint8Array, other: Uint8Array): void {
  if (Buffer.compare(one, other) === 0) return
  for (let at = 0; at < PAGE_BYTES; at += SECTOR_BYTES) {
    const [a, b] = [one.subarray(at, at + SECTOR_BYTES), other.subarray(at, at + SECTOR_BYTES)]
    if (Buffer.compare(a, b) !== 0) sectors.push((page * PAGE_BYTES + at) / SECTOR_BYTES)
  }
}

function writablePage(pages: Pages, index: number): Uint8Array {
  let page = pages.get(index)
  if (page === undefined) {
    page = new Uint8Array(PAGE_BYTES)
    pages.set(index, page)
  }
  return page
}

function applyTo(pages: Pages, change: Unsynced): void {
  const end = change.position + change.length
  let at = change.position
  while (at < end) {
    const index = Math.floor(at / PAGE_BYTES)
    const within = at - index * PAGE_BYTES
    const length = Math.min(PAGE_BYTES - within, end - at)
    if (change.data !== null) {
      const from = at - change.position
      writablePage(pages, index).set(change.data.subarray(from, from + length), within)
    } else if (length === PAGE_BYTES) {
      pages.delete(index)
    } else {
      pages.get(index)?.fill(0, within, within + length)
    }
    at += length
  }
}

function copyOut(pages: Pages, into: Uint8Array, position: number): void {
  let done = 0
  while (done < into.length) {
    const index = Math.floor((position + done) / PAGE_BYTES)
    const within = position + done - index * PAGE_BYTES
    const length = Math.min(PAGE_BYTES - within, into.length - done)
    into.set((pages.get(index) ?? ZERO_PAGE).subarray(within, within + length), done)
    done += length
  }
  assert.equal(done, into.length)
}

function truncate(pages: Pages, size: number): void {
  for (const [index, page] of pages) {
    const kept = size - index * PAGE_BYTES
    if (kept <= 0) pages.delete(index)
    else if (kept < PAGE_BYTES) page.fill(0, kept)
  }
}
