/**
 * What must be true of the replicas' files, seen from outside: by the record, the processes that live, and the bytes.
 */
import { inSyncReplicas, replicasOf } from '../../core/mirror/volume-change.ts'
import { type VolumeState } from '../../core/mirror/volume-record.ts'
import { REGION_BYTES, type RegionIndex } from '../../core/units.ts'
import { SECTOR_BYTES } from './history.ts'
import { type SimulatedHost } from './simulated-host.ts'
import { rawFileOf, type SimulatedVolume } from './simulated-volume.ts'

const SECTORS_PER_REGION = REGION_BYTES / SECTOR_BYTES

/** The sectors in which the replicas on these hosts are not all the same, from the first to the last. */
function differingSectors(
  volume: SimulatedVolume,
  [first, ...others]: readonly SimulatedHost[]
): readonly number[] {
  const file = rawFileOf(volume)
  const sectors = others.flatMap(other => first!.disk.differingSectors(file, other.disk))
  return [...new Set(sectors)].sort((a, b) => a - b)
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
  // A process that is not there cannot be asked; its file says the same later.
  if (intents.includes(null)) return null
  for (const sector of differingSectors(volume, holders)) {
    const region = Math.floor(sector / SECTORS_PER_REGION)
    if (intents.some(set => set!.has(region as RegionIndex))) continue
    return `P9: region ${region} differs between in-sync replicas and nobody has an intent for it`
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
  const sectors = differingSectors(volume, holders)
  if (sectors.length === 0) return null
  const changing = new Uint8Array(state.size / SECTOR_BYTES)
  for (const guest of volume.guests) {
    // What another primary's guest waits for was never acknowledged, and nobody may bring it about any more.
    if (guest.process !== primary!.process) continue
    for (const { first, end } of guest.changing) changing.fill(1, first, end)
  }
  const wrong = sectors.find(sector => changing[sector] === 0)
  if (wrong === undefined) return null
  return `P9: sector ${wrong} differs between replicas that are all in-sync, and nobody changes it`
}

/** Everything is over: the replicas hold the same bytes. @returns what is wrong, or null */
export function checkEnd(
  volume: SimulatedVolume,
  state: VolumeState,
  hosts: readonly SimulatedHost[]
): string | null {
  const [sector] = differingSectors(volume, holdersOf(replicasOf(state), hosts))
  return sector === undefined ? null : `P9: replicas differ in the end, first in sector ${sector}`
}
