/**
 * Faults in the one order in which a mistake would show. Each follows a reason of the protocol for a step that it takes,
 * and would cost something if the step were not taken: the page about the mirror protocol tells which.
 */
import { replicasOf } from '../../core/mirror/volume-change.ts'
import { type Guest } from './guest.ts'
import { type SimulatedHost } from './simulated-host.ts'
import { type SimulatedVolume } from './simulated-volume.ts'
import { type Universe } from './universe.ts'
import { type SeededRandom } from './world.ts'

/** An open volume and those who take part in it. */
interface Stage {
  readonly volume: SimulatedVolume
  readonly primary: SimulatedHost
  /** Other hosts with a replica. */
  readonly holders: readonly SimulatedHost[]
  readonly guest: Guest | undefined
}

const NAMES = [
  'an answer is late',
  'a primary comes back to replicas that were started anew',
  'a sync is forgotten',
  'it is in doubt who is back',
  'all others are started anew',
  'a source cannot read what another lacks',
  'an intent is forgotten',
  'the one that was taken loses power',
  'the one that stays loses power',
  'the source is lost',
  'a promise outlives its process',
  'only the own replica is asked',
  'a session request comes late',
] as const
export type PlotName = (typeof NAMES)[number]

export class Plots {
  readonly #universe: Universe
  readonly #random: SeededRandom
  /** Those that are played in this universe. */
  readonly #favourites: readonly PlotName[]

  constructor(universe: Universe) {
    this.#universe = universe
    this.#random = universe.world.random.fork()
    this.#favourites = this.#random
      .shuffled(NAMES)
      .slice(0, universe.staged ? undefined : 1 + this.#random.below(NAMES.length))
  }

  /** Plays one of them on a volume that is open now. */
  async play(name: PlotName = this.#random.pick(this.#favourites)): Promise<void> {
    const stage = this.#stage()
    if (stage === null) return
    const { world, faults } = this.#universe
    world.log('FAULT', `${name}, of ${stage.volume.key.slice(0, 8)} on ${stage.primary.name}`)
    faults.count(name)
    switch (name) {
      case 'an answer is late':
        return this.#lateAnswer(stage)
      case 'a primary comes back to replicas that were started anew':
        return this.#comeBack(stage)
      case 'a sync is forgotten':
        return this.#forgetSync(stage)
      case 'it is in doubt who is back':
        return this.#doubtReturn(stage)
      case 'all others are started anew':
        return this.#startOthersAnew(stage)
      case 'a source cannot read what another lacks':
        return this.#spoilSource(stage)
      case 'an intent is forgotten':
        return this.#forgetIntent(stage)
      case 'the one that was taken loses power':
        return this.#loseTaker(stage)
      case 'the one that stays loses power':
        return this.#loseTheOneThatStays(stage)
      case 'the source is lost':
        return this.#loseSource(stage)
      case 'a promise outlives its process':
        return this.#outlivePromise(stage)
      case 'only the own replica is asked':
        return this.#askOwnReplica(stage)
      case 'a session request comes late':
        return this.#delaySessionRequest(stage)
    }
  }

  #stage(volume = this.#random.pick(this.#universe.volumes)): Stage | null {
    const { hosts } = this.#universe
    const state = this.#universe.stateOf(volume)
    const primary = hosts.find(({ id }) => id === state.primary)
    if (primary?.running !== true) return null
    const others = replicasOf(state).filter(({ host, inSync }) => inSync && host !== primary.id)
    const holders = others.map(({ host }) => hosts.find(({ id }) => id === host)!)
    if (holders.length === 0) return null
    const guest = volume.guests.findLast(({ process }) => process === primary.process)
    return { volume, primary, holders: this.#random.shuffled(holders), guest }
  }

  #isActive(): boolean {
    return this.#universe.coincidences.active
  }

