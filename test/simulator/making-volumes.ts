/** How the volumes of a universe come to be: at the datapath processes themselves, or by xosand of a pool. */
import { volumeStateKey } from '../../cluster/keys.ts'
import { parseVolumeState, serialiseVolumeState } from '../../cluster/volume-state.ts'
import { inSyncReplicas } from '../../core/mirror/volume-change.ts'
import { type VolumeState } from '../../core/mirror/volume-record.ts'
import { type Epoch, type LayerId, REGION_BYTES, type ReplicaId, type VolumeKey } from '../../core/units.ts'
import { Durability } from './durability.ts'
import { History, SECTOR_BYTES } from './history.ts'
import { type SimulatedPool } from './simulated-pool.ts'
import { type SimulatedVolume, VOLUME_BYTES } from './simulated-volume.ts'
import { type Universe } from './universe.ts'
import { type SeededRandom } from './world.ts'

/** Volumes of a pool grow up to this many times their first size. */
const GROWTH_MAX = 3

/** Makes a volume at the datapath processes themselves. */
export async function makeVolume(universe: Universe, random: SeededRandom): Promise<SimulatedVolume> {
  const key = random.uuid() as VolumeKey
  const state = await makeReplicas(universe, random, key)
  const record = volumeStateKey(universe.sr, key)
  universe.coordinator.transact('creation', [], [{ key: record, value: serialiseVolumeState(record, state) }])
  return simulatedVolume(universe, key, state.layers[0]!, random, VOLUME_BYTES)
}

/** Makes the replicas of a volume. @returns what its record is to be */
export async function makeReplicas(
  universe: Universe,
  random: SeededRandom,
  key: VolumeKey
): Promise<VolumeState> {
  const layer = random.uuid() as LayerId
  const copies = random.chance(0.75) ? 2 : 3
  const holders = random.shuffled(universe.hosts).slice(0, copies)
  const replicas = []
  for (const host of holders) {
    const replica = random.uuid() as ReplicaId
    const address = { sr: universe.sr, volume: key, replica, layers: [layer], size: VOLUME_BYTES }
    await universe.administrator.ask(host, async () => host.node!.replicas.create(address, true), 10_000)
    replicas.push({ host: host.id, replica, store: host.store, inSync: true })
  }
  return {
    version: 1,
    size: VOLUME_BYTES,
    sharable: false,
    epoch: 0 as Epoch,
    reserved: { epoch: 0 as Epoch, host: null, operation: '' },
    primary: null,
    layers: [layer],
    mirrors: [replicas],
  }
}

/** Makes a volume that may grow, by `Volume.create` on any host. */
export async function makeThroughXosand(
  universe: Universe,
  pool: SimulatedPool,
  random: SeededRandom
): Promise<SimulatedVolume> {
  const volume = await pool.createVolume(random.pick(pool.daemons), VOLUME_BYTES)
  if (volume === null) throw new Error('a volume cannot be made although all is well')
  const { key } = volume
  const record = volumeStateKey(universe.sr, key)
  const { layers } = parseVolumeState(record, universe.coordinator.read(record).entry!.value)
  return simulatedVolume(universe, key, layers[0]!, random, GROWTH_MAX * VOLUME_BYTES)
}

/** @param sizeMax in bytes, up to which it may grow */
function simulatedVolume(
  universe: Universe,
  key: VolumeKey,
  layer: LayerId,
  random: SeededRandom,
  sizeMax: number
): SimulatedVolume {
  const record = volumeStateKey(universe.sr, key)
  const state = parseVolumeState(record, universe.coordinator.read(record).entry!.value)
  // Few regions, so that what a resync copies is often what the guest writes.
  const regions = Array.from({ length: 4 }, () => random.below(sizeMax / REGION_BYTES - 2))
  const hotSectors = Array.from({ length: 10 }, () => {
    return random.pick(regions) * (REGION_BYTES / SECTOR_BYTES) + random.below(16) * 8
  })
  const history = new History()
  const durability = new Durability({
    get volume() {
      return volume
    },
    history,
    now: () => universe.world.now,
    inSync: () => universe.losses.certainlyInSync(volume),
    problem: text => universe.problem(text),
  })
  const volume: SimulatedVolume = {
    key,
    layer,
    history,
    durability,
    hotSectors,
    random,
    guests: [],
    changedAt: new Map(),
    inSync: inSyncReplicas(state).map(replica => universe.hosts.find(({ id }) => id === replica.host)!),
    host: null,
    quietUntil: 0,
  }
  return volume
}
