import { type Millis } from '../../core/units.ts'
import { type Fate } from './simulated-coordinator.ts'
import { type SimulatedHost } from './simulated-host.ts'
import { type Universe } from './universe.ts'
import { type SeededRandom } from './world.ts'

type Kind =
  | 'process dies'
  | 'process dies while cut off'
  | 'process stops'
  | 'power cut'
  | 'power cut everywhere'
  | 'link cut'
  | 'link cut one way'
  | 'host cut off'
  | 'slow disk'
  | 'slow network'
  | 'coordinator away'
  | 'coordinator unsure'

/** How often each kind is drawn, relative to the others. */
const WEIGHTS: Readonly<Record<Kind, number>> = {
  'process dies': 5,
  'process dies while cut off': 3,
  'process stops': 4,
  'power cut': 4,
  'power cut everywhere': 0.6,
  'link cut': 3,
  'link cut one way': 4,
  'host cut off': 3,
  'slow disk': 2,
  'slow network': 1,
  'coordinator away': 2,
  'coordinator unsure': 4,
}

/** Brings faults upon a universe, several at a time, and takes them away again. */
export class FaultSchedule {
  readonly counts: Record<string, number> = {}
  readonly #universe: Universe
  readonly #random: SeededRandom
  readonly #away = new Set<string>()
  readonly #unsure = new Set<string>()
  #over = false

  constructor(universe: Universe) {
    this.#universe = universe
    this.#random = universe.world.random.fork()
  }

  /** What becomes of a call to the coordinator. */
  fateOf(client: string): Fate {
    const random = this.#random
    const beforeMs = random.between(0.2, 3) as Millis
    const afterMs = random.between(0.2, 3) as Millis
    if (this.#away.has(client)) return { kind: 'unavailable', afterMs: 300 as Millis }
    if (this.#unsure.has(client) && random.chance(0.4)) {
      const effectMs = random.chance(0.4) ? null : (random.between(1, 1500) as Millis)
      return { kind: 'unknown', afterMs: random.between(5, 800) as Millis, effectMs }
    }
    return { kind: 'answer', beforeMs, afterMs }
  }

  /** Lets faults happen for a time, in milliseconds; everything is healed when this resolves. */
  async run(durationMs: number): Promise<void> {
    const { world } = this.#universe
    // Universes differ in how rough they are.
    const meanGapMs = this.#random.between(400, 4_000)
    const until = world.now + durationMs
    while (world.now < until) {
      await world.pause(this.#random.between(0, 2 * meanGapMs))
      void this.#strike(this.#draw())
    }
    this.#over = true
    this.#healAll()
  }

  #draw(): Kind {
    const kinds = Object.keys(WEIGHTS) as Kind[]
    let at = this.#random.fraction() * kinds.reduce((sum, kind) => sum + WEIGHTS[kind], 0)
    for (const kind of kinds) {
      at -= WEIGHTS[kind]
      if (at < 0) return kind
    }
    return 'process dies'
  }

  async #strike(kind: Kind): Promise<void> {
    const { world, hosts, network } = this.#universe
    const random = this.#random
    const host = random.pick(hosts)
    const others = hosts.filter(other => other !== host)
    const short = random.chance(0.6)
    const durationMs = short ? random.between(20, 1_500) : random.between(1_500, 25_000)
    this.counts[kind] = (this.counts[kind] ?? 0) + 1
    world.log('FAULT', `${kind}: ${host.name} for ${durationMs.toFixed(0)} ms`)
    switch (kind) {
      case 'process dies':
        if (host.process === null) return
        host.crash()
        await this.#wait(random.between(50, 1_500))
        this.#startAgain(host)
        return
      case 'process dies while cut off': {
        // What it promised is forgotten while the one it promised to cannot remind it.
        if (host.process === null) return
        const other = random.pick(others)
        network.cut(host, other)
        network.cut(other, host)
        host.crash()
        await this.#wait(random.between(20, 300))
        this.#startAgain(host)
        break
      }
      case 'process stops':
        if (!host.running) return
        host.pause()
        await this.#wait(durationMs)
        if (host.process?.paused === true) host.resume()
        return
      case 'power cut':
        await this.#cutPower([host], random.between(500, 12_000))
        return
      case 'power cut everywhere':
        await this.#cutPower(hosts, random.between(500, 5_000))
        return
      case 'link cut': {
        const other = random.pick(others)
        network.cut(host, other)
        network.cut(other, host)
        break
      }
      case 'link cut one way':
        network.cut(host, random.pick(others))
        break
      case 'host cut off':
        for (const other of others) {
          if (random.chance(0.7)) network.cut(host, other)
          network.cut(other, host)
        }
        if (random.chance(0.5)) this.#away.add(host.name)
        await this.#wait(durationMs)
        this.#away.delete(host.name)
        network.heal()
        return
      case 'slow disk':
        host.diskSlowness = random.between(5, 200)
        await this.#wait(Math.min(durationMs, 8_000))
        host.diskSlowness = 1
        return
      case 'slow network':
        network.delayMs = random.between(2, 60)
        await this.#wait(durationMs)
        network.delayMs = 0.3
        return
      case 'coordinator away': {
        const all = random.chance(0.5) ? hosts : [host]
        for (const { name } of all) this.#away.add(name)
        await this.#wait(durationMs)
        for (const { name } of all) this.#away.delete(name)
        return
      }
      case 'coordinator unsure':
        this.#unsure.add(host.name)
        await this.#wait(durationMs)
        this.#unsure.delete(host.name)
        return
    }
    await this.#wait(durationMs)
    network.heal()
  }

  async #cutPower(hosts: readonly SimulatedHost[], forMs: number): Promise<void> {
    const hit = hosts.filter(({ poweredOn }) => poweredOn)
    for (const host of hit) host.cutPower()
    if (hit.length > 0) this.#universe.powerWasCut()
    for (const host of hit) {
      await this.#wait(forMs * this.#random.between(0.2, 1))
      this.#startAgain(host)
    }
  }

  async #wait(ms: number): Promise<void> {
    await this.#universe.world.pause(ms)
  }

  #startAgain(host: SimulatedHost): void {
    host.start()
  }

  #healAll(): void {
    const { hosts, network } = this.#universe
    this.#away.clear()
    this.#unsure.clear()
    network.delayMs = 0.3
    network.heal()
    for (const host of hosts) {
      host.diskSlowness = 1
      if (host.process?.paused === true) host.resume()
      host.start()
    }
  }

  /** True once no more faults come. */
  get over(): boolean {
    return this.#over
  }
}
