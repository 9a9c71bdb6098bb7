/**
 * The three files of a layer, in the directory of its volume: `LAYER.raw` (the content), `LAYER.map` (write intents and
 * the durable block map) and `LAYER.live` (the block map of the running kernel's page cache).
 */
import { XosanError } from '../../core/errors.ts'
import { type Disk, type DiskFile } from '../../core/ports/disk.ts'
import {
  byteLength,
  byteOffset,
  type ByteLength,
  type LayerId,
  type ReplicaId,
  type VolumeKey,
} from '../../core/units.ts'
import { decodeMapHeader, encodeMapHeader, type MapHeader } from './map-header.ts'
import { HEADER_BYTES, liveFileBytes, mapFileBytes } from './map-layout.ts'

/** A layer's open files. */
export interface LayerFiles {
  readonly layer: LayerId
  /** Of the durable map, for messages. */
  readonly path: string
  readonly data: DiskFile
  readonly map: DiskFile
  readonly live: DiskFile
}

/** Which layer of which replica, and where. */
export interface LayerPlace {
  /** Directory of the volume within the store. */
  readonly directory: string
  readonly volume: VolumeKey
  readonly replica: ReplicaId
  readonly layer: LayerId
  /** Size of the volume in bytes. */
  readonly size: ByteLength
}

const SUFFIXES = ['.raw', '.map', '.live'] as const

const pathOf = (place: LayerPlace, suffix: (typeof SUFFIXES)[number]): string =>
  `${place.directory}/${place.layer}${suffix}`

/**
 * Makes the files of an empty layer, durable but for their names: all space of the maps is taken now, so that a full
 * disk can never stop an intent or a map. @throws what the disk throws
 */
export async function createLayerFiles(disk: Disk, place: LayerPlace): Promise<void> {
  const data = await disk.open(pathOf(place, '.raw'), 'exclusive')
  try {
    await data.resize(place.size)
    await data.sync()
  } finally {
    await data.close()
  }
  await createMapFile(disk, place, 'map', mapFileBytes(place.size))
  await createMapFile(disk, place, 'live', liveFileBytes(place.size))
}

async function createMapFile(
  disk: Disk,
  place: LayerPlace,
  kind: 'map' | 'live',
  size: ByteLength
): Promise<void> {
  const file = await disk.open(pathOf(place, `.${kind}`), 'exclusive')
  try {
    await file.reserve(byteOffset(0), size)
    await file.write(encodeMapHeader(headerOf(place, kind)), byteOffset(0))
    await file.sync()
  } finally {
    await file.close()
  }
}

/**
 * Opens the files of a layer and checks that they are this replica's.
 * @throws REPLICA_GONE when one is missing or another replica's; REPLICA_CORRUPT when one is damaged; UNSUPPORTED when
 * a newer version wrote one; what the disk throws
 */
export async function openLayerFiles(disk: Disk, place: LayerPlace): Promise<LayerFiles> {
  const open: DiskFile[] = []
  try {
    for (const suffix of SUFFIXES) open.push(await openExisting(disk, place, pathOf(place, suffix)))
    const [data, map, live] = open as [DiskFile, DiskFile, DiskFile]
    await checkSize(data, pathOf(place, '.raw'), place.size)
    await checkSize(map, pathOf(place, '.map'), mapFileBytes(place.size))
    await checkSize(live, pathOf(place, '.live'), liveFileBytes(place.size))
    await checkHeader(map, pathOf(place, '.map'), place, 'map')
    await checkHeader(live, pathOf(place, '.live'), place, 'live')
    return { layer: place.layer, path: pathOf(place, '.map'), data, map, live }
  } catch (error) {
    await Promise.all(open.map(file => file.close()))
    throw error
  }
}

async function openExisting(disk: Disk, place: LayerPlace, path: string): Promise<DiskFile> {
  try {
    return await disk.open(path, false)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    const { volume, replica } = place
    throw new XosanError('REPLICA_GONE', { volume, replica, reason: `its file ${path} is missing` })
  }
}

/** A file may be larger: a growth that a crash interrupted is finished when it is asked for again. */
async function checkSize(file: DiskFile, path: string, expected: number): Promise<void> {
  const { size } = await file.stat()
  if (size < expected) {
    throw new XosanError('REPLICA_CORRUPT', { path, reason: `it has ${size} bytes instead of ${expected}` })
  }
}

async function checkHeader(
  file: DiskFile,
  path: string,
  place: LayerPlace,
  kind: 'map' | 'live'
): Promise<void> {
  const page = Buffer.alloc(byteLength(HEADER_BYTES))
  await file.read(page, byteOffset(0))
  const found = decodeMapHeader(page, path)
  const expected = headerOf(place, kind)
  for (const key of ['kind', 'volume', 'replica', 'layer'] as const) {
    if (found[key] === expected[key]) continue
    const reason = `${path} is of ${key} ${found[key]}, not ${expected[key]}`
    throw new XosanError('REPLICA_GONE', { volume: place.volume, replica: place.replica, reason })
  }
}

const headerOf = ({ volume, replica, layer }: LayerPlace, kind: 'map' | 'live'): MapHeader => ({
  kind,
  volume,
  replica,
  layer,
})
