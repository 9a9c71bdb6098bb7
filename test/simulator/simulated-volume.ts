import { type ByteLength, type LayerId, type VolumeKey } from '../../core/units.ts'
import { type Durability } from './durability.ts'
import { type Guest } from './guest.ts'
import { type History } from './history.ts'
import { type SimulatedHost } from './simulated-host.ts'
import { type SeededRandom } from './world.ts'

/** Size of each volume in bytes. */
export const VOLUME_BYTES = (2 * 1024 * 1024) as ByteLength

/** A volume as the world outside knows it. */
export interface SimulatedVolume {
  readonly key: VolumeKey
  readonly layer: LayerId
  readonly history: History
  readonly durability: Durability
  /** First sectors of the places that its guests like. */
  readonly hotSectors: readonly number[]
  readonly random: SeededRandom
  /** Everybody who ever wrote to it. */
  readonly guests: Guest[]
  /** The hosts whose replicas the record counts as in-sync, as of its last change. */
  inSync: readonly SimulatedHost[]
  /** When each host changed its record last, by name. */
  readonly changedAt: Map<string, number>
  /** Where the administrator had it last. */
  host: SimulatedHost | null
  /** Until when its guests rest, in milliseconds of virtual time. */
  quietUntil: number
}

/** The file of a volume's one layer, in the store of each host that has a replica. */
export const rawFileOf = ({ key, layer }: SimulatedVolume): string => `volumes/${key}/${layer}.raw`

/** The file of that layer's durable map and write intents. */
export const mapFileOf = ({ key, layer }: SimulatedVolume): string => `volumes/${key}/${layer}.map`

/** The file that says whose replica it is. */
export const metadataFileOf = ({ key }: Pick<SimulatedVolume, 'key'>): string => `volumes/${key}/replica`
