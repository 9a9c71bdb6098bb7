/**
 * Who starts, moves and takes volumes: an administrator who keeps one guest of each volume running, and rivals who take
 * one without asking anybody, as a high-availability script with a wrong idea does.
 */
import { reasonOf, XosanError } from '../../core/errors.ts'
import { type Millis, type SrId } from '../../core/units.ts'
import { Guest } from './guest.ts'
import { SECTOR_BYTES } from './history.ts'
import { type SimulatedHost } from './simulated-host.ts'
import { type SimulatedVolume } from './simulated-volume.ts'
import { type Transitions } from './transitions.ts'
import { type SimulatedProcess, type World } from './world.ts'

/** What the people of a universe see of it. */
export interface Surroundings {
  readonly world: World
  readonly hosts: readonly SimulatedHost[]
  readonly sr: SrId
  /** Guests stay where they are for long. */
  readonly steady: boolean
  readonly staged: boolean
  /** No fault will come any more: everybody goes home. */
  readonly calm: boolean
  readonly transitions: Transitions
  /** Whether a disk cannot read some sectors of a volume now. */
  cannotRead(volume: SimulatedVolume, first: number, end: number): boolean
  problem(text: string): void
  /** A guest's request was answered on a host. @param bytes what a read returned; null for others */
  answered(volume: SimulatedVolume, host: SimulatedHost, bytes: Uint8Array | null): void
  /** What was asked of a host's process failed, or was not answered. */
  failed(
    what: 'activation' | 'closing',
    volume: SimulatedVolume,
    host: SimulatedHost,
    since: number,
    error: unknown
  ): void
}

/** How the people of a universe reach a volume on a host. Each throws what it was told. */
export interface VolumeAccess {
  /** Attaches and activates it for a new guest. */
  activate(volume: SimulatedVolume, host: SimulatedHost): Promise<void>
  /** @param limitMs how long they have patience, in milliseconds; may be disregarded */
  deactivate(volume: SimulatedVolume, host: SimulatedHost, limitMs: number): Promise<void>
}

export class Administrator {
  readonly #around: Surroundings
  readonly #access: VolumeAccess
  #lastValue = 0
  /** Processes that had taken a volume up for a guest from before their start, or were about to. */
  readonly #takenUp = new Set<SimulatedProcess>()
  /** How often a volume was activated. */
  activations = 0
  /** How many of those who take a volume without asking are at it. */
  taking = 0

  /** @param access without it everybody asks the datapath processes themselves, as xosand would */
  constructor(around: Surroundings, access?: VolumeAccess) {
    this.#around = around
    this.#access = access ?? this.#direct()
  }

