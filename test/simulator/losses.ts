import { replicasOf } from '../../core/mirror/volume-change.ts'
import { type ReplicaId } from '../../core/units.ts'
import { type SimulatedHost } from './simulated-host.ts'
import { type SimulatedVolume } from './simulated-volume.ts'
import { type Universe } from './universe.ts'

/** What faults have taken for good, as far as checkers must know of it before the record does. */
export class Losses {
  readonly #universe: Universe
  readonly #replicas = new Set<ReplicaId>()

  constructor(universe: Universe) {
    this.#universe = universe
  }

  /** Replicas whose files are gone or damaged; whoever asks for them is told so. */
  get replicas(): ReadonlySet<ReplicaId> {
    return this.#replicas
  }

  /** The hosts whose replicas are in-sync by the record, without those that are lost and that it does not know of yet. */
  certainlyInSync(volume: SimulatedVolume): readonly SimulatedHost[] {
    if (this.#replicas.size === 0) return volume.inSync
    const lost = replicasOf(this.#universe.stateOf(volume)).filter(({ replica }) =>
      this.#replicas.has(replica)
    )
    return volume.inSync.filter(({ id }) => !lost.some(({ host }) => host === id))
  }

  /** What a host holds of a volume is lost. */
  ofReplica(volume: SimulatedVolume, host: SimulatedHost): void {
    const record = replicasOf(this.#universe.stateOf(volume)).find(replica => replica.host === host.id)
    if (record === undefined) return
    this.#replicas.add(record.replica)
    host.lostFiles(volume.key)
    this.ofWrites()
  }

  /** Hosts lost power, or a sync of one failed: un-flushed writes that nobody holds any more may be gone. */
  ofWrites(): void {
    const { volumes, world } = this.#universe
    for (const { key, durability } of volumes) {
      const before = durability.lostAt
      durability.writesWereLost()
      if (durability.lostAt !== before)
        world.log('CHECK', `un-flushed writes of ${key.slice(0, 8)} may be lost`)
    }
  }
}
