/**
 * Faults that come at the worst moment. Independent faults, however many, seldom meet the few milliseconds in which a
 * protocol is between two of its steps, and seldom strike the one host that matters then. So some faults here are
 * drawn when something happened (a replica is about to accept, a record has changed, an answer was lost), and strike
 * those who take part in it; and some are plots: a primary is left behind by its peers while another one takes over.
 */
import { inSyncReplicas, replicasOf } from '../../core/mirror/volume-change.ts'
import { type SimulatedHost } from './simulated-host.ts'
import { type SimulatedVolume } from './simulated-volume.ts'
import { type Universe } from './universe.ts'
import { type SeededRandom } from './world.ts'

/** Syncs are many: how much rarer a blow follows one of them than it follows another moment. */
const SYNCS = 0.02

/** What a host, or somebody about it, has just done. */
export type Moment =
  | 'asked to accept'
  | 'has accepted'
  | 'asked to confirm'
  | 'asked to raise'
  | 'asked for a session'
  | 'asked for intents'
  | 'asked to clear'
  | 'asked to finish'
  | 'changed the record'
  | 'did not learn what it did'
  | 'about to sync'

type Blow =
  | 'dies'
  | 'stops'
  | 'loses power'
  | 'is cut off'
  | 'cannot send to one'
  | 'is slow'
  | 'has a disk that hangs'
  | 'is overtaken'

const BLOWS: readonly Blow[] = [
  'dies',
  'stops',
  'loses power',
  'is cut off',
  'cannot send to one',
  'is slow',
  'has a disk that hangs',
  'is overtaken',
]

interface ActiveVolume {
  readonly volume: SimulatedVolume
  readonly primary: SimulatedHost
  readonly others: readonly SimulatedHost[]
}

export class Coincidences {
  readonly #universe: Universe
  readonly #random: SeededRandom
  /** How likely a moment brings a blow. Universes differ: in some the faults do not follow what happens. */
  readonly #chance: number
  /** Who reserves a volume at the same time as others, and shall be held up once he has. */
  readonly #contended = new Map<SimulatedHost, SimulatedVolume>()
  /** Who is about to take a replica out, and what follows at that moment. */
  #excluding: readonly [SimulatedHost, () => void] | null = null
  /** Whose next sync somebody waits for, and what follows then. */
  #syncing: readonly [SimulatedHost, () => void] | null = null
  /** Faults have begun and are not over. */
  active = false

  constructor(universe: Universe) {
    this.#universe = universe
    this.#random = universe.world.random.fork()
    const chance = this.#random.pick([0, 0.003, 0.01, 0.03])
    this.#chance = universe.steady || universe.staged ? 0 : chance
  }

  /** Something is to follow when a host begins to sync a file. */
  atNextSync(host: SimulatedHost, action: () => void): void {
    this.#syncing = [host, action]
  }

