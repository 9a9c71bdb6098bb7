/**
 * Syncs that are left out on purpose, one in each lane: the power cuts must find every one of them, or they prove nothing.
 * A passage stands exactly once in its file.
 */
import { type LaneKind } from './lanes.ts'

export interface PlantedError {
  readonly name: string
  readonly lane: LaneKind
  /** Chains that it breaks; null: all of them. */
  readonly chains: readonly string[] | null
  /** In the sources that the guest runs; null: its file system does not pass syncs on to the disk. */
  readonly patch: { readonly file: string; readonly find: string; readonly replace: string } | null
}

export const PLANTED_ERRORS: readonly PlantedError[] = [
  {
    name: 'embedded: synchronous = OFF',
    lane: 'embedded',
    chains: null,
    patch: {
      file: 'cluster/embedded/database.ts',
      find: `database.pragma('synchronous = FULL')`,
      replace: `database.pragma('synchronous = OFF')`,
    },
  },
  {
    name: 'catalogue: synchronous = NORMAL',
    lane: 'catalogue',
    chains: null,
    patch: {
      file: 'catalogue/open.ts',
      find: `database.pragma('synchronous = FULL')`,
      replace: `database.pragma('synchronous = NORMAL')`,
    },
  },
  {
    name: 'attachments: no sync of the file',
    lane: 'files',
    chains: ['attachments'],
    patch: {
      file: 'datapath/process/attachment-file.ts',
      find: 'await handle.sync()',
      replace: '',
    },
  },
  {
    name: 'trust: no sync of the directory',
    lane: 'files',
    chains: ['members', 'certificate'],
    patch: {
      file: 'trust/trust-directory.ts',
      find: 'await directory.sync()',
      replace: '',
    },
  },
  {
    name: 'replica: no sync of directories',
    lane: 'replica',
    chains: ['made'],
    patch: { file: 'datapath/disk/node-disk.ts', find: 'await handle.sync()', replace: '' },
  },
  { name: 'etcd: on a file system without barriers', lane: 'etcd', chains: null, patch: null },
]
