/**
 * Those who work at the pool's volumes while others use them: volumes are made and destroyed, renamed, given keys and
 * made larger, and scanned, from any host, often from two at once; and what seemed to fail, or to take long, is asked
 * again, late and from elsewhere, as xapi does.
 */
import { VOLUME_SIZE_MULTIPLE } from '../../core/units.ts'
import { type KnownVolume } from './ledger.ts'
import { type SimulatedDaemon } from './simulated-daemon.ts'
import { type SimulatedPool } from './simulated-pool.ts'
import { type Universe } from './universe.ts'
import { type SeededRandom } from './world.ts'

/** Sizes that volumes may have, in bytes. */
const SIZE_MAX = 3 * VOLUME_SIZE_MULTIPLE
/** Of volumes that come and go. */
const VOLUMES_MAX = 4

export class Operators {
  readonly #universe: Universe
  readonly #pool: SimulatedPool
  readonly #random: SeededRandom
  /** Volumes that nobody but the operators uses. */
  readonly #own: KnownVolume[] = []
  /** Calls under way. */
  #underWay = 0

  constructor(universe: Universe, pool: SimulatedPool) {
    this.#universe = universe
    this.#pool = pool
    this.#random = pool.random.fork()
  }

  /** Works until the world is calm, and resolves when all calls have ended. */
  async work(): Promise<void> {
    const { world } = this.#universe
    const meanMs = this.#random.between(100, 1_500)
    while (!this.#universe.calm) {
      await world.pause(this.#random.between(0, 2 * meanMs))
      void this.#count(async () => this.#something())
    }
    while (this.#underWay > 0) await world.pause(100)
  }

  /** Faults of the daemons alone, beside those of hosts, links and disks. */
  async disturb(): Promise<void> {
    const { world, faults } = this.#universe
    const random = this.#random.fork()
    const meanMs = random.between(1_000, 10_000)
    while (!this.#universe.calm) {
      await world.pause(random.between(0, 2 * meanMs))
      if (!this.#pool.faultsActive) continue
      const daemon = random.pick(this.#pool.daemons)
      if (random.chance(0.6)) {
        faults.count('xosand dies')
        void this.#pool.killDaemon(daemon, random.between(20, 3_000))
      } else {
        faults.count('xosand stops')
        void this.#pool.stopDaemon(daemon, random.between(20, 40_000))
      }
    }
  }

  async #count(action: () => Promise<unknown>): Promise<void> {
    this.#underWay++
    try {
      await action()
    } finally {
      this.#underWay--
    }
  }

  async #something(): Promise<void> {
    const random = this.#random
    const daemon = this.#pool.anyDaemon(random)
    if (daemon === null) return
    const volume = this.#anyVolume()
    const what = random.fraction()
    if (what < 0.15) await this.#create(daemon)
    else if (what < 0.27) await this.#destroy(daemon)
    else if (what < 0.37) await this.#pool.list(daemon)
    else if (volume === null) return
    else if (what < 0.5) await this.#stat(daemon, volume)
    else if (what < 0.6) await this.#twice(daemon, async on => this.#rename(on, volume, random.uuid()))
    else if (what < 0.75) await this.#setKey(daemon, volume)
    else if (what < 0.9) await this.#resize(daemon, volume)
    else await this.#use(daemon, volume)
  }

  #anyVolume(): KnownVolume | null {
    const volumes = [...this.#pool.ledger.volumes.values()].filter(
      ({ destroyInvokedAt }) => destroyInvokedAt === Infinity
    )
    return volumes.length === 0 ? null : this.#random.pick(volumes)
  }

  /** Asks once, perhaps from another host at the same time, and perhaps again later. */
  async #twice(daemon: SimulatedDaemon, ask: (daemon: SimulatedDaemon) => Promise<unknown>): Promise<void> {
    const random = this.#random
    const asked = [ask(daemon)]
    const other = this.#pool.anyDaemon(random)
    if (other !== null && random.chance(0.25)) asked.push(ask(other))
    if (random.chance(0.15)) {
      await this.#universe.world.pause(random.between(10, 8_000))
      const later = this.#pool.anyDaemon(random)
      if (later !== null && !this.#universe.calm) asked.push(ask(later))
    }
    await Promise.all(asked)
  }

  async #create(daemon: SimulatedDaemon): Promise<void> {
    if (this.#own.length >= VOLUMES_MAX) return
    const sizes = 1 + this.#random.below(2)
    const volume = await this.#pool.createVolume(daemon, sizes * VOLUME_SIZE_MULTIPLE)
    if (volume !== null) this.#own.push(volume)
  }

  async #destroy(daemon: SimulatedDaemon): Promise<void> {
    if (this.#own.length === 0) return
    const volume = this.#random.pick(this.#own)
    await this.#twice(daemon, async on => {
      const isGone = await this.#pool.destroyVolume(on, volume)
      const at = this.#own.indexOf(volume)
      if (isGone && at !== -1) this.#own.splice(at, 1)
    })
  }

  async #stat(daemon: SimulatedDaemon, volume: KnownVolume): Promise<void> {
    const { sr } = this.#universe
    const answer = await this.#pool.call(daemon, 'volume', 'Volume.stat', { sr, key: volume.key })
    if (answer.kind !== 'done') return
    const { virtual_size: size } = answer.value as { virtual_size: number }
    if (!volume.mayHaveSize(size, 0)) this.#universe.problem(`P8: a volume's size is ${size}`)
  }

  async #rename(daemon: SimulatedDaemon, volume: KnownVolume, name: string): Promise<void> {
    const { world, sr } = this.#universe
    const setting = volume.beginName(name, world.now)
    const parameters = { sr, key: volume.key, new_name: name }
    const answer = await this.#pool.call(daemon, 'volume', 'Volume.set_name', parameters)
    if (answer.kind === 'done') setting.acknowledgedAt = world.now
  }

  async #setKey(daemon: SimulatedDaemon, volume: KnownVolume): Promise<void> {
    const { world, sr } = this.#universe
    const k = this.#random.pick(['vdi-type', 'snapshot-of', 'content-id'])
    const v = this.#random.chance(0.25) ? null : this.#random.uuid()
    const name = v === null ? 'Volume.unset' : 'Volume.set'
    await this.#twice(daemon, async on => {
      const setting = volume.beginKey(k, v, world.now)
      const answer = await this.#pool.call(on, 'volume', name, {
        sr,
        key: volume.key,
        k,
        ...(v === null ? {} : { v }),
      })
      if (answer.kind === 'done') setting.acknowledgedAt = world.now
    })
  }

  /** Refused while the volume is open; nobody asks for less than there is. */
  async #resize(daemon: SimulatedDaemon, volume: KnownVolume): Promise<void> {
    const { sr } = this.#universe
    const size = Math.min(volume.grantedSize + VOLUME_SIZE_MULTIPLE, SIZE_MAX)
    await this.#twice(daemon, async on => {
      volume.beginSize(size)
      const parameters = { sr, key: volume.key, new_size: size }
      const answer = await this.#pool.call(on, 'volume', 'Volume.resize', parameters)
      if (answer.kind === 'done') volume.granted(size)
    })
  }

  /** Somebody has a volume for a while, and does nothing with it. */
  async #use(daemon: SimulatedDaemon, volume: KnownVolume): Promise<void> {
    if (!this.#own.includes(volume)) return
    const { sr, world } = this.#universe
    const uri = `xosan://${sr}/${volume.key}`
    const domain = this.#pool.newDomain()
    const call = async (name: string): Promise<boolean> =>
      (await this.#pool.call(daemon, 'datapath', name, { uri, domain })).kind === 'done'
    if ((await call('Datapath.attach')) && (await call('Datapath.activate')))
      await world.pause(this.#random.between(0, 3_000))
    // Also what failed is taken back, as xapi does with the datapath of a VM that did not start; until it is.
    await call('Datapath.deactivate')
    while (!(await call('Datapath.detach'))) await world.pause(this.#random.between(100, 2_000))
  }
}
