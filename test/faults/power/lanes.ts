/**
 * What is written in the guest. Each lane has a file system, and a disk, of its own: a sync of one file makes the whole
 * journal of ext4 durable, and would cover up for a sync that another one lacks.
 */
import { type Chain } from './judge.ts'

export type LaneKind = 'embedded' | 'catalogue' | 'files' | 'replica' | 'etcd'

export interface LaneShape {
  readonly chains: Readonly<Record<string, Chain>>
  /**
   * Whether the chains have their items in flight at the same time. Where they have not, no sync of one can cover up for
   * another.
   */
  readonly concurrent: boolean
  readonly diskBytes: number
}

const MIB = 2 ** 20
const SLOTS: Chain = { shape: 'slots', durable: true }
const STEPS: Chain = { shape: 'steps', durable: true }
const LAST: Chain = { shape: 'last', durable: true }

export const LANES: Readonly<Record<LaneKind, LaneShape>> = {
  embedded: { chains: { a: SLOTS, b: SLOTS }, concurrent: false, diskBytes: 64 * MIB },
  catalogue: {
    chains: { records: SLOTS, register: STEPS },
    concurrent: false,
    diskBytes: 64 * MIB,
  },
  files: {
    chains: {
      attachments: LAST,
      cluster: LAST,
      stores: LAST,
      members: LAST,
      certificate: { shape: 'cycle', durable: true },
      references: { shape: 'last', durable: false },
    },
    concurrent: false,
    diskBytes: 64 * MIB,
  },
  replica: {
    chains: { blocks: STEPS, epoch: LAST, made: { shape: 'toggle', durable: true } },
    concurrent: false,
    diskBytes: 64 * MIB,
  },
  // Its log takes 64 MiB at a time, and the next piece before the last one is full.
  etcd: { chains: { a: SLOTS, b: SLOTS, c: SLOTS }, concurrent: true, diskBytes: 384 * MIB },
}
