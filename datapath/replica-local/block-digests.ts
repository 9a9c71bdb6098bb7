import { createHash } from 'node:crypto'
import { BLOCK_BYTES } from '../../core/units.ts'

/** Bytes of one digest. */
export const DIGEST_BYTES = 32

/**
 * SHA-256 of each 4 KiB block of a range, one after the other: by these two replicas find out which of their blocks
 * differ. Blocks that are taken for equal are not copied, so no guest may be able to make two with the same digest.
 * @param bytes whole blocks; of a part of one at the end there is no digest
 */
export function digestsOf(bytes: Uint8Array): Uint8Array {
  const blocks = Math.floor(bytes.length / BLOCK_BYTES)
  const digests = new Uint8Array(blocks * DIGEST_BYTES)
  for (let block = 0; block < blocks; block++) {
    const at = block * BLOCK_BYTES
    const digest = createHash('sha256')
      .update(bytes.subarray(at, at + BLOCK_BYTES))
      .digest()
    digests.set(digest, block * DIGEST_BYTES)
  }
  return digests
}
