import { type Catalogue } from '../catalogue/catalogue.ts'
import { type CatalogueFollower } from '../catalogue/follower.ts'
import { type CataloguedVolume } from '../catalogue/volumes.ts'
import { srKey } from '../cluster/keys.ts'
import { type Clock } from '../core/ports/clock.ts'
import { millis, type HostId, type SrId, type VolumeKey } from '../core/units.ts'
import { type Metadata, type StaleReplica, type StoredVolume } from '../volume/context.ts'

/** The catalogue and the follower that keeps it, as the SMAPIv3 calls see them. */
export class CatalogueMetadata implements Metadata {
  readonly #catalogue: Catalogue
  readonly #follower: CatalogueFollower
  readonly #clock: Clock

  constructor(catalogue: Catalogue, follower: CatalogueFollower, clock: Clock) {
    this.#catalogue = catalogue
    this.#follower = follower
    this.#clock = clock
  }

  get reached(): number {
    return this.#follower.reached
  }

  async waitFor(revision: number, deadlineMs: number): Promise<void> {
    await this.#follower.waitFor(revision, millis(this.#clock.now() + deadlineMs))
  }

  async synchronise(deadlineMs: number): Promise<void> {
    await this.#follower.synchronise(millis(this.#clock.now() + deadlineMs))
  }

  volume(sr: SrId, key: VolumeKey): StoredVolume | null {
    const volume = this.#catalogue.volumes.get(sr, key)
    return volume === null ? null : stored(volume)
  }

  volumes(sr: SrId): StoredVolume[] {
    return this.#catalogue.volumes.list(sr).map(stored)
  }

  mapVolumes<Result>(sr: SrId, make: (volume: StoredVolume) => Result | null): Result[] {
    return this.#catalogue.volumes.map(sr, volume => make(stored(volume)))
  }

  countVolumes(sr: SrId): number {
    return this.#catalogue.volumes.count(sr)
  }

  staleReplicas(besideOneOn: HostId): StaleReplica[] {
    const replicas = this.#catalogue.replicas.staleBesideOneOn(besideOneOn)
    return replicas.map(({ sr, volume, host }) => ({ sr, key: volume, host }))
  }

  halfDoneVolumes(): ReturnType<Metadata['halfDoneVolumes']> {
    return this.#catalogue.srs
      .list()
      .flatMap(sr => this.#catalogue.volumes.halfDone(sr).map(key => ({ sr, key })))
  }

  halfDoneSrs(): ReturnType<Metadata['halfDoneSrs']> {
    const { records, srs } = this.#catalogue
    const unreadable = new Set(records.problems('').map(({ key }) => key))
    const readable = srs.list().filter(sr => !unreadable.has(srKey(sr)))
    return readable.flatMap(sr => this.sr(sr) ?? []).filter(({ operation }) => operation !== undefined)
  }

  sr(sr: SrId): ReturnType<Metadata['sr']> {
    return this.#catalogue.srs.get(sr)?.record ?? null
  }

  srs(): ReturnType<Metadata['srs']> {
    return this.#catalogue.srs.list().flatMap(sr => this.sr(sr) ?? [])
  }

  hosts(): ReturnType<Metadata['hosts']> {
    return this.#catalogue.hosts.list()
  }

  stores(sr: SrId): ReturnType<Metadata['stores']> {
    return this.#catalogue.stores.list(sr)
  }

  tombstones(host: HostId): ReturnType<Metadata['tombstones']> {
    return this.#catalogue.tombstones.ofHost(host)
  }
}

const stored = ({ sr, volume, state, info }: CataloguedVolume): StoredVolume => ({
  sr,
  key: volume,
  state,
  info,
})
