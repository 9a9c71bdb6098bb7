/**
 * What must be true of the replicas' files, seen from outside: by the record, the processes that live, and the bytes.
 */
import { type RegionSet } from '../../core/mirror/region-set.ts'
import { replicasOf } from '../../core/mirror/volume-change.ts'
import { type VolumeState } from '../../core/mirror/volume-record.ts'
import { type RegionIndex, type ReplicaId } from '../../core/units.ts'
import { SECTOR_BYTES } from './history.ts'
import { replicaIdOf } from './recoverable.ts'
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
 * Where an in-sync replica and any other configured one differ, one of the two has a write intent; and where they could
 * differ after a power cut of any hosts, one of the two has an intent that survives it. At all times: bits are durable
 * before the bytes change, and they stay while a replica is away, because they are the list of what it misses.
 *
 * @param lost replicas whose files are gone or damaged
 * @returns what is wrong, or null
 */
export function checkIntents(
  volume: SimulatedVolume,
  state: VolumeState,
  hosts: readonly SimulatedHost[],
  lost: ReadonlySet<ReplicaId>
): string | null {
  const replicas: Configured[] = []
  for (const record of replicasOf(state)) {
    if (lost.has(record.replica)) continue
    const host = hosts.find(({ id }) => id === record.host)!
    const image = ReplicaImage.of(host.disk, volume)
    // What is left of another one is not what the record means.
    const isThere = image !== null && replicaIdOf(host.disk, volume) === record.replica
    if (!isThere && record.inSync) return null
    // A process that is not there cannot be asked: the next one reads what the page cache shows.
    const intents = host.node?.replicas.intentsOf(volume.key) ?? null
    if (isThere) replicas.push({ inSync: record.inSync, name: host.name, intents, image })
  }
  for (const region of volume.history.writtenRegions()) {
    const unnoted = comparable(replicas, ({ intents, image }) =>
      intents === null ? image.hasIntent(region) : intents.has(region as RegionIndex)
    )
    const forgetful = comparable(replicas, ({ image }) => image.intent(region) === 'set')
    if (unnoted.length + forgetful.length === 0) continue
    for (const sector of volume.history.writtenSectors(region)) {
      if (volume.history.exempt.has(sector)) continue
      if (!allSame(unnoted, image => image.shows(sector))) {
        return `P9: sector ${sector} differs between ${namesOf(unnoted)} and neither has an intent for its region`
      }
      if (!allSame(forgetful, image => image.survivor(sector))) {
        return `P9: after a power cut sector ${sector} could differ between ${namesOf(forgetful)} without an intent for its region`
      }
    }
  }
  return null
}

/** A replica that the record names, and that is on its host. */
interface Configured {
  readonly inSync: boolean
  readonly name: string
  /** As its process has them; null when none runs. */
  readonly intents: RegionSet | null
  readonly image: ReplicaImage
}

/** Those without an intent that must be the same because of it: none, unless one of them counts. */
function comparable(
  replicas: readonly Configured[],
  hasIntent: (replica: Configured) => boolean
): readonly Configured[] {
  const without = replicas.filter(replica => !hasIntent(replica))
  return without.length > 1 && without.some(({ inSync }) => inSync) ? without : []
}

const namesOf = (replicas: readonly Configured[]): string =>
  replicas.map(({ name, inSync }) => (inSync ? name : `${name} (stale)`)).join(' and ')

function allSame(replicas: readonly Configured[], valueOf: (image: ReplicaImage) => number | null): boolean {
  if (replicas.length === 0) return true
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
