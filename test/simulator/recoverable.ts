/**
 * What a host's disk says of a replica when nothing else is left (P8), and what it must not forget (P3): looked at as a
 * power cut now would leave it.
 */
import { crc32 } from 'node:zlib'
import { type ReplicaRecord, type VolumeState } from '../../core/mirror/volume-record.ts'
import { type Epoch } from '../../core/units.ts'
import { type SimulatedDisk } from './simulated-disk.ts'
import { PAGE_BYTES, SECTOR_BYTES, type SimulatedInode } from './simulated-file.ts'
import { type SimulatedHost } from './simulated-host.ts'
import { mapFileOf, metadataFileOf, rawFileOf, type SimulatedVolume } from './simulated-volume.ts'

/** Where the two copies of a replica's metadata begin in its file, in bytes. */
const SLOTS = [0, 65_536]

/** What a replica says of itself. */
interface Told {
  readonly volume: string
  readonly replica: string
  readonly store: string
  readonly layers: readonly string[]
  readonly size: number
  readonly acceptedEpoch: number
  readonly lostAt: number | null
}

/**
 * What the copies of a replica's metadata may say after a power cut now. A copy fits a sector, which a disk writes whole:
 * one that is being written, or that a process wrote and did not sync before it died, is what it was or what it is to be.
 * Read by hand, as somebody would with a rescue disk: the format is part of the promise.
 */
function durableMetadata(inode: SimulatedInode): Told[] {
  return SLOTS.flatMap(position => {
    const states = inode.survivorsOf(position / SECTOR_BYTES).map(toldBy)
    const whole = states.filter(told => told !== null)
    return whole.length === states.length ? whole : []
  })
}

/** @param bytes that begin with a slot */
function toldBy(bytes: Uint8Array): Told | null {
  const text = Buffer.from(bytes).toString('latin1')
  const [line = '', json = ''] = text.split('\n', 2)
  const match = /^(xosan-replica 1 \d+ \d+) ([0-9a-f]{8})$/.exec(line)
  if (match === null || crc32(json, crc32(match[1]!)) !== Number.parseInt(match[2]!, 16)) return null
  return JSON.parse(json) as Told
}

/** Whether the next process of this boot will find that un-flushed writes may be lost, at the epoch that is accepted now. */
export function saysThatItLost(disk: SimulatedDisk, file: string): boolean {
  const pages = disk.inode(file, 'open').cached
  return SLOTS.map(at => toldBy(pages.get(at / PAGE_BYTES)!)).some(
    told => told !== null && told.lostAt === told.acceptedEpoch
  )
}

/** The id of the replica whose files are there, as a power cut now would leave them; null when that is not certain. */
export function replicaIdOf(disk: SimulatedDisk, volume: SimulatedVolume): string | null {
  const file = metadataFileOf(volume)
  if (!disk.names.has(file)) return null
  const ids = new Set(durableMetadata(disk.inode(file, 'open')).map(({ replica }) => replica))
  return ids.size === 1 ? [...ids][0]! : null
}

/** @returns what is wrong with what the disk of one host says of its replica; null when nothing is */
export function checkRecoverable(
  { disk, name }: { readonly disk: SimulatedDisk; readonly name: string },
  volume: SimulatedVolume,
  state: VolumeState,
  record: ReplicaRecord
): string | null {
  for (const file of [metadataFileOf(volume), rawFileOf(volume), mapFileOf(volume)]) {
    if (!disk.hasDurably(file)) return `P8: after a power cut ${name} would not have ${file}`
  }
  const told = durableMetadata(disk.inode(metadataFileOf(volume), 'open'))
  if (told.length === 0) return `P8: after a power cut ${name} could not say whose replica it has`
  for (const { volume: key, replica, store, layers, size, acceptedEpoch } of told) {
    const isRight =
      key === volume.key &&
      replica === record.replica &&
      store === record.store &&
      layers.join() === state.layers.join() &&
      size <= state.size &&
      acceptedEpoch <= state.reserved.epoch
    if (!isRight) return `P8: ${name} says that it has ${replica} of ${key}, with epoch ${acceptedEpoch}`
  }
  return null
}

/** A host has said that it accepts an epoch. @returns what is wrong if a power cut could make it forget that */
export function checkAccepted(host: SimulatedHost, file: string, epoch: Epoch): string | null {
  const told = durableMetadata(host.disk.inode(file, 'open'))
  if (told.length > 0 && told.every(({ acceptedEpoch }) => acceptedEpoch >= epoch)) return null
  return `P3: ${host.name} accepted epoch ${epoch}, and would forget it in a power cut`
}
