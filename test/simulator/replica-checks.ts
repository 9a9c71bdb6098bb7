/**
 * What must be true of the replicas' files, seen from outside: by the record, the processes that live, and the bytes.
 */
import { inSyncReplicas, replicasOf } from '../../core/mirror/volume-change.ts'
import { type VolumeState } from '../../core/mirror/volume-record.ts'
import { REGION_BYTES, type RegionIndex } from '../../core/units.ts'
import { SECTOR_BYTES } from './history.ts'
import { type SimulatedHost } from './simulated-host.ts'
import { rawFileOf, type SimulatedVolume, VOLUME_BYTES } from './simulated-volume.ts'

const contentOf = (host: SimulatedHost, volume: SimulatedVolume): Buffer => {
  const content = host.disk.contentOf(rawFileOf(volume))
  return Buffer.from(content.buffer, content.byteOffset, content.byteLength)
}

const holdersOf = (replicas: readonly { host: string }[], hosts: readonly SimulatedHost[]): SimulatedHost[] =>
  replicas.map(replica => hosts.find(({ id }) => id === replica.host)!)

/**
 * Nobody has the volume open: where in-sync replicas differ, one of them has a write intent.
 * @returns what is wrong, or null
 */
export function checkIntents(
  volume: SimulatedVolume,
  state: VolumeState,
  hosts: readonly SimulatedHost[]
): string | null {
  const holders = holdersOf(inSyncReplicas(state), hosts)
  const intents = holders.map(host => host.node?.replicas.intentsOf(volume.key) ?? null)
  const [first, ...others] = holders.map(host => contentOf(host, volume))
  // A process that is not there cannot be asked; its file says the same later.
  if (first === undefined || intents.includes(null)) return null
  for (let region = 0; region < VOLUME_BYTES / REGION_BYTES; region++) {
    if (intents.some(set => set!.has(region as RegionIndex))) continue
    const [from, to] = [region * REGION_BYTES, (region + 1) * REGION_BYTES]
    if (others.some(other => other.compare(first, from, to, from, to) !== 0)) {
      return `P9: region ${region} differs between in-sync replicas and nobody has an intent for it`
    }
  }
  return null
}

/**
 * The primary serves and says that all replicas hold the same: then they do, sector by sector, wherever no change is
 * under way. This sees at once what a reader would see only if it came to the right replica before the next write.
 *
 * @returns what is wrong, or null; null too while somebody is away, and the primary may not know it yet
 */
export function checkEquality(
  volume: SimulatedVolume,
  state: VolumeState,
  hosts: readonly SimulatedHost[]
): string | null {
  const primary = hosts.find(({ id }) => id === state.primary)
  const mirror = primary?.running === true ? primary.node!.volume(volume.key)?.mirror : null
  if (mirror?.allInSync !== true || mirror.epoch() !== state.epoch) return null
  const holders = holdersOf(replicasOf(state), hosts)
  const { incarnation } = primary!.node!.identity
  for (const { node } of holders) {
    // One that lost its process or its power since has no session, and another file than the primary believes.
    const holder = node?.replicas.holderOf(volume.key)
    if (holder?.incarnation !== incarnation || !holder.inSession) return null
  }
  const [first, ...others] = holders.map(host => contentOf(host, volume))
  if (first === undefined || others.every(other => other.equals(first))) return null
  const changing = new Uint8Array(VOLUME_BYTES / SECTOR_BYTES)
  for (const guest of volume.guests) {
    // What another primary's guest waits for was never acknowledged, and nobody may bring it about any more.
    if (guest.process !== primary!.process) continue
    for (const { first: from, end } of guest.changing) changing.fill(1, from, end)
  }
  for (let sector = 0; sector < changing.length; sector++) {
    if (changing[sector] === 1) continue
    const [from, to] = [sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES]
    if (others.some(other => other.compare(first, from, to, from, to) !== 0)) {
      return `P9: sector ${sector} differs between replicas that are all in-sync, and nobody changes it`
    }
  }
  return null
}

/** Everything is over: the replicas hold the same bytes. @returns what is wrong, or null */
export function checkEnd(
  volume: SimulatedVolume,
  state: VolumeState,
  hosts: readonly SimulatedHost[]
): string | null {
  const [first, ...others] = holdersOf(replicasOf(state), hosts).map(host => contentOf(host, volume))
  for (const other of others) {
    if (first!.equals(other)) continue
    const at = first!.findIndex((byte, index) => byte !== other[index])
    return `P9: replicas differ in the end, first at byte ${at} (sector ${Math.floor(at / SECTOR_BYTES)})`
  }
  return null
}
