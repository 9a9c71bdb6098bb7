/**
 * The directory of a volume's replica, `volumes/VOLUME/`, how it comes to be and how it goes.
 *
 * A replica exists exactly when its file `replica` does. While it is made or removed, that file has the name
 * `replica.partial`: what lies beside it then is nobody's data, and is made anew or removed. Both files name the
 * replica's id, so that neither a creation nor a removal can ever hit another replica's files.
 */
import { XosanError } from '../../core/errors.ts'
import { type Disk, type DiskFile } from '../../core/ports/disk.ts'
import {
  BLOCK_BYTES,
  type ByteLength,
  type Epoch,
  type LayerId,
  type ReplicaId,
  type StoreId,
  type VolumeKey,
} from '../../core/units.ts'
import { createLayerFiles } from './layer-files.ts'
import { uuidBytes } from './map-sector.ts'
import { MetadataFile, openExisting, openLocked, type ReplicaMetadata } from './replica-metadata.ts'

const VOLUMES = 'volumes'

/** What a new replica shall be. */
export interface ReplicaSpec {
  readonly volume: VolumeKey
  readonly replica: ReplicaId
  readonly store: StoreId
  /** Oldest first; the last one is written. */
  readonly layers: readonly LayerId[]
  /** Virtual size in bytes, a multiple of 4096. */
  readonly size: ByteLength
}

/** Directory of a volume's replica within the store. @throws INVALID_ARGUMENT when the key is no UUID */
export function replicaDirectory(volume: VolumeKey): string {
  requireUuid('the volume key', volume)
  return `${VOLUMES}/${volume}`
}

/** Path of the file that makes the replica exist. */
export const metadataPath = (volume: VolumeKey): string => `${replicaDirectory(volume)}/replica`
const partialPath = (volume: VolumeKey): string => `${replicaDirectory(volume)}/replica.partial`

/**
 * Makes the files of a replica; all of it is durable when this returns. Does nothing when this very replica exists;
 * makes anew what a crash has left of an earlier attempt.
 * @throws REPLICA_PRESENT when the directory belongs to another replica; REPLICA_LOCKED when a process is at it;
 * INVALID_ARGUMENT, UNSUPPORTED; what the disk throws
 */
export async function createReplicaFiles(disk: Disk, spec: ReplicaSpec): Promise<void> {
  checkSpec(spec)
  const directory = replicaDirectory(spec.volume)
  await disk.makeDirectory(directory)
  const file = await openLocked(disk, partialPath(spec.volume), true)
  if (file === undefined) throw new XosanError('REPLICA_LOCKED', { path: partialPath(spec.volume) })
  try {
    // Looked for with the lock held: whoever had it before may have finished the replica meanwhile.
    const present = await peek(disk, metadataPath(spec.volume))
    if (present !== undefined) {
      requireSame(spec.volume, spec.replica, present.replica)
      await removeDurably(disk, directory, ['replica.partial'])
      return
    }
    await makeFiles(disk, spec, directory, file)
  } finally {
    await file.close()
  }
}

async function makeFiles(disk: Disk, spec: ReplicaSpec, directory: string, file: DiskFile): Promise<void> {
  const leftovers = (await disk.list(directory)).filter(name => name !== 'replica.partial')
  const earlier = await readMetadata(file, partialPath(spec.volume))
  if (earlier !== undefined) requireSame(spec.volume, spec.replica, earlier.replica)
  else if (leftovers.length > 0) {
    // Layer files are made after this file is durable: without it they are what damage has left of a replica.
    const reason = 'it does not say whose the files beside it are'
    throw new XosanError('REPLICA_CORRUPT', { path: partialPath(spec.volume), reason })
  }
  await MetadataFile.create(file, initialMetadata(spec))
  await syncUpwards(disk, directory)
  await removeDurably(disk, directory, leftovers)
  try {
    for (const layer of spec.layers) await createLayerFiles(disk, { ...spec, directory, layer })
  } catch (error) {
    // On a full disk what was reserved is what others wait for.
    await removeMade(disk, directory).catch(() => undefined)
    throw error
  }
  await disk.syncDirectory(directory)
  await disk.rename(partialPath(spec.volume), metadataPath(spec.volume))
  await disk.syncDirectory(directory)
}

async function removeMade(disk: Disk, directory: string): Promise<void> {
  const made = (await disk.list(directory)).filter(name => name !== 'replica.partial')
  await removeDurably(disk, directory, made)
}

/**
 * Removes a replica's files, also a half-made or half-removed replica's; does nothing when there are none.
 * @throws REPLICA_PRESENT when another replica is there; REPLICA_LOCKED when a process has it open; REPLICA_CORRUPT
 * when the files do not say whose they are; what the disk throws
 */
export async function removeReplicaFiles(disk: Disk, volume: VolumeKey, replica: ReplicaId): Promise<void> {
  await removeFiles(disk, volume, (path, found, isAlone) => {
    if (found !== undefined) requireSame(volume, replica, found.replica)
    else if (path === metadataPath(volume) || !isAlone) {
      throw new XosanError('REPLICA_CORRUPT', { path, reason: 'it does not say whose files these are' })
    }
  })
}

