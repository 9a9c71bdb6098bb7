import { randomBytes, randomUUID } from 'node:crypto'
import { type Random } from '../../core/ports/random.ts'

/** Randomness from the operating system. */
export const nodeRandom: Random = {
  uuid: () => randomUUID(),
  // 48 bits: what fits a double exactly, so that 1 itself never comes out.
  fraction: () => randomBytes(6).readUIntBE(0, 6) / 2 ** 48,
}
