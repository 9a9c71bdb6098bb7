/**
 * Volumes that nobody has open and whose replicas are not all in-sync. One that is open brings its replicas up to date
 * by itself; these are opened for it, by the first host with an in-sync replica that answers.
 */
import { reasonOf } from '../core/errors.ts'
import { type HostId, type SrId, type VolumeKey } from '../core/units.ts'
import { type VolumeContext } from '../volume/context.ts'
import { type Log } from './log.ts'

/** Resyncs begun in one round; each goes on by itself. */
const BEGUN_PER_ROUND = 8
/** A datapath process answers that it has begun, or why it does not. */
const BEGIN_MS = 10_000
/** A host that does not answer within this time is not worth a resync now. */
const PING_MS = 1_000

export class StaleVolumes {
  readonly #context: VolumeContext
  readonly #log: Log
  /** Those whose resync was begun and which are stale still, the one longest ago first. */
  #begun = new Set<VolumeKey>()

  constructor(context: VolumeContext, log: Log) {
    this.#context = context
    this.#log = log
  }

  /** Begins some resyncs that are this host's to begin; to be called again and again. */
  async resync(): Promise<void> {
    const hosts = new HostsUp(this.#context)
    const chosen: [VolumeKey, SrId][] = []
    for (const [key, sr] of this.#inTurn(await this.#worthwhile(hosts))) {
      if (chosen.length === BEGUN_PER_ROUND) break
      await this.#attempt(key, async () => {
        if (await this.#isOurs(sr, key, hosts)) chosen.push([key, sr])
      })
    }
    await Promise.all(chosen.map(async ([key, sr]) => this.#begin(sr, key)))
  }

  /** The volumes that this host could bring up to date, where a host with a stale replica answers. */
  async #worthwhile(hosts: HostsUp): Promise<Map<VolumeKey, SrId>> {
    const { metadata, host } = this.#context
    const stale = metadata.staleReplicas(host)
    const away = new Set<HostId>()
    await Promise.all(
      [...new Set(stale.map(replica => replica.host))].map(async other => {
        if (!(await hosts.isUp(other))) away.add(other)
      })
    )
    return new Map(stale.filter(replica => !away.has(replica.host)).map(({ key, sr }) => [key, sr]))
  }

  /** Those that had no turn yet first: one whose resync never succeeds must not keep the others from theirs. */
  #inTurn(volumes: ReadonlyMap<VolumeKey, SrId>): [VolumeKey, SrId][] {
    this.#begun = new Set([...this.#begun].filter(key => volumes.has(key)))
    const fresh = [...volumes].filter(([key]) => !this.#begun.has(key))
    return [...fresh, ...[...this.#begun].map((key): [VolumeKey, SrId] => [key, volumes.get(key)!])]
  }

  /** Whether a volume is closed still, and this host is the first with an in-sync replica that answers. */
  async #isOurs(sr: SrId, key: VolumeKey, hosts: HostsUp): Promise<boolean> {
    const state = this.#context.metadata.volume(sr, key)?.state
    if (state === undefined || state.primary !== null || state.operation !== undefined) return false
    const ranked = state.mirrors.flat().flatMap(({ host, inSync }) => (inSync ? [host] : []))
    const rank = ranked.indexOf(this.#context.host)
    for (const host of ranked.slice(0, rank)) if (await hosts.isUp(host)) return false
    return rank !== -1
  }

  async #begin(sr: SrId, volume: VolumeKey): Promise<void> {
    this.#begun.delete(volume)
    this.#begun.add(volume)
    this.#log.info('a closed volume has a stale replica; it is brought up to date', { sr, volume })
    await this.#attempt(volume, async () => {
      await this.#context.datapath.call('volume.resync', { sr, volume }, BEGIN_MS)
    })
  }

  /** What stops one volume, like a record that cannot be read, stops no other. */
  async #attempt(volume: VolumeKey, task: () => Promise<void>): Promise<void> {
    try {
      await task()
    } catch (error) {
      this.#log.warn('a stale replica could not be brought up to date', { volume, reason: reasonOf(error) })
    }
  }
}

/** Which hosts answer. Each is asked once in a round: one that lost power may be in the way of a thousand volumes. */
class HostsUp {
  readonly #context: VolumeContext
  readonly #answers = new Map<HostId, Promise<boolean>>()

  constructor(context: VolumeContext) {
    this.#context = context
  }

  async isUp(host: HostId): Promise<boolean> {
    const known = this.#answers.get(host)
    if (known !== undefined) return known
    const ping = this.#context.agent(host).peer('host.ping', {}, PING_MS)
    const answer = ping.then(
      () => true,
      () => false
    )
    this.#answers.set(host, answer)
    return answer
  }
}
