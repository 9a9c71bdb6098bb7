/** Carries out a schedule: fault after fault, under guests that check what they read, healing in between. */
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as delay } from 'node:timers/promises'
import { reasonOf } from '../../../core/errors.ts'
import { type PoolHost } from '../../../cli/lab/pool.ts'
import { showVolume } from '../../../cli/lab/volume-watch.ts'
import { type TestLab } from '../../support/test-lab.ts'
import { until } from '../cluster/bounded.ts'
import { heal, untilInSync, untilWhole } from '../cluster/cluster-state.ts'
import { kindOf } from './fault-kinds.ts'
import { type Inflicted, deflate, inflict } from './inflict.ts'
import { type LeftBehind } from './load-guest.ts'
import { type Episode, type Fault, type Schedule } from './schedule.ts'
import { type SoakVolume } from './soak-volume.ts'
import { type Tally } from './tally.ts'

/** After everything is healed a guest that is answered nothing for so long is stuck. */
const PROGRESS_DEADLINE_MS = 60_000
/** A takeover compares replicas in the background when they are in-sync already. */
const RECONCILE_MS = 3_000
const SERVING_DEADLINE_MS = 60_000
/** How often a move looks for a host that is not hit. */
const LOOK_MS = 100

/** What was promised: `docs/internals/failure-detection.md`. */
const STALL_MS_MAX = 5_000
const SERVED_ELSEWHERE_MS_MAX = 10_000

interface CampaignOptions {
  readonly lab: TestLab
  readonly schedule: Schedule
  readonly volumes: readonly SoakVolume[]
  readonly tally: Tally
  readonly log: (line: string) => void
}

/** What one fault is, done to this lab now. */
interface Hit {
  readonly fault: Fault
  readonly victim: PoolHost
  readonly other: PoolHost
  readonly text: string
}

export class Campaign {
  readonly #options: CampaignOptions
  readonly #lateness = monitorEventLoopDelay({ resolution: 20 })
  /** Hosts that are hit as a whole now, and how often. */
  readonly #hit = new Map<PoolHost, number>()
  /** Volumes that are being moved, and how long after the fault another host served. */
  readonly #moving = new Map<SoakVolume, Promise<number>>()

  constructor(options: CampaignOptions) {
    this.#options = options
    this.#lateness.enable()
  }

  /** Does one episode to its end. @throws Error when something is stuck, or the drill itself fails */
  async episode(number: number, episode: Episode): Promise<void> {
    const { volumes, lab, tally, log } = this.#options
    await delay(episode.calmMs)
    this.#lateness.reset()
    for (const { guest } of volumes) guest.mark()
    const done: Hit[] = []
    await Promise.all(
      episode.faults.map(async fault => {
        await delay(fault.afterMs)
        await this.#fault(fault, episode, done)
      })
    )
    const moves = await this.#moved()
    await deflate(lab)
    await heal(lab)
    const text = done.map(hit => hit.text).join(' + ')
    const waits = await this.#goOn()
    if (episode.settles) await this.settle()
    const lateMs = Math.round(this.#lateness.max / 1e6)
    const limits = this.#judge(done, waits, moves, lateMs)
    const faults = [...volumes.flatMap(volume => volume.takeFaults()), ...limits]
    tally.episode(
      done.map(({ fault }) => fault.kind),
      { waits: [...waits.values()], moves: [...moves.values()] }
    )
    for (const fault of faults) tally.fault(`episode ${number} (${text}): ${fault}`)
    const longest = Math.max(0, ...[...waits.values()])
    const served = moves.size === 0 ? '' : `, served elsewhere after ${seconds(Math.max(...moves.values()))}`
    const outcome = faults.length === 0 ? 'ok' : `FAILED: ${faults.join('; ')}`
    log(`episode ${number}: ${text}: longest wait ${seconds(longest)}${served}: ${outcome}`)
  }

  /**
   * Waits until everything is as it should be.
   *
   * @param asksEtcd see `untilWhole`
   * @throws Error with what is stuck
   */
  async settle(asksEtcd = false): Promise<void> {
    const { lab, volumes } = this.#options
    await untilWhole(lab, asksEtcd)
    for (const { host, volume } of volumes) {
      await untilInSync(host, volume)
      await until(`volume ${volume.key} serves`, SERVING_DEADLINE_MS, async () => {
        const { state, holding } = await showVolume(host, volume)
        return state === 'serving' ? null : `it is ${state}: ${holding.join(' ')}`
      })
    }
    await delay(RECONCILE_MS)
    for (const volume of volumes) volume.noteEqual()
  }

  async #fault(fault: Fault, episode: Episode, done: Hit[]): Promise<void> {
    const { lab, volumes, log } = this.#options
    const hit = await this.#resolve(fault, episode)
    const kind = kindOf(fault.kind)
    const victims = kind.ofAll ? lab.hosts : [hit.victim]
    const hitsHost = kind.primary === 'lost'
    const target = volumes[fault.volume]!
    const fates = this.#fatesOf(hit, target)
    for (const { volume } of fates.dying) volume.guest.doomed()
    if (hitsHost) for (const victim of victims) this.#hit.set(victim, (this.#hit.get(victim) ?? 0) + 1)
    log(`  ${hit.text} for ${seconds(fault.lastsMs)}`)
    done.push(hit)
    try {
      const inflicted = await this.#inflict(hit, target)
      if (inflicted === null) return
      for (const { volume, returns } of fates.dying) {
        await volume.guestDies()
        this.#move(volume, inflicted.startedAt, hit, null, returns)
      }
      for (const volume of fates.leaving) {
        const left = episode.leavesGuests ? volume.leaveGuest() : null
        if (left === null) await volume.guestDies()
        this.#move(volume, inflicted.startedAt, hit, left, false)
      }
      await delay(fault.lastsMs)
      await inflicted.end()
    } catch (error) {
      // Healing comes later, and says so when it cannot; a host may be hit twice, and then be gone already.
      log(`  ${hit.text}: ${reasonOf(error)}`)
    } finally {
      if (hitsHost) for (const victim of victims) this.#hit.set(victim, (this.#hit.get(victim) ?? 0) - 1)
    }
  }

