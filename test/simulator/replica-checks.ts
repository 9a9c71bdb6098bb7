/**
 * What must be true of the replicas' files, seen from outside: by the record, the processes that live, and the bytes.
 */
import { replicasOf } from '../../core/mirror/volume-change.ts'
import { type VolumeState } from '../../core/mirror/volume-record.ts'
import { type RegionIndex } from '../../core/units.ts'
import { SECTOR_BYTES } from './history.ts'
import { ReplicaImage } from './replica-image.ts'
import { type SimulatedHost } from './simulated-host.ts'
import { rawFileOf, type SimulatedVolume } from './simulated-volume.ts'

/** The sectors in which the replicas on these hosts are not all the same, from the first to the last. */
function differingSectors(
  volume: SimulatedVolume,
  [first, ...others]: readonly SimulatedHost[]
): readonly number[] {
  const file = rawFileOf(volume)
  const sectors = others.flatMap(other => first!.disk.differingSectors(file, other.disk))
  return [...new Set(sectors)].filter(sector => !volume.history.exempt.has(sector)).sort((a, b) => a - b)
}

const holdersOf = (replicas: readonly { host: string }[], hosts: readonly SimulatedHost[]): SimulatedHost[] =>
  replicas.map(replica => hosts.find(({ id }) => id === replica.host)!)

/**
 * Where in-sync replicas differ, one of them has a write intent; and where they could differ after a power cut of any
 * hosts, one has an intent that survives it. At all times: bits are durable before the bytes change.
 *
 * @param inSync the hosts of the in-sync replicas
 * @returns what is wrong, or null
 */
export function checkIntents(volume: SimulatedVolume, inSync: readonly SimulatedHost[]): string | null {
  const replicas = inSync.map(host => ({
    // A process that is not there cannot be asked: the next one reads what the page cache shows.
    intents: host.node?.replicas.intentsOf(volume.key) ?? null,
    image: ReplicaImage.of(host.disk, volume)!,
  }))
  if (replicas.length === 0 || replicas.some(({ image }) => (image as ReplicaImage | null) === null))
    return null
  for (const region of volume.history.writtenRegions()) {
    const isNoted = replicas.some(
      ({ intents, image }) => intents?.has(region as RegionIndex) ?? image.hasIntent(region)
    )
    const staysNoted = replicas.some(({ image }) => image.intent(region) === 'set')
    if (isNoted && staysNoted) continue
    for (const sector of volume.history.writtenSectors(region)) {
      if (volume.history.exempt.has(sector)) continue
      if (!isNoted && !allSame(replicas, image => image.shows(sector))) {
        return `P9: sector ${sector} differs between in-sync replicas and nobody has an intent for its region`
      }
      if (!staysNoted && !allSame(replicas, image => image.survivor(sector))) {
        return `P9: after a power cut sector ${sector} could differ between in-sync replicas without an intent for its region`
      }
    }
  }
  return null
}

function allSame(
  replicas: readonly { readonly image: ReplicaImage }[],
  valueOf: (image: ReplicaImage) => number | null
): boolean {
  const first = valueOf(replicas[0]!.image)
  return first !== null && replicas.every(({ image }) => valueOf(image) === first)
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
  const holders = holdersOf(replicasOf(state), hosts)
  const without = holders.find(({ disk }) => !disk.names.has(rawFileOf(volume)))
  if (without !== undefined) return `P9: ${without.name} has no replica in the end`
  const [sector] = differingSectors(volume, holders)
  return sector === undefined ? null : `P9: replicas differ in the end, first in sector ${sector}`
}