/**
 * Removes what is left of a replica that is lost: its files, damaged ones too, and whatever was never finished, or never
 * given an epoch: no record has named it, so it holds nothing.
 * @throws REPLICA_PRESENT when another replica, which was in use, is there; REPLICA_LOCKED; what the disk throws
 */
export async function discardReplicaFiles(disk: Disk, volume: VolumeKey, lost: ReplicaId): Promise<void> {
  await removeFiles(disk, volume, (path, found) => {
    const wasInUse = path === metadataPath(volume) && found !== undefined && found.acceptedEpoch > 0
    if (wasInUse) requireSame(volume, lost, found.replica)
  })
}

/**
 * @param check throws when the files must stay; is told what their owner's file says, undefined when it is damaged, and
 * whether there are no other ones
 */
async function removeFiles(
  disk: Disk,
  volume: VolumeKey,
  check: (path: string, found: ReplicaMetadata | undefined, isAlone: boolean) => void
): Promise<void> {
  const directory = replicaDirectory(volume)
  for (const path of [metadataPath(volume), partialPath(volume)]) {
    const file = await openLocked(disk, path, false)
    if (file === undefined) continue
    try {
      const metadata = await readMetadata(file, path)
      const others = (await disk.list(directory)).filter(name => `${directory}/${name}` !== path)
      check(path, metadata, others.length === 0)
      if (path === metadataPath(volume)) {
        await disk.rename(path, partialPath(volume))
        await disk.syncDirectory(directory)
      }
      const names = (await disk.list(directory)).filter(name => name !== 'replica.partial')
      await removeDurably(disk, directory, names)
      await removeDurably(disk, directory, ['replica.partial'])
    } finally {
      await file.close()
    }
  }
  // Synced also when the directory is gone already: a crash may have come between its removal and the sync.
  if ((await disk.list('')).includes(VOLUMES)) await removeDurably(disk, VOLUMES, [volume])
}

/** What the file `replica` says, read without its lock: its owner may be at work. Undefined when it is missing. */
async function peek(disk: Disk, path: string): Promise<ReplicaMetadata | undefined> {
  const file = await openExisting(disk, path)
  if (file === undefined) return undefined
  try {
    return await MetadataFile.peek(file, path)
  } finally {
    await file.close()
  }
}

/** What a metadata file says; undefined when it was never written whole. */
async function readMetadata(file: DiskFile, path: string): Promise<ReplicaMetadata | undefined> {
  try {
    return await MetadataFile.peek(file, path)
  } catch (error) {
    if (error instanceof XosanError && error.code === 'REPLICA_CORRUPT') return undefined
    throw error
  }
}

function requireSame(volume: VolumeKey, wanted: ReplicaId, present: ReplicaId): void {
  if (present !== wanted) throw new XosanError('REPLICA_PRESENT', { volume, present, wanted })
}

async function removeDurably(disk: Disk, directory: string, names: readonly string[]): Promise<void> {
  for (const name of names) await disk.remove(`${directory}/${name}`)
  if (names.length > 0) await disk.syncDirectory(directory)
}

/** Makes a directory's name and those of all its parents durable. */
async function syncUpwards(disk: Disk, directory: string): Promise<void> {
  const parts = directory.split('/')
  for (let depth = parts.length; depth >= 0; depth -= 1)
    await disk.syncDirectory(parts.slice(0, depth).join('/'))
}

function initialMetadata(spec: ReplicaSpec): ReplicaMetadata {
  const { volume, replica, store, layers, size } = spec
  const acceptedEpoch = 0 as Epoch
  return {
    volume,
    replica,
    store,
    layers,
    size,
    acceptedEpoch,
    rebuilding: false,
    boot: null,
    clean: true,
    lostAt: null,
  }
}

function checkSpec(spec: ReplicaSpec): void {
  requireUuid('the replica id', spec.replica)
  requireUuid('the store id', spec.store)
  for (const layer of spec.layers) requireUuid('the layer id', layer)
  if (spec.layers.length !== 1) {
    throw new XosanError('UNSUPPORTED', {
      what: `a replica of ${spec.layers.length} layers`,
      reason: 'this XOSAN has no snapshots yet',
    })
  }
  requireSize(spec.size)
}

/** @throws INVALID_ARGUMENT when a volume cannot have this size in bytes */
export function requireSize(size: ByteLength): void {
  if (!Number.isSafeInteger(size) || size <= 0 || size % BLOCK_BYTES !== 0) {
    throw new XosanError('INVALID_ARGUMENT', {
      what: `a volume size of ${size} bytes`,
      reason: `it must be a positive multiple of ${BLOCK_BYTES}`,
    })
  }
}

/** @throws INVALID_ARGUMENT */
export function requireUuid(what: string, id: string): void {
  try {
    uuidBytes(id)
  } catch (error) {
    throw new XosanError('INVALID_ARGUMENT', { what, reason: (error as Error).message })
  }
}