  /**
   * The last heartbeat that a replica received is answered, and the answer is on its way for nearly as long as a call may
   * take. A primary that counted the promise from there would rely on it when it is over, and read what is old.
   */
  async #lateAnswer({ volume, primary, holders, guest }: Stage): Promise<void> {
    const { faults, network, hosts, world } = this.#universe
    const random = this.#random
    const lastsMs = random.between(6_000, 8_000)
    guest?.onlyRead(world.now + lastsMs)
    const lateMs = random.between(1_000, 1_450)
    // One heartbeat still arrives; then nothing more does, and its answer waits.
    for (const other of holders) network.cut(other, primary)
    await world.pause(random.between(250, 320))
    void faults.isolate(primary, hosts, true, lastsMs)
    world.after(lateMs - 300, () => {
      for (const other of holders) {
        network.deliverHeld(other, primary)
        network.join(other, primary)
      }
    })
    await this.#takeElsewhere(volume, holders[0]!, 8, 500)
  }

  /**
   * A primary that others have given up comes back to them before it hears of that from the coordinator, and a replica
   * that had accepted a higher epoch was started anew meanwhile.
   */
  async #comeBack({ volume, primary, holders, guest }: Stage): Promise<void> {
    const { faults, coincidences, hosts, world } = this.#universe
    const random = this.#random
    const taker = holders[0]!
    const awayMs = random.between(3_800, 6_000)
    if (random.chance(0.5)) guest?.onlyRead(world.now + awayMs * random.between(0.5, 2))
    void faults.isolate(primary, hosts, false, awayMs)
    void faults.withoutCoordinator([primary], awayMs + random.between(1_000, 5_000))
    const until = world.now + awayMs
    await this.#takeElsewhere(volume, taker, 6, 800)
    if (world.now < until) await world.pause(until - world.now - random.between(0, 400))
    if (!coincidences.active) return
    for (const holder of holders) {
      if (!random.chance(0.7)) continue
      void faults.withoutCoordinator([holder], random.between(200, 3_000))
      void faults.kill(holder, random.between(5, 200))
    }
  }

  /**
   * Blocks are written for the first time, and a process that holds them dies while it makes that durable. The next one
   * finds in the page cache what the disk may not have. Then the guest flushes, and all power goes.
   */
  async #forgetSync({ primary, holders, guest }: Stage): Promise<void> {
    const { faults, hosts, world } = this.#universe
    const random = this.#random
    if (guest === undefined) return
    guest.scatter(2 + random.below(6))
    await world.pause(random.between(2, 30))
    guest.flushNow()
    await world.pause(random.between(0.3, 4))
    const victim = random.chance(0.5) ? holders[0]! : primary
    await faults.kill(victim, random.between(10, 250))
    await world.pause(random.between(50, 600))
    guest.flushNow()
    await world.pause(random.between(20, 1_500))
    if (this.#isActive())
      await faults.cutPower(random.chance(0.8) ? hosts : [victim], random.between(200, 2_000))
  }

  /**
   * A replica is back, and its primary does not learn that the record says so. The replica goes again at once, the
   * primary goes on without it for a moment and is cut off, and the replica, which the record trusts, is taken.
   */
  async #doubtReturn({ volume, primary, holders }: Stage): Promise<void> {
    const { faults, hosts, world } = this.#universe
    const random = this.#random
    const holder = holders[0]!
    const isBack = (): boolean =>
      replicasOf(this.#universe.stateOf(volume)).some(({ host, inSync }) => inSync && host === holder.id)
    await faults.kill(holder, random.between(450, 1_500))
    const limit = world.now + 8_000
    while (this.#isActive() && isBack() && world.now < limit) await world.pause(5)
    if (!this.#isActive() || isBack()) return
    // From here the primary learns of nothing that it does, and most of it is done.
    void faults.doubtEverything(primary, random.between(2_000, 6_000))
    while (this.#isActive() && !isBack() && world.now < limit) await world.pause(1)
    if (!this.#isActive() || !isBack()) return
    await world.pause(random.between(0, 20))
    void faults.kill(holder, random.between(100, 1_500))
    await world.pause(random.between(50, 900))
    void faults.isolate(primary, hosts, true, random.between(6_000, 9_000))
    await this.#takeElsewhere(volume, holder, 5, 1_200)
  }

  /**
   * All replicas are on other hosts, which lose power together, so that the primary opens the volume again like after a
   * crash. A flush was under way, or the primary was stopped and finds answers that it may not tell any more. Before it
   * reaches the coordinator for the opening, or while it does not learn what it did there, one of the others takes the volume.
   */
  async #startOthersAnew(first: Stage): Promise<void> {
    const { faults, world } = this.#universe
    const random = this.#random
    const stage = (await this.#moved(first, 'remote')) ?? this.#stage(first.volume)
    if (stage === null) return
    const { volume, primary, holders, guest } = stage
    const how = random.fraction()
    const troubleMs = random.between(4_000, 12_000)
    if (how < 0.4) void faults.withoutCoordinator([primary], troubleMs)
    else if (how < 0.7) void faults.doubt(primary, troubleMs)
    else if (how < 0.9) {
      faults.count('record unreadable')
      void faults.spoilRecord(volume, random.between(500, 6_000))
    }
    if (random.chance(0.5)) {
      guest?.scatter(2 + random.below(4))
      await world.pause(random.between(2, 30))
      guest?.flushNow()
      await world.pause(random.between(0.2, 1.2))
    }
    if (random.chance(0.4)) {
      guest?.scatter(2 + random.below(4))
      await world.pause(random.between(0.2, 0.8))
      void faults.stop(primary, random.between(3_300, 5_500))
      await world.pause(random.between(2, 40))
    }
    await faults.cutPower(holders, random.between(100, 800))
    await world.pause(random.between(0, 500))
    if (random.chance(0.6)) await this.#takeElsewhere(volume, holders[0]!, 6, 1_500)
  }

  /**
   * All replicas but one go, miss something, and come back to a source that cannot read it. Nobody has it then whom one
   * could wait for, and after its time a read of it ends with an error.
   */
  async #spoilSource({ volume, primary, holders, guest }: Stage): Promise<void> {
    const { faults, world } = this.#universe
    const random = this.#random
    const counted = (): string[] =>
      replicasOf(this.#universe.stateOf(volume)).flatMap(({ host, inSync }) => (inSync ? [host] : []))
    const [source, ...others] = counted().includes(primary.id) ? [primary, ...holders] : holders
    if (guest === undefined || source === undefined || others.length === 0) return
    const until = world.now + random.between(19_000, 24_000)
    for (const other of others) void faults.kill(other, random.between(1_500, 3_000))
    const limit = world.now + 5_000
    while (this.#isActive() && counted().length > 1 && world.now < limit) await world.pause(5)
    await world.pause(random.between(100, 800))
    if (!this.#isActive() || counted().length > 1) return
    // What it wrote would have mended what is spoiled now.
    guest.onlyRead(until)
    await world.pause(random.between(20, 200))
    await faults.disks.spoilPlaces(source, volume, until - world.now)
  }

  /**
   * Has the volume where no replica of it is, or where one is.
   * @returns null when a replica is away, there is no such host, or it does not get the volume
   */
  async #moved({ volume, primary, guest }: Stage, where: 'remote' | 'local'): Promise<Stage | null> {
    const { administrator, hosts } = this.#universe
    const records = replicasOf(this.#universe.stateOf(volume))
    if (records.some(({ inSync }) => !inSync)) return null
    const isHolder = ({ id }: SimulatedHost): boolean => records.some(({ host }) => host === id)
    const isRight = (host: SimulatedHost): boolean => isHolder(host) === (where === 'local')
    const holders = (without: SimulatedHost): SimulatedHost[] =>
      this.#random.shuffled(hosts.filter(host => isHolder(host) && host !== without))
    if (isRight(primary)) return { volume, primary, holders: holders(primary), guest }
    const other = hosts.find(host => host.running && isRight(host))
    if (other === undefined) return null
    await administrator.close(volume, primary)
    await administrator.take(volume, other)
    const { process } = other
    if (!this.#isActive() || this.#universe.stateOf(volume).primary !== other.id || !other.running)
      return null
    const newGuest = volume.guests.findLast(candidate => candidate.process === process)
    return { volume, primary: other, holders: holders(other), guest: newGuest }
  }

  /**
   * One replica is away. The other dies while it makes intents durable, and the next process sees in its page cache what
   * the disk may not have. It is written to again, and then its power goes: what it missed nobody would know.
   */
  async #forgetIntent(stage: Stage): Promise<void> {
    const { faults, coincidences, world } = this.#universe
    const random = this.#random
    // Places grow cold: their intents go.
    stage.volume.quietUntil = world.now + 8_000
    await world.pause(random.between(2_000, 5_500))
    const remote = await this.#moved(stage, 'remote')
    if (remote?.guest?.flushes !== true || !this.#isActive()) return
    const { volume, guest, holders } = remote
    const [stays, ...others] = holders
    for (const other of others) void faults.kill(other, random.between(4_000, 8_000))
    const isAlone = (): boolean =>
      replicasOf(this.#universe.stateOf(volume)).every(({ host, inSync }) => inSync === (host === stays!.id))
    const limit = world.now + 2_000
    while (this.#isActive() && !isAlone() && world.now < limit) await world.pause(1)
    if (!this.#isActive() || !isAlone()) return
    await world.pause(random.between(5, 100))
    // One: a further intent that is made durable would bring this one with it.
    const isDying = new Promise<void>(resolve => coincidences.atNextSync(stays!, resolve))
    guest.scatter(1, 0)
    await Promise.race([isDying, world.pause(20)])
    await world.pause(random.between(0, 0.3))
    await faults.kill(stays!, random.between(20, 120))
    await world.pause(random.between(60, 350))
    if (this.#isActive()) await faults.cutPower([stays!], random.between(200, 1_500))
  }

  /**
   * The primary is left behind with what it has not flushed, and who takes over loses power at that moment: it must have
   * made durable what it holds.
   */
  async #loseTaker({ volume, primary, holders, guest }: Stage): Promise<void> {
    const { faults, hosts, world } = this.#universe
    const random = this.#random
    const taker = holders[0]!
    guest?.scatter(3 + random.below(6), 0)
    await world.pause(random.between(3, 30))
    for (const other of [primary, ...holders.slice(1)]) {
      const lastsMs = random.between(8_000, 11_000)
      if (random.chance(0.5)) void faults.kill(other, lastsMs)
      else void faults.isolate(other, hosts, true, lastsMs)
    }
    const isTaken = (): boolean => this.#universe.stateOf(volume).primary === taker.id
    void this.#takeElsewhere(volume, taker, 8, 400)
    const limit = world.now + 8_000
    while (this.#isActive() && !isTaken() && world.now < limit) await world.pause(0.5)
    if (!this.#isActive() || !isTaken()) return
    await world.pause(random.chance(0.7) ? random.between(0, 3) : random.between(3, 30))
    await faults.cutPower([taker], random.between(200, 1_500))
  }

  /**
   * One replica goes, and the one that stays loses power about when the primary takes the first one out; it was late with
   * some changes, too. What it had acknowledged must have been made durable before.
   */
  async #loseTheOneThatStays(stage: Stage): Promise<void> {
    const { faults, world } = this.#universe
    const random = this.#random
    const remote = await this.#moved(stage, 'remote')
    if (remote?.guest?.flushes !== true) return
    const { primary, guest, holders } = remote
    await world.pause(random.between(0, 300))
    const [stays, ...others] = holders
    guest.scatter(3 + random.below(6), 0)
    await world.pause(random.between(2, 40))
    const isLate = random.chance(0.5)
    if (isLate) {
      void faults.slowDisk(stays!, random.between(1_000, 4_000), random.between(300, 1_200))
      guest.scatter(2 + random.below(6), 0)
      await world.pause(random.between(1, 5))
    }
    if (random.chance(0.5)) void faults.doubtEverything(primary, random.between(800, 3_000))
    for (const other of others) void faults.kill(other, random.between(5_000, 9_000))
    await world.pause(isLate ? random.between(300, 1_500) : random.between(20, 500))
    if (this.#isActive()) await faults.cutPower([stays!], random.between(400, 2_500))
  }

  /**
   * A replica has lost what was not flushed, and the primary is gone. The next one makes them equal, and while it does, the
   * one that has everything goes: the other may not stand in for it.
   */
  async #loseSource({ volume, primary, holders, guest }: Stage): Promise<void> {
    const { faults, administrator, hosts, world } = this.#universe
    const random = this.#random
    const records = replicasOf(this.#universe.stateOf(volume))
    const all = random.shuffled(hosts.filter(({ id }) => records.some(({ host }) => host === id)))
    const [whole, loser] = holders.includes(primary) ? all : [holders[0]!, holders[1] ?? primary]
    if (whole === undefined || loser === undefined || whole === primary || loser === whole) return
    guest?.scatter(4 + random.below(8), 0)
    await world.pause(random.between(3, 30))
    void faults.cutPower([loser], random.between(50, 250))
    if (loser !== primary) void faults.kill(primary, random.between(6_000, 9_000))
    const taker = hosts.find(host => host !== primary && host !== loser && host !== whole) ?? whole
    const { epoch } = this.#universe.stateOf(volume)
    const isTaken = (): boolean => {
      const state = this.#universe.stateOf(volume)
      return state.primary === taker.id && state.epoch > epoch
    }
    for (const host of [whole, loser]) void faults.slowDisk(host, random.between(20, 100), 9_000)
    void (async () => {
      for (let attempt = 0; attempt < 8 && this.#isActive() && !isTaken(); attempt++) {
        await world.pause(random.between(200, 900))
        await administrator.take(volume, taker)
      }
    })()
    const limit = world.now + 9_000
    while (this.#isActive() && !isTaken() && world.now < limit) await world.pause(1)
    if (!this.#isActive() || !isTaken()) return
    await world.pause(random.between(0, 120))
    // Or it stays, and the copy takes so long that intents would be cleared in the midst of it.
    if (random.chance(0.6)) await faults.kill(whole, random.between(2_000, 6_000))
  }

  /**
   * A replica's process dies, and the next one does not find its store for longer than a promise lasts; heartbeats it
   * answers. Then it is taken, out of the primary's sight, which must not have believed in what the dead one promised.
   */
  async #outlivePromise(stage: Stage): Promise<void> {
    const { faults, hosts, world } = this.#universe
    const random = this.#random
    const local = await this.#moved(stage, 'local')
    if (local === null) return
    const { volume, primary, holders, guest } = local
    void faults.withoutCoordinator([primary], 9_500)
    await world.pause(random.between(0, 100))
    for (const holder of holders) {
      holder.storeIsMissing = true
      void faults.kill(holder, random.between(20, 100))
    }
    guest?.onlyRead(world.now + 9_000)
    await world.pause(random.between(4_250, 4_800))
    for (const holder of holders) holder.storeIsMissing = false
    if (!this.#isActive()) return
    void faults.isolate(primary, hosts, false, random.between(3_500, 4_500))
    await this.#takeElsewhere(volume, holders[0]!, 6, 200)
  }

  /**
   * A contender reaches only the replica in the primary's own process, for which nobody beats; the primary cannot learn
   * from the coordinator that it was overtaken, and another replica goes on promising.
   */
  async #askOwnReplica(stage: Stage): Promise<void> {
    const { faults, hosts, world } = this.#universe
    const random = this.#random
    const local = await this.#moved(stage, 'local')
    if (local === null) return
    const { volume, primary, holders, guest } = local
    const taker = hosts.find(host => host.running && host !== primary && !holders.includes(host))
    if (taker === undefined) return
    const lastsMs = random.between(8_000, 11_000)
    guest?.onlyRead(world.now + lastsMs)
    void faults.withoutCoordinator([primary], lastsMs)
    for (const holder of holders) {
      void faults.cut(
        [
          [holder, taker],
          [taker, holder],
        ],
        lastsMs
      )
    }
    await world.pause(random.between(3_500, 4_500))
    await this.#takeElsewhere(volume, taker, 6, 500)
  }

  /**
   * A replica has believed its primary, and dies with its host's power before the request for a session arrives; the next
   * process gets that request, and has lost what the primary counts on.
   */
  async #delaySessionRequest({ volume, primary, holders, guest }: Stage): Promise<void> {
    const { faults, network, world } = this.#universe
    const random = this.#random
    const holder = holders[0]!
    if (guest === undefined) return
    guest.scatter(3 + random.below(6), 0)
    await world.pause(random.between(3, 30))
    const { node: before } = holder
    void faults.kill(holder, random.between(20, 120))
    // The moment in which the next process has confirmed, and has no session.
    const hasConfirmed = (): boolean => {
      const { node } = holder
      if (node === null || node === before) return false
      return node.replicas.holderOf(volume.key)?.inSession === false
    }
    const limit = world.now + 400
    while (this.#isActive() && !hasConfirmed() && world.now < limit) await world.pause(0.02)
    if (!this.#isActive() || !hasConfirmed()) return
    network.cut(primary, holder)
    await world.pause(random.between(1, 3))
    void faults.cutPower([holder], random.between(30, 150))
    await world.pause(random.between(160, 300))
    network.deliverHeld(primary, holder)
    await world.pause(random.between(0, 200))
    network.join(primary, holder)
  }

  async #takeElsewhere(
    volume: SimulatedVolume,
    taker: SimulatedHost,
    attempts: number,
    gapMs: number
  ): Promise<void> {
    const { administrator, world } = this.#universe
    for (let attempt = 0; attempt < attempts && this.#isActive(); attempt++) {
      await world.pause(this.#random.between(0, gapMs))
      await administrator.take(volume, taker)
    }
  }
}