  /** Something happened that a fault may follow at once. */
  noticed(moment: Moment, host: SimulatedHost): void {
    // Much more often than any other of the moments: sessions come and go, and records change.
    const rare = moment === 'did not learn what it did' || moment === 'has accepted' ? 8 : 1
    if (!this.active) return
    if (moment === 'about to sync') {
      const [syncing, follows] = this.#syncing ?? []
      if (syncing === host) {
        this.#syncing = null
        follows!()
      }
      if (this.#random.chance(this.#chance * SYNCS)) void this.#dieInSync(host)
      return
    }
    const contended = this.#contended.get(host)
    const [excluding, cutOff] = this.#excluding ?? []
    if (moment === 'changed the record' && excluding === host) cutOff!()
    if (moment === 'changed the record' && contended !== undefined) void this.#holdUp(host, contended)
    else if (moment === 'did not learn what it did' && this.#random.chance(0.5)) void this.#useDoubt(host)
    else if (this.#random.chance(this.#chance * rare)) void this.#strikeAfter(moment, host)
  }

  /** A process dies in a sync, and what it had only written is gone soon after the next one has seen it. */
  async #dieInSync(host: SimulatedHost): Promise<void> {
    const { faults, hosts, world } = this.#universe
    const random = this.#random
    await world.pause(random.between(0, 1))
    if (!this.active) return
    world.log('FAULT', `${host.name} dies in a sync`)
    faults.count('dies in a sync')
    await faults.kill(host, random.between(20, 600))
    await world.pause(random.between(20, 1_500))
    if (random.chance(0.3)) return
    await faults.cutPower(random.chance(0.7) ? hosts : [host], random.between(200, 3_000))
  }

  /**
   * A primary does not learn whether its change of the record was made. If it now believes the wrong thing, this shows
   * it: the other replica goes, the primary goes on alone for a moment, then it is cut off and the other takes over.
   */
  async #useDoubt(host: SimulatedHost): Promise<void> {
    const { faults, administrator, hosts, volumes, world } = this.#universe
    const random = this.#random
    const volume = volumes.find(candidate => this.#universe.stateOf(candidate).primary === host.id)
    if (volume === undefined) return
    const replicas = replicasOf(this.#universe.stateOf(volume)).filter(replica => replica.host !== host.id)
    const stale = replicas.find(({ inSync }) => !inSync)
    // Doubt about who is put back is the worst: the one that was not may be trusted.
    if (stale === undefined && !random.chance(0.3)) return
    const other = hosts.find(({ id }) => id === (stale ?? replicas[0])?.host)
    if (other === undefined) return
    world.log('FAULT', `${host.name} is in doubt: ${other.name} goes, and comes back in its place`)
    faults.count('doubt is used')
    const awayMs = random.between(100, 1_500)
    void faults.kill(other, awayMs)
    await world.pause(awayMs * random.between(0.5, 1))
    void faults.isolate(host, hosts, true, random.between(6_000, 9_000))
    for (let attempt = 0; attempt < 4 && this.active; attempt++) {
      await world.pause(random.between(200, 1_500))
      await administrator.take(volume, other)
    }
  }

  async #strikeAfter(moment: Moment, host: SimulatedHost): Promise<void> {
    const { world, hosts } = this.#universe
    const random = this.#random
    // Often two in a row: the one that would have saved the day is struck as well.
    for (let blows = random.chance(0.4) ? 2 : 1; blows > 0; blows--) {
      await world.pause(random.chance(0.7) ? random.between(0, 5) : random.between(5, 800))
      if (!this.active) return
      const victim = random.chance(0.5) ? host : random.pick(hosts)
      const blow = random.pick(BLOWS)
      this.#universe.faults.count(`at the moment: ${blow}`)
      world.log('FAULT', `${host.name} ${moment}: ${victim.name} ${blow}`)
      void this.#strike(victim, blow)
    }
  }

  async #strike(host: SimulatedHost, blow: Blow): Promise<void> {
    const { faults, volumes, hosts, world } = this.#universe
    const random = this.#random
    const shortMs = random.chance(0.7) ? random.between(10, 1_500) : random.between(1_500, 7_000)
    switch (blow) {
      case 'dies':
        return faults.kill(host, random.between(20, 1_000))
      case 'stops':
        return faults.stop(host, shortMs)
      case 'loses power':
        return faults.cutPower([host], random.between(200, 5_000))
      case 'is cut off':
        return faults.isolate(host, hosts, random.chance(0.5), shortMs)
      case 'cannot send to one':
        return faults.cut([[host, random.pick(hosts)]], shortMs)
      case 'is slow':
        return faults.slowDisk(host, random.between(20, 200), Math.min(shortMs, 3_000))
      case 'has a disk that hangs':
        return faults.hangDisk(host, 3 * shortMs)
      case 'is overtaken': {
        await world.pause(random.between(0, 300))
        const others = hosts.filter(other => other !== host)
        await this.#universe.administrator.take(random.pick(volumes), random.pick(others))
      }
    }
  }

  /**
   * A live primary is left behind: it is cut off from some of its replicas or from everybody, perhaps stopped, perhaps
   * those who owe it a promise forget it in a restart; and somebody takes the volume elsewhere, soon or late. Its
   * guest goes on reading.
   */
  async leavePrimaryBehind(): Promise<void> {
    const { faults, administrator, hosts, world } = this.#universe
    const random = this.#random
    const target = this.#activeVolume()
    if (target === null) return
    const { volume, primary, others } = target
    const lastsMs = random.between(2_000, 14_000)
    const holders = replicasOf(this.#universe.stateOf(volume)).map(({ host }) => host)
    const candidates = random.shuffled(others).sort((a, b) => rank(a, holders) - rank(b, holders))
    if (random.chance(0.3)) return this.#outlivePromise(target, candidates[0]!, lastsMs)
    if (random.chance(0.3)) return this.#cutOffAfterExclusion(target, holders, lastsMs)
    const taker = random.chance(0.7) ? candidates[0]! : random.pick(others)
    world.log(
      'FAULT',
      `${primary.name} is left behind for ${lastsMs.toFixed(0)} ms, ${taker.name} takes over`
    )
    const away = random.chance(0.6)
    const [from, how] = [random.chance(0.6) ? hosts : [taker], random.fraction()]
    if (how < 0.75) void faults.isolate(primary, from, away, lastsMs)
    // What is on its way then is on one replica and not on the other.
    const guest = volume.guests.findLast(({ process }) => process === primary.process)
    if (random.chance(0.5)) guest?.scatter(1 + random.below(6))
    if (how > 0.6) void faults.stop(primary, lastsMs * random.fraction())
    if (random.chance(0.4)) void faults.kill(taker, random.between(5, 150))
    const [again, gapMs] = [1 + random.below(6), random.between(20, 2_000)]
    for (let attempt = 0; attempt < again && this.active; attempt++) {
      await world.pause(random.between(0, gapMs))
      await administrator.take(volume, taker)
    }
  }

  /**
   * The primary hears nobody, and the process that owes it a promise dies, is there again in a moment, and is asked for
   * the volume at once. Until the primary's share of the promise is over its guest reads what may be old by then.
   */
  async #outlivePromise(
    { volume, primary }: ActiveVolume,
    taker: SimulatedHost,
    lastsMs: number
  ): Promise<void> {
    const { faults, administrator, hosts, world } = this.#universe
    const random = this.#random
    world.log('FAULT', `${primary.name} hears nobody, ${taker.name} forgets what it owes and takes over`)
    faults.count('a promise is forgotten')
    volume.guests.findLast(({ process }) => process === primary.process)?.onlyRead(world.now + lastsMs)
    await world.pause(random.between(0, 200))
    void faults.isolate(primary, hosts, true, lastsMs)
    await faults.kill(taker, random.between(5, 60))
    for (let attempt = 0; attempt < 6 && this.active; attempt++) {
      await world.pause(random.between(0, 300))
      await administrator.take(volume, taker)
    }
  }

  /**
   * A replica's host dies, and in the moment in which the primary has taken it out of the record, before any other host
   * hears of that, the primary is cut off; it relies on what those have promised, and its guest goes on reading.
   */
  async #cutOffAfterExclusion(
    { volume, primary, others }: ActiveVolume,
    holders: readonly string[],
    lastsMs: number
  ): Promise<void> {
    const { faults, administrator, hosts, world } = this.#universe
    const random = this.#random
    const [lost] = random.shuffled(others.filter(({ id }) => holders.includes(id)))
    if (lost === undefined || this.#excluding !== null) return
    world.log('FAULT', `${primary.name} is to be cut off when it has taken ${lost.name} out`)
    const done = { cut: false }
    const guest = volume.guests.findLast(({ process }) => process === primary.process)
    this.#excluding = [
      primary,
      () => {
        this.#excluding = null
        done.cut = true
        faults.count('cut off after an exclusion')
        void faults.isolate(primary, hosts, random.chance(0.5), lastsMs)
        if (random.chance(0.6)) guest?.onlyRead(world.now + lastsMs)
      },
    ]
    if (random.chance(0.5)) guest?.scatter(1 + random.below(4))
    void faults.kill(lost, random.between(500, 9_000))
    const limit = world.now + 3_000
    while (this.active && !done.cut && world.now < limit) await world.pause(1)
    this.#excluding = null
    const taker = random.pick(others)
    for (let attempt = 0; done.cut && attempt < 6 && this.active; attempt++) {
      await world.pause(random.between(0, 300))
      await administrator.take(volume, taker)
    }
  }

