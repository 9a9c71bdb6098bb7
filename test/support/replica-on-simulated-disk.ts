import { type BootId, type ByteLength, type Epoch } from '../../core/units.ts'
import { LocalReplica } from '../../datapath/replica-local/local-replica.ts'
import { type ReplicaSpec } from '../../datapath/replica-local/replica-directory.ts'
import { SeededRandom } from '../simulator/seeded-random.ts'
import { SimulatedDisk, type SimulatedDiskOptions, type SimulatedMount } from '../simulator/simulated-disk.ts'

/** A host with one simulated disk and one replica on it, whose process and power can fail. */
export class ReplicaHost {
  readonly random: SeededRandom
  readonly disk: SimulatedDisk
  readonly spec: ReplicaSpec
  boot: BootId
  mount: SimulatedMount
  replica!: LocalReplica

  constructor(seed: number, size: number, options: Partial<SimulatedDiskOptions> = {}) {
    this.random = new SeededRandom(seed)
    this.disk = new SimulatedDisk({ random: this.random, ...options })
    this.mount = this.disk.mount()
    this.boot = this.random.uuid() as BootId
    this.spec = {
      volume: this.random.uuid() as ReplicaSpec['volume'],
      replica: this.random.uuid() as ReplicaSpec['replica'],
      store: this.random.uuid() as ReplicaSpec['store'],
      layers: [this.random.uuid() as ReplicaSpec['layers'][0] & string],
      size: size as ByteLength,
    }
  }

  /** Makes the replica, opens it, and accepts an epoch. */
  async start(): Promise<void> {
    await LocalReplica.create(this.mount, this.spec)
    await this.open()
    await this.replica.acceptEpoch((this.replica.acceptedEpoch + 1) as Epoch, { rebuilding: false })
  }

  async open(): Promise<LocalReplica> {
    this.replica = await LocalReplica.open(this.mount, this.spec.volume, this.boot)
    return this.replica
  }

  /** The process dies and another one takes its place. */
  restartProcess(): void {
    this.mount.crash()
    this.mount = this.disk.mount()
  }

  /** The host loses power and boots. */
  powerCut(): void {
    this.disk.powerCut()
    this.boot = this.random.uuid() as BootId
    this.mount = this.disk.mount()
  }

  /** Path of one of the layer's files. */
  path(suffix: '.raw' | '.map' | '.live'): string {
    return `volumes/${this.spec.volume}/${this.spec.layers[0]!}${suffix}`
  }
}
