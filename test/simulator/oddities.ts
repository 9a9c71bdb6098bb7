/** What hardly ever happens, and must be survived all the same. */
import { volumeStateKey } from '../../cluster/keys.ts'
import { DEFAULT_TIMING } from '../../core/mirror/timing.ts'
import { type Incarnation } from '../../core/units.ts'
import { passingVolume } from './passing-volumes.ts'
import { type SimulatedHost } from './simulated-host.ts'
import { type SimulatedVolume } from './simulated-volume.ts'
import { type Universe } from './universe.ts'
import { type SeededRandom } from './world.ts'

export type OddityKind = 'a volume is removed' | 'processes are made up'

/** More than a process remembers of its peers. */
const MADE_UP = 1_200

export class Oddities {
  readonly #universe: Universe
  readonly #random: SeededRandom
  /** Records that nobody can read now -> what was there. */
  readonly #unreadable = new Map<string, string>()

  constructor(universe: Universe, random: SeededRandom) {
    this.#universe = universe
    this.#random = random
  }

  /** Whether somebody has put something into a volume's record that is not one. */
  get isUnreadable(): boolean {
    return this.#unreadable.size > 0
  }

  async strike(kind: OddityKind, host: SimulatedHost): Promise<void> {
    switch (kind) {
      case 'a volume is removed':
        // In a pool, xosand removes volumes.
        if (this.#universe.pool === null) await passingVolume(this.#universe, this.#random)
        return
      case 'processes are made up':
        return this.#makeUp(host)
    }
  }

  /** All records can be read again. */
  heal(): void {
    for (const record of [...this.#unreadable.keys()]) this.#mend(record)
  }

  /**
   * A peer that is broken names another process in each of its heartbeats. Until they are forgotten, one promise time
   * later, no process that is new to this host gets a promise from it.
   */
  async #makeUp(host: SimulatedHost): Promise<void> {
    const { world } = this.#universe
    const { process, node } = host
    if (!host.running) return
    for (let i = 0; i < MADE_UP; i++) {
      const from = { ...node!.identity, incarnation: this.#random.uuid() as Incarnation }
      process!.deliver(() => void node!.replicas.heartbeat({ from, echo: 0 }))
    }
    // Until then whatever waits for a promise of this host waits longer.
    for (let ms = 0; ms < 1.1 * DEFAULT_TIMING.promiseTimeMs; ms += 500) {
      host.disturb()
      await world.pause(500)
    }
  }

  /** Something that is no record takes the place of one, and the record is put back after a while. */
  async spoil(volume: SimulatedVolume, durationMs: number): Promise<void> {
    const { coordinator, sr, world } = this.#universe
    const record = volumeStateKey(sr, volume.key)
    if (this.#unreadable.has(record)) return
    this.#universe.stateOf(volume)
    this.#unreadable.set(record, coordinator.read(record).entry!.value)
    coordinator.transact('a stranger', [], [{ key: record, value: '{"version":2}' }])
    await world.pause(durationMs)
    this.#mend(record)
  }

  #mend(record: string): void {
    const value = this.#unreadable.get(record)
    if (value === undefined) return
    this.#universe.coordinator.transact('who mends it', [], [{ key: record, value }])
    this.#unreadable.delete(record)
  }
}