  #direct(): VolumeAccess {
    return {
      activate: async ({ key }, host) => {
        const { sr, transitions } = this.#around
        await this.ask(
          host,
          async () => {
            // The one that was asked; another may have taken its place between two of these.
            const node = host.node!
            await node.detach(key)
            await node.attach(sr, key)
            await node.activate(sr, key, 9_000 as Millis)
          },
          10_000
        ).catch((error: unknown) => {
          transitions.saw('activate', error instanceof XosanError ? error.code : 'no answer')
          throw error
        })
        transitions.saw('activate', 'ok')
      },
      deactivate: async ({ key }, host, limitMs) =>
        this.ask(host, async () => host.node!.deactivate(key, limitMs as Millis), limitMs + 1_000),
    }
  }

  /** Keeps one guest running somewhere: starts it, moves it, and restarts it elsewhere when its host seems dead. */
  async keepRunning(volume: SimulatedVolume): Promise<void> {
    const { random } = volume
    while (!this.#around.calm) {
      const active = await this.#activateSomewhere(volume)
      if (active === null) continue
      const { host, takenUp } = active
      const guest = this.#startGuest(volume, host, takenUp)
      if (guest === null) continue
      const stayMs = random.between(1_000, 12_000)
      await this.#watch(host, this.#around.steady || this.#around.staged ? 4 * stayMs : stayMs)
      // Else the guest is left alone: to somebody impatient it seemed dead, and it may go on.
      if (host.running && random.chance(0.6)) await this.#moveAway(volume, host, guest)
      if (random.chance(0.15)) await this.#maintain(volume)
    }
  }

  /** Somebody else, who takes the volume for free and starts a guest elsewhere, without asking anybody. */
  async rival(volume: SimulatedVolume): Promise<void> {
    const { random } = volume
    const { world, hosts } = this.#around
    while (!this.#around.calm) {
      await world.pause(random.between(300, 8_000))
      const candidates = hosts.filter(host => host.running && host !== volume.host)
      if (candidates.length > 0) await this.take(volume, random.pick(candidates))
    }
  }

  /** Activates a volume on a host and starts a guest there, if that succeeds. */
  async take(volume: SimulatedVolume, host: SimulatedHost): Promise<void> {
    if (!host.running || this.#around.calm) return
    this.taking++
    try {
      const takenUp = await this.#activate(volume, host)
      this.#startGuest(volume, host, takenUp)
    } catch (error) {
      this.#around.world.log('rival', `activation on ${host.name} failed: ${reasonOf(error)}`)
    } finally {
      this.taking--
    }
  }

  /** Closes a volume on a host. @throws what the host answered */
  async deactivate(volume: SimulatedVolume, host: SimulatedHost, limitMs: number): Promise<void> {
    await this.#access.deactivate(volume, host, limitMs)
  }

  /** Attaches and activates a volume on a host. @throws what the host answered */
  async open(volume: SimulatedVolume, host: SimulatedHost): Promise<void> {
    await this.#access.activate(volume, host)
  }

  /** Closes a volume in order, as a migration does, as far as that is possible. */
  async close(volume: SimulatedVolume, host: SimulatedHost): Promise<void> {
    const { world } = this.#around
    const since = world.now
    try {
      await this.#access.deactivate(volume, host, 4_000)
      world.log('admin', `${volume.key.slice(0, 8)} is closed on ${host.name}`)
    } catch (error) {
      this.#around.failed('closing', volume, host, since, error)
      world.log('admin', `deactivation on ${host.name} failed: ${reasonOf(error)}`)
    }
  }

  /** Asks a host's process for something, as xosand would. @throws when it does not answer within the limit */
  async ask<Result>(
    host: SimulatedHost,
    action: () => Promise<Result> | Result,
    limitMs: number
  ): Promise<Result> {
    const { process } = host
    return new Promise<Result>((resolve, reject) => {
      const timer = this.#around.world.after(limitMs, () => reject(new Error('the process did not answer')))
      process?.deliver(() => {
        Promise.resolve()
          .then(action)
          .then(
            result => {
              timer.cancel()
              resolve(result)
            },
            (error: unknown) => {
              timer.cancel()
              reject(error instanceof Error ? error : new Error(String(error)))
            }
          )
      })
    })
  }

  async #activateSomewhere(
    volume: SimulatedVolume
  ): Promise<{ host: SimulatedHost; takenUp: boolean } | null> {
    const { random } = volume
    const { world, hosts } = this.#around
    const before = volume.host
    const candidates = hosts.filter(({ running }) => running)
    if (candidates.length === 0) {
      await world.pause(200)
      return null
    }
    const host = random.pick(candidates)
    try {
      if (before !== null && before !== host && before.running && random.chance(0.5)) {
        await this.#access.deactivate(volume, before, 3_000)
      }
      const takenUp = await this.#activate(volume, host)
      volume.host = host
      return { host, takenUp }
    } catch (error) {
      world.log('admin', `activation on ${host.name} failed: ${reasonOf(error)}`)
      await world.pause(random.between(50, 800))
      return null
    }
  }

  /** @returns whether the process took a volume up for a guest from before its start, and nobody may have flushed since */
  async #activate(volume: SimulatedVolume, host: SimulatedHost): Promise<boolean> {
    const { world } = this.#around
    const { key } = volume
    const since = world.now
    const known = volume.guests.some(({ process }) => process === host.process)
    const mirror = host.node?.volume(key)?.mirror ?? null
    if (!known && (mirror !== null || host.remembersGuest(key))) this.#takenUp.add(host.process!)
    await this.#access.activate(volume, host).catch((error: unknown) => {
      this.#around.failed('activation', volume, host, since, error)
      throw error
    })
    this.activations++
    return host.process !== null && this.#takenUp.has(host.process)
  }

  /**
   * @param takenUp whoever flushes first is told of what a guest of before may have lost
   * @returns null when the volume is not there any more: a request from before was answered late, and ended it
   */
  #startGuest(volume: SimulatedVolume, host: SimulatedHost, takenUp: boolean): Guest | null {
    const { key, history, durability, hotSectors, random } = volume
    const { world } = this.#around
    const { device = null, mirror = null } = host.node?.volume(key) ?? {}
    if (device === null || mirror === null) return null
    // The process may be another one by now, which has not found out yet that it is to serve.
    if (mirror.replicas().length === 0) return null
    // Who came later has the higher epoch.
    const tenure = mirror.epoch()
    world.log('admin', `guest ${tenure} of ${key.slice(0, 8)} starts on ${host.name}`)
    const guest = new Guest({
      world,
      random: random.fork(),
      process: host.process!,
      device,
      history,
      durability,
      hotSectors,
      sectors: device.size / SECTOR_BYTES,
      tenure,
      host: host.name,
      nextValue: () => ++this.#lastValue,
      quietUntil: () => volume.quietUntil,
      takenUp,
      mustFlush: this.#around.staged,
      cannotRead: (first, end) => this.#around.cannotRead(volume, first, end),
      problem: text => this.#around.problem(text),
      answered: bytes => this.#around.answered(volume, host, bytes),
      log: text => world.log(host.name, `guest ${tenure}: ${text}`),
    })
    volume.guests.push(guest)
    // Where guests stay for long, few requests tell as much.
    const depth = random.below(this.#around.steady ? 2 : 8)
    guest.start(1 + depth, random.below(3))
    return guest
  }

  async #watch(host: SimulatedHost, durationMs: number): Promise<void> {
    const { world } = this.#around
    const until = world.now + durationMs
    const { process } = host
    while (world.now < until && !this.#around.calm && host.process === process) await world.pause(100)
  }

  async #moveAway(volume: SimulatedVolume, host: SimulatedHost, guest: Guest): Promise<void> {
    const { world } = this.#around
    if (volume.random.chance(0.6)) {
      const stopped = await Promise.race([
        guest.stop().then(() => true),
        world.pause(5_000).then(() => false),
      ])
      if (!stopped) return
    }
    if (!host.running) return
    await this.close(volume, host)
    guest.abandon()
  }

  async #maintain(volume: SimulatedVolume): Promise<void> {
    const { world, hosts, sr } = this.#around
    const host = volume.random.pick(hosts)
    if (!host.running) return
    await this.ask(host, async () => host.node!.resync(sr, volume.key), 1_000).catch(() => undefined)
    await world.pause(volume.random.between(100, 3_000))
  }
}
