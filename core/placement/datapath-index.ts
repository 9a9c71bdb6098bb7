import assert from 'node:assert'
import { type VolumeKey } from '../units.ts'

/** Offset basis and prime of 32-bit FNV-1a (Fowler, Noll, Vo). */
const FNV_BASIS = 0x811c9dc5
const FNV_PRIME = 0x01000193

/**
 * Which datapath process of a host owns a volume there: for its guest, its local replica and its peers.
 *
 * Every host and every release must come to the same answer for the same count, since a peer connects to the process
 * that this selects: the function never changes.
 * @param count how many datapath processes that host runs, at least 1 (`HostRecord.datapaths`)
 * @returns 0 to count - 1
 */
export function datapathIndexOf(volume: VolumeKey, count: number): number {
  assert(Number.isInteger(count) && count >= 1, 'a host runs at least one datapath process')
  let hash = FNV_BASIS
  for (let i = 0; i < volume.length; i++) {
    hash = Math.imul(hash ^ volume.charCodeAt(i), FNV_PRIME)
  }
  return (hash >>> 0) % count
}
