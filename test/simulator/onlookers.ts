/**
 * Those who only look: xosand asks its datapath process how volumes are, how much space they take and where they have
 * holes, a dashboard several times a second. Whatever they ask changes nothing, and no answer may be an error of ours.
 */
import { reasonOf, XosanError } from '../../core/errors.ts'
import { type ByteLength, type ByteOffset, REGION_BYTES } from '../../core/units.ts'
import { type BlockDevice } from '../../datapath/block-device.ts'
import { type SimulatedHost } from './simulated-host.ts'
import { type SimulatedVolume, VOLUME_BYTES } from './simulated-volume.ts'
import { type Universe } from './universe.ts'
import { type SeededRandom } from './world.ts'

/** Between two questions, in milliseconds, at most. */
const PAUSE_MS = 400
/** An answer that takes longer is not waited for, in milliseconds. */
const PATIENCE_MS = 3_000

export class Onlookers {
  readonly #universe: Universe
  readonly #random: SeededRandom

  constructor(universe: Universe) {
    this.#universe = universe
    this.#random = universe.world.random.fork()
  }

  /** Looks here and there until the universe is calm. */
  async look(): Promise<void> {
    const { hosts, volumes, world } = this.#universe
    while (!this.#universe.calm) {
      await world.pause(this.#random.between(0, PAUSE_MS))
      const host = this.#random.pick(hosts)
      if (host.running) void this.#ask(host, this.#random.pick(volumes))
    }
  }

  async #ask(host: SimulatedHost, volume: SimulatedVolume): Promise<void> {
    const { administrator, sr } = this.#universe
    const { process } = host
    const what = this.#random.below(4)
    try {
      await administrator.ask(
        host,
        async () => {
          const node = host.node!
          if (what === 0) this.#askMirror(host, volume)
          else if (what === 1) await this.#askExtents(node.volume(volume.key)?.device ?? null)
          else if (what === 2) await node.replicas.physicalBytes(sr, volume.key)
          else await this.#askExtents(await node.replicas.reader(sr, volume.key))
        },
        PATIENCE_MS
      )
    } catch (error) {
      // Busy, gone, failed, or no answer at all: that is said with a code, by a process that lives.
      if (host.process !== process || error instanceof XosanError || !host.running) return
      if (reasonOf(error) !== 'the process did not answer') {
        this.#universe.problem(`P5: who asked ${host.name} for the state of a volume got: ${reasonOf(error)}`)
      }
    }
  }

  /** Who holds must say what it waits for. */
  #askMirror(host: SimulatedHost, { key }: SimulatedVolume): void {
    const mirror = host.node!.volume(key)?.mirror ?? null
    if (mirror === null) return
    const { phase } = mirror
    const waits = mirror.waits()
    if (phase === 'serving' && waits.length > 0) {
      this.#universe.problem(
        `P5: ${host.name} serves ${key.slice(0, 8)} and says that it waits for ${waits[0]!.for}`
      )
    }
  }

  /** Extents cover what was asked for, no more and no less. */
  async #askExtents(device: BlockDevice | null): Promise<void> {
    if (device === null) return
    const offset = this.#random.below(VOLUME_BYTES / 512 - 1) * 512
    const length = Math.min(VOLUME_BYTES - offset, (1 + this.#random.below(2 * (REGION_BYTES / 512))) * 512)
    const extents = await device.allocation(offset as ByteOffset, length as ByteLength)
    const covered = extents.reduce((sum, extent) => sum + extent.length, 0)
    if (covered !== length || extents.some(extent => extent.length <= 0)) {
      this.#universe.problem(`P4: extents of ${length} bytes cover ${covered}`)
    }
  }
}