  async #inflict(hit: Hit, target: SoakVolume): Promise<Inflicted | null> {
    const { lab, log } = this.#options
    const { fault, victim, other } = hit
    try {
      return await inflict(lab, fault.kind, {
        victim,
        other,
        datapath: target.datapath,
        bitsPerSecond: fault.bitsPerSecond ?? 0,
        lost: host => this.#noteLoss(host, () => true),
      })
    } catch (error) {
      log(`  ${hit.text}: not done: ${reasonOf(error)}`)
      return null
    }
  }

  /** Whose guests end by a fault, and whose are to be served elsewhere. To be asked right before it. */
  #fatesOf(
    hit: Hit,
    target: SoakVolume
  ): {
    readonly dying: readonly { readonly volume: SoakVolume; readonly returns: boolean }[]
    readonly leaving: readonly SoakVolume[]
  } {
    const kind = kindOf(hit.fault.kind)
    const ofProgram = hit.fault.kind.startsWith('datapath')
    const concerns = (volume: SoakVolume): boolean => !ofProgram || volume.datapath === target.datapath
    if (kind.endsDatapath) {
      for (const host of kind.ofAll ? this.#options.lab.hosts : [hit.victim]) this.#noteLoss(host, concerns)
    }
    const dying: { volume: SoakVolume; returns: boolean }[] = []
    const leaving: SoakVolume[] = []
    for (const volume of this.#options.volumes) {
      if (this.#moving.has(volume) || !concerns(volume)) continue
      const isHit = kind.ofAll || volume.host === hit.victim
      // Without a replica that has all, what its guest was told does not bind any more, wherever it is.
      const isOutlived = kind.endsDatapath && volume.survivors.length === 0
      const ends = kind.endsDatapath || kind.ofAll
      if ((isHit && kind.primary !== 'stays' && ends) || isOutlived) {
        dying.push({ volume, returns: kind.primary === 'guest ends' && hit.fault.lastsMs % 2 === 0 })
      } else if (isHit && kind.primary === 'lost') leaving.push(volume)
    }
    return { dying, leaving }
  }

  #noteLoss(host: PoolHost, concerns: (volume: SoakVolume) => boolean): void {
    if (!this.#options.schedule.powerCuts.includes(host.name)) return
    for (const volume of this.#options.volumes) if (concerns(volume)) volume.noteLoss(host)
  }

  /** @param returns to the same host, whose datapath process alone has ended */
  #move(volume: SoakVolume, startedAt: number, hit: Hit, left: LeftBehind | null, returns: boolean): void {
    const from = volume.host
    const all = kindOf(hit.fault.kind).ofAll
    const move = async (): Promise<number> => {
      const choose = (): PoolHost => {
        const { hosts } = this.#options.lab
        const well = hosts.filter(host => (this.#hit.get(host) ?? 0) === 0)
        if (returns && well.includes(from)) return from
        const elsewhere = well.filter(host => all || host !== from)
        const holding = elsewhere.filter(host => volume.holders.includes(host))
        // Mostly a holder, as an administrator would choose; sometimes a host that has to ask others for everything.
        const from2 = hit.fault.lastsMs % 3 === 0 || holding.length === 0 ? elsewhere : holding
        return from2[hit.fault.lastsMs % Math.max(1, from2.length)] ?? from
      }
      while (all && (this.#hit.get(from) ?? 0) > 0) await delay(LOOK_MS)
      return (await volume.moveTo(choose, left)) - startedAt
    }
    const moving = move()
    moving.catch(() => undefined)
    this.#moving.set(volume, moving)
  }

  /** Waits for all moves. @returns of each volume, after how many milliseconds another host served it */
  async #moved(): Promise<ReadonlyMap<SoakVolume, number>> {
    const moves = new Map<SoakVolume, number>()
    try {
      for (const [volume, moving] of this.#moving) moves.set(volume, Math.round(await moving))
    } finally {
      this.#moving.clear()
    }
    return moves
  }

  /** Every guest goes on. @returns the longest wait of each that knows, in milliseconds */
  async #goOn(): Promise<ReadonlyMap<SoakVolume, number>> {
    const waits = new Map<SoakVolume, number>()
    for (const volume of this.#options.volumes) {
      await volume.cleanUp()
      await volume.guest.progress(PROGRESS_DEADLINE_MS).catch((error: unknown) => {
        throw new Error(`stuck: volume ${volume.index} on ${volume.host.name}: ${reasonOf(error)}`)
      })
      const wait = await volume.guest.longestWaitMs()
      if (wait !== null) waits.set(volume, wait)
    }
    return waits
  }

  /** What took longer than was promised. Of several faults at once nothing was. */
  #judge(
    done: readonly Hit[],
    waits: ReadonlyMap<SoakVolume, number>,
    moves: ReadonlyMap<SoakVolume, number>,
    lateMs: number
  ): string[] {
    const [hit] = done
    if (done.length !== 1 || hit === undefined || !kindOf(hit.fault.kind).limited) return []
    const late = `(this idle program itself was kept waiting for up to ${lateMs} ms)`
    const faults: string[] = []
    for (const [volume, wait] of waits) {
      if (!moves.has(volume) && wait > STALL_MS_MAX) {
        faults.push(`volume ${volume.index} on ${volume.host.name} waited for ${wait} ms ${late}`)
      }
    }
    for (const [volume, served] of moves) {
      if (served > SERVED_ELSEWHERE_MS_MAX) {
        faults.push(`volume ${volume.index} was served by ${volume.host.name} after ${served} ms ${late}`)
      }
    }
    return faults
  }

  async #resolve(fault: Fault, { choice }: Episode): Promise<Hit> {
    const { lab, volumes } = this.#options
    const volume = volumes[fault.volume]!
    const primary = volume.host
    const pick = (hosts: readonly PoolHost[]): PoolHost | undefined =>
      hosts[choice % Math.max(1, hosts.length)]
    const secondary = pick(volume.holders.filter(host => host !== primary))!
    const bystander = pick(lab.hosts.filter(host => host !== primary && !volume.holders.includes(host)))
    let victim = { primary, secondary, bystander: bystander ?? secondary }[fault.role]
    const role = victim === primary ? 'primary' : victim === secondary ? 'secondary' : 'bystander'
    if (fault.kind.startsWith('etcd')) victim = (await this.#etcdHost(victim, choice)) ?? victim
    const other = victim === primary ? secondary : primary
    const oneWay = fault.kind === 'link cut one way' && choice % 2 === 1
    const [from, to] = oneWay ? [other, victim] : [victim, other]
    const who = fault.kind.startsWith('link') ? `${from.name}-${to.name}` : victim.name
    const text = kindOf(fault.kind).ofAll ? fault.kind : `${fault.kind} (${who}, ${role} of ${volume.index})`
    return { fault, victim: from, other: to, text }
  }

  /** The host itself when it has a member of etcd, else one that has. */
  async #etcdHost(host: PoolHost, choice: number): Promise<PoolHost | null> {
    const having: PoolHost[] = []
    for (const one of this.#options.lab.hosts) {
      if ((await (await this.#options.lab.control(one)).named()).has('etcd')) having.push(one)
    }
    return having.includes(host) ? host : (having[choice % Math.max(1, having.length)] ?? null)
  }
}

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`