  /** Several hosts activate a volume at the same instant, and some of them are held up on the way. */
  async contend(): Promise<void> {
    const { faults, administrator, volumes, hosts, world } = this.#universe
    const random = this.#random
    const volume = random.pick(volumes)
    const state = this.#universe.stateOf(volume)
    const active = hosts.find(({ id }) => id === state.primary)
    world.log('FAULT', `all contend for ${volume.key.slice(0, 8)}`)
    if (active?.running === true && random.chance(0.7)) await administrator.close(volume, active)
    for (const host of hosts) {
      const lag = random.between(0, 12)
      const how = random.fraction()
      if (how < 0.35) this.#contended.set(host, volume)
      else if (how < 0.6) world.after(lag + random.between(0, 15), () => void this.#holdUp(host, volume))
      world.after(lag, () => {
        void administrator.take(volume, host).finally(() => this.#contended.delete(host))
      })
      if (random.chance(0.3)) {
        void faults.cut([[host, random.pick(hosts)]], random.between(100, 3_000))
      }
    }
  }

  /** A contender is stopped, and when it goes on it does not see the one who won meanwhile. */
  async #holdUp(host: SimulatedHost, volume: SimulatedVolume): Promise<void> {
    const { faults, hosts } = this.#universe
    this.#contended.delete(host)
    await faults.stop(host, this.#random.between(20, 1_000))
    const { primary } = this.#universe.stateOf(volume)
    const winner = hosts.find(({ id }) => id === primary)
    if (winner !== undefined && this.#random.chance(0.6)) {
      void faults.isolate(host, [winner], false, this.#random.between(300, 5_000))
    }
  }

  /**
   * A replica comes back, while all disks are slow and the guest works, or while it rests; and often all power goes the
   * moment the replica is back.
   */
  async returnUnderLoad(): Promise<void> {
    const { faults, hosts, world } = this.#universe
    const random = this.#random
    const target = this.#activeVolume()
    if (target === null) return
    const { volume, others } = target
    const holders = replicasOf(this.#universe.stateOf(volume)).map(({ host }) => host)
    const holder = others.find(({ id }) => holders.includes(id))
    if (holder === undefined) return
    world.log('FAULT', `${holder.name} goes and comes back to slow disks`)
    const guest = volume.guests.findLast(({ process }) => process === target.primary.process)
    const awayMs = random.between(600, 3_000)
    if (random.chance(0.5)) world.after(awayMs * 0.9, () => guest?.scatter(4 + random.below(12)))
    await faults.kill(holder, awayMs)
    if (random.chance(0.5)) void faults.doubt(target.primary, random.between(1_000, 5_000))
    const rests = random.chance(0.4)
    if (rests) volume.quietUntil = world.now + random.between(1_000, 5_000)
    const limit = world.now + 8_000
    const isReached = (): boolean => holder.node?.replicas.holderOf(volume.key)?.inSession === true
    while (this.active && !isReached() && world.now < limit) await world.pause(1)
    if (!rests) {
      for (const host of hosts) void faults.slowDisk(host, random.between(5, 120), random.between(300, 3_000))
      const how = random.fraction()
      if (how < 0.3) {
        // What it was sent meanwhile is being made durable, or is on its way.
        await world.pause(random.between(5, 800))
        await faults.kill(holder, random.between(20, 1_500))
      }
      if (how < 0.6) return
    }
    const isBack = (): boolean =>
      inSyncReplicas(this.#universe.stateOf(volume)).some(({ host }) => host === holder.id)
    while (this.active && isBack() && world.now < limit) await world.pause(1)
    while (this.active && !isBack() && world.now < limit) await world.pause(1)
    if (!this.active || !isBack()) return
    world.log('FAULT', `${holder.name} is back: the power goes`)
    await world.pause(random.between(0, 30))
    const hit = random.chance(0.6) ? hosts.filter(({ id }) => holders.includes(id)) : [holder]
    await faults.cutPower(hit, random.between(200, 3_000))
  }

  #activeVolume(): ActiveVolume | null {
    const { volumes, hosts } = this.#universe
    const volume = this.#random.pick(volumes)
    const { primary: id } = this.#universe.stateOf(volume)
    const primary = hosts.find(host => host.id === id)
    if (primary?.running !== true) return null
    return { volume, primary, others: hosts.filter(host => host !== primary) }
  }
}

const rank = (host: SimulatedHost, holders: readonly string[]): number => (holders.includes(host.id) ? 0 : 1)
