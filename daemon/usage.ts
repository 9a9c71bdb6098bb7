import { type VolumeKey } from '../core/units.ts'
import { type Clock } from '../core/ports/clock.ts'
import { type HostAgent, type StoredVolume, type Usage } from '../volume/context.ts'
import { type HostId } from '../core/units.ts'

/** How old a figure may be before it is measured again; xapi shows it and decides nothing by it. */
const AGE_MAX_MS = 5000
/** With many volumes figures may be older, so that no more than this many are measured in a second. */
const MEASURED_PER_SECOND = 100
const MEASURE_MS = 5000
/** Measurements at one time; a scan of ten thousand volumes must not load the datapath processes with all at once. */
const CONCURRENCY_MAX = 4

interface Figure {
  readonly bytes: number
  readonly at: number
}

/**
 * Space that volumes take, measured in the background on this host's replica, or on another host's where there is
 * none. A question is always answered at once, with the last figure.
 */
export class MeasuredUsage implements Usage {
  readonly #host: HostId
  readonly #clock: Clock
  readonly #agent: (host: HostId) => HostAgent
  readonly #figures = new Map<VolumeKey, Figure>()
  readonly #waiting = new Map<VolumeKey, StoredVolume>()
  readonly #underWay = new Set<VolumeKey>()

  constructor({ host, clock, agent }: { host: HostId; clock: Clock; agent: (host: HostId) => HostAgent }) {
    this.#host = host
    this.#clock = clock
    this.#agent = agent
  }

  physicalBytes(volume: StoredVolume): number {
    const figure = this.#figures.get(volume.key)
    const ageMaxMs = Math.max(AGE_MAX_MS, (this.#figures.size * 1000) / MEASURED_PER_SECOND)
    if (figure === undefined || this.#clock.now() - figure.at > ageMaxMs) {
      this.#waiting.set(volume.key, volume)
      this.#next()
    }
    return figure?.bytes ?? 0
  }

  /** Null when it was never measured. */
  known(volume: VolumeKey): number | null {
    return this.#figures.get(volume)?.bytes ?? null
  }

  #next(): void {
    if (this.#underWay.size >= CONCURRENCY_MAX) return
    for (const [key, volume] of this.#waiting) {
      if (this.#underWay.size >= CONCURRENCY_MAX) return
      this.#waiting.delete(key)
      if (this.#underWay.has(key)) continue
      this.#underWay.add(key)
      void this.#measure(volume).finally(() => {
        this.#underWay.delete(key)
        this.#next()
      })
    }
  }

  async #measure({ sr, key, state }: StoredVolume): Promise<void> {
    const replicas = state.mirrors.flat()
    const host = replicas.find(replica => replica.host === this.#host)?.host ?? replicas[0]?.host
    if (host === undefined) return
    try {
      const { physicalBytes } = await this.#agent(host).replica(
        'replica.stat',
        { sr, volume: key },
        MEASURE_MS
      )
      this.#figures.set(key, { bytes: physicalBytes, at: this.#clock.now() })
    } catch {
      // The last figure stays; a volume that is gone is asked for no more.
      const last = this.#figures.get(key)
      if (last !== undefined) this.#figures.set(key, { ...last, at: this.#clock.now() })
    }
  }
}
