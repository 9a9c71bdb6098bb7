/**
 * What the load writes into each 512-byte sector: who wrote it, and where, in every byte of it, so that a sector
 * read back names the write that it came from and a torn or misplaced one is recognised.
 */

export const SECTOR_BYTES = 512
const SECTOR_WORDS = SECTOR_BYTES / 4

/** Content of a sector that no write of the load has produced. */
export const UNKNOWN = -1
/** A sector of zeros: never written, or zeroed. Also the id that stands for the volume's first state. */
export const ZEROS = 0

/** One step of Marsaglia's xorshift generator on 32 bits: cheap, and different for every seed. */
function next(state: number): number {
  state ^= state << 13
  state ^= state >>> 17
  state ^= state << 5
  return state | 0
}

const seedOf = (write: number, sector: number): number =>
  (Math.imul(write, 0x9e3779b1) ^ Math.imul(sector + 1, 0x85ebca6b)) | 1

/** Fills sectors of one write. @param words view of a whole number of sectors */
export function fillSectors(words: Int32Array, write: number, firstSector: number): void {
  for (let at = 0, sector = firstSector; at < words.length; at += SECTOR_WORDS, sector++) {
    let state = seedOf(write, sector)
    words[at] = write
    words[at + 1] = sector
    for (let word = at + 2; word < at + SECTOR_WORDS; word++) {
      state = next(state)
      words[word] = state
    }
  }
}

/**
 * The write whose content a sector holds.
 *
 * @param at index of the sector's first word
 * @returns the write's id, ZEROS, or UNKNOWN when it is neither
 */
export function identifySector(words: Int32Array, at: number, sector: number): number {
  const write = words[at]!
  if (write === ZEROS) {
    for (let word = at; word < at + SECTOR_WORDS; word++) {
      if (words[word] !== 0) return UNKNOWN
    }
    return ZEROS
  }
  if (words[at + 1] !== sector) return UNKNOWN
  let state = seedOf(write, sector)
  for (let word = at + 2; word < at + SECTOR_WORDS; word++) {
    state = next(state)
    if (words[word] !== state) return UNKNOWN
  }
  return write
}
