/**
 * What of a region a target lacks. A write intent says that something in 64 KiB may differ; after scattered writes it
 * is one block of sixteen. So the target is asked for digests of its blocks, and gets those that are others. Nothing is
 * decided by it but what to leave out: a target that does not answer, or cannot vouch for what it reads, gets all.
 *
 * Where whole regions differ, as after a long sequential write, comparing is work for nothing: then only a few regions
 * are compared, to see when that changes.
 */
import { BLOCK_BYTES, byteLength, type ByteLength, type RegionIndex } from '../../core/units.ts'
import { type ReplicaLink } from '../mirror/replica-link.ts'
import { type ReplicaSession } from '../mirror/replica-peer.ts'
import { DIGEST_BYTES } from '../replica-local/block-digests.ts'

/** A part of a region, to be written or made zeros. */
export interface Piece {
  /** Position in the region, in bytes. */
  readonly at: number
  readonly length: ByteLength
  /** Null where all of it is zeros. */
  readonly bytes: Uint8Array | null
  /** It takes no space. */
  readonly hole: boolean
}

/** So many regions in a row in which less than a quarter was equal say that the next is like them. */
const USELESS_MAX = 8
/** Of those regions one in so many is compared all the same. */
const LOOK_ONE_IN = 16

interface Experience {
  /** Regions since the last one for which comparing was worth it. */
  useless: number
  /** Regions that were not compared since the last one that was. */
  skipped: number
  /** The target does not say. */
  refused: boolean
}

export class Comparison {
  readonly #experience = new WeakMap<ReplicaSession, Experience>()

  /**
   * Asks a target for the digests of its blocks. Nobody may change the region until they have been used.
   * @returns null when they are not to be had, or not worth it
   */
  async digestsAt(target: ReplicaLink, region: RegionIndex, length: number): Promise<Uint8Array | null> {
    const { session, name } = target
    if (session === null || name === null) return null
    const experience = this.#of(session)
    if (experience.refused) return null
    if (experience.useless >= USELESS_MAX && ++experience.skipped < LOOK_ONE_IN) return null
    experience.skipped = 0
    const digests = await target.peer.digests(name, region).catch(() => null)
    if (digests?.length === (length / BLOCK_BYTES) * DIGEST_BYTES) return digests
    // One that cannot be had in time, say, is not waited for again and again with a region locked.
    experience.refused = true
    return null
  }

  /**
   * What a target lacks of a region.
   * @param own digests of each piece, null for zeros, which cost nothing to send
   * @param theirs digests of the target's whole region; null when they are not known
   */
  lacked(
    { session }: ReplicaLink,
    pieces: readonly Piece[],
    own: readonly (Uint8Array | null)[],
    theirs: Uint8Array | null
  ): readonly Piece[] {
    if (theirs === null || session === null) return pieces
    const lacked = pieces.flatMap((piece, index) => {
      const digests = own[index] ?? null
      return digests === null || !isOfBlocks(piece) ? [piece] : lackedRuns(piece, digests, theirs)
    })
    const experience = this.#of(session)
    const isWorthIt = dataBytes(lacked) <= 0.75 * dataBytes(pieces)
    experience.useless = isWorthIt ? 0 : experience.useless + 1
    return lacked
  }

  #of(session: ReplicaSession): Experience {
    let experience = this.#experience.get(session)
    if (experience === undefined) {
      experience = { useless: 0, skipped: 0, refused: false }
      this.#experience.set(session, experience)
    }
    return experience
  }
}

/** The runs of blocks of a piece that a target lacks. */
function lackedRuns({ at, bytes, hole }: Piece, own: Uint8Array, theirs: Uint8Array): Piece[] {
  const runs: Piece[] = []
  const blocks = bytes!.length / BLOCK_BYTES
  let first = 0
  for (let block = 0; block <= blocks; block++) {
    if (block < blocks && !isEqual(own, block, theirs, at / BLOCK_BYTES + block)) continue
    if (block > first) {
      const run = bytes!.subarray(first * BLOCK_BYTES, block * BLOCK_BYTES)
      runs.push({ at: at + first * BLOCK_BYTES, length: byteLength(run.length), bytes: run, hole })
    }
    first = block + 1
  }
  return runs
}

/** A source says how its bytes are laid out, and another host's may say anything. */
const isOfBlocks = ({ at, length }: Piece): boolean => at % BLOCK_BYTES === 0 && length % BLOCK_BYTES === 0

const dataBytes = (pieces: readonly Piece[]): number =>
  pieces.reduce((sum, { bytes }) => sum + (bytes?.length ?? 0), 0)

function isEqual(own: Uint8Array, block: number, theirs: Uint8Array, theirBlock: number): boolean {
  for (let byte = 0; byte < DIGEST_BYTES; byte++) {
    if (own[block * DIGEST_BYTES + byte] !== theirs[theirBlock * DIGEST_BYTES + byte]) return false
  }
  return true
}
