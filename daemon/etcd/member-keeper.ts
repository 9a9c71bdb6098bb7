/**
 * Looks after etcd for one host: whether it has a member, and that the members of the cluster are those that it shall
 * have. Each look asks etcd who the members are, asks for the hosts' records after that, and for who answers;
 * `core/placement/coordinator-members.ts` says what this host does then, which is one step. Whatever ends in the middle is
 * found by the next look, here or on another host.
 */
import { EtcdAdmin, type EtcdMemberRecord } from '../../cluster/etcd/etcd-admin.ts'
import { type EtcdTarget } from '../../cluster/etcd/members.ts'
import { type StatusReply } from '../../cluster/etcd/replies.ts'
import { type HostRecord } from '../../cluster/records.ts'
import { XosanError, reasonOf } from '../../core/errors.ts'
import {
  type CandidateHost,
  type ListedMember,
  type MemberStep,
  nextStep,
  mayRemove,
  textOf,
  wantedHosts,
} from '../../core/placement/coordinator-members.ts'
import { type Clock, pause } from '../../core/ports/clock.ts'
import { type Random } from '../../core/ports/random.ts'
import { type HostId, type Millis, millis } from '../../core/units.ts'
import { type ClusterEtcdMember } from '../cluster/cluster-file.ts'
import { type MemberPlace, peerUrl } from './member-arguments.ts'
import { addressOf, listedMembers, membersForClients } from './member-list.ts'
import { MemberProcess } from './member-process.ts'
import { isWaiting, RESTART_MS, memberServes, restartNow } from './member-restart.ts'

export interface KeeperTiming {
  /** A host that is silent for longer than this is replaced, if there is another one. */
  readonly replaceAfterMs: number
  /** How long a host waits for the one whose turn is before its own. */
  readonly patienceMs: number
  /** Between two looks when there is nothing to do. */
  readonly lookMs: number
  /** Between two looks while something changes. */
  readonly busyLookMs: number
}

const DEFAULT_TIMING: KeeperTiming = {
  // A host that restarts is back by then, also one with much memory to check; its member is only one of three.
  replaceAfterMs: 600_000,
  patienceMs: 30_000,
  // Each look costs every member two reads and a handshake.
  lookMs: 10_000,
  busyLookMs: 1_000,
}

export interface KeeperHost {
  readonly record: HostRecord
  /** It is about to leave the cluster. */
  readonly leaving: boolean
}

export interface MemberKeeperOptions {
  readonly place: MemberPlace
  /** etcd, as a path or a name to be found in PATH. */
  readonly program: string
  /** Directory of XOSAN's own programs. */
  readonly programs: string
  readonly clock: Clock
  readonly random: Random
  /** The members as this host knows them (none: not yet), and its certificates: the same object until they change. */
  readonly target: () => EtcdTarget
  /**
   * All hosts of the cluster in the order of their records, as of after etcd has listed its members: a host without a
   * record loses its member.
   */
  readonly hosts: () => Promise<readonly KeeperHost[]>
  /** Whether another host answers. */
  readonly isUp: (host: HostId) => Promise<boolean>
  /** Told of the members that clients should know, first and whenever they have changed; never of none. */
  readonly members: (members: readonly ClusterEtcdMember[]) => Promise<void>
  readonly log: (text: string) => void
  readonly warn: (text: string) => void
  readonly timing?: Partial<KeeperTiming>
}

/** A member or host that does not answer in this time is taken to be silent, until the next look. */
const ANSWER_MS = millis(2_000)
/** A member that does not serve for so long is told to the log; starting takes seconds. */
const SILENT_MEMBER_MS = 60_000
const TRIM_EVERY_MS = 60_000
/** For those who follow the coordinator and were away: an hour of a busy pool. Its price is a few MiB. */
const HISTORY_REVISIONS = 20_000

interface Look {
  /** Whether this host has a member, or is about to. */
  readonly member: boolean
  /** Whether there are as many members with a vote as there shall be. */
  readonly complete: boolean
  /** Whether something changes, or should. */
  readonly busy: boolean
}

export class MemberKeeper {
  readonly #options: MemberKeeperOptions
  readonly #timing: KeeperTiming
  readonly #process: MemberProcess
  readonly #self: ClusterEtcdMember
  readonly #heardAt = new Map<HostId, Millis>()
  #admin: EtcdAdmin | null = null
  #told = ''
  #text = ''
  #textSince: Millis = millis(0)
  #trimmedAt: Millis
  #servedAt: Millis
  #leaving: 'no' | 'yes' | 'hurry' = 'no'
  #adopted = false
  #closed = false
  #running: Promise<void> | null = null
  /** Looks, restarts and ends follow each other. */
  #queue: Promise<unknown> = Promise.resolve()
  #wake: () => void = () => undefined
  /** Told of each look; null: there will be no other. */
  readonly #watchers = new Set<(look: Look | null) => void>()

  constructor(options: MemberKeeperOptions) {
    const { place, program, programs, clock, log } = options
    this.#options = options
    this.#timing = { ...DEFAULT_TIMING, ...options.timing }
    this.#process = new MemberProcess({ ...place, program, programs, log })
    this.#self = { host: place.host, address: place.address, port: place.ports.client }
    this.#trimmedAt = clock.now()
    this.#servedAt = clock.now()
  }

  /** Process id of this host's member, or null. */
  get pid(): number | null {
    return this.#process.pid
  }

  /**
   * Makes a cluster of one member, on this host; one that was interrupted in it may call it again. Nobody else may be a member yet.
   * @throws XosanError DEADLINE_EXCEEDED when the member does not serve in time; it may do so later
   */
  async startAlone(timeMs: number): Promise<void> {
    const { clock, members } = this.#options
    const deadline = clock.now() + timeMs
    await this.#alone(() => this.#process.start({ state: 'new' }))
    while (!(await this.#serves())) {
      if (this.#closed || clock.now() > deadline) throw late('The first member of etcd', timeMs)
      await pause(clock, millis(100))
    }
    await members([this.#self])
  }

  /** Begins to look after the member, and after those of others. What runs here since before is taken over. */
  start(): void {
    this.#running ??= this.#run()
  }

  /** Resolves when there are as many members with a vote as there shall be. @throws XosanError DEADLINE_EXCEEDED */
  async untilComplete(timeMs: number): Promise<void> {
    if (!(await this.#until(look => look.complete, timeMs)))
      throw late('Starting all members of etcd', timeMs)
  }

  /**
   * Moves this host's membership away and removes its data: others come first, if there are any to come. They must be told
   * that this host leaves (`KeeperHost.leaving`, or no record). When they do not come in half of the time, it is done without
   * them, if those left can decide.
   * @throws XosanError DEADLINE_EXCEEDED when the others could not decide without it; then all is as before
   */
  async leave(timeMs: number): Promise<void> {
    const gone = ({ member }: Look): boolean => !member
    this.#leaving = 'yes'
    if (!(await this.#until(gone, timeMs / 2))) {
      this.#leaving = 'hurry'
      if (!(await this.#until(gone, timeMs / 2))) {
        this.#leaving = 'no'
        throw late("Moving this host's member of etcd away", timeMs)
      }
    }
    await this.close()
  }

  /** Dissolves what there is of a member on this host: ends its process and removes its data. */
  async end(): Promise<void> {
    await this.close()
    await this.#process.stop()
    await this.#process.destroy()
  }

  /**
   * Restarts this host's member, if it has one: it reads new authorities only then. For who sees to it that one host comes
   * after the other, and waits for no member that is lost.
   * @throws XosanError DEADLINE_EXCEEDED when the member does not serve again
   */
  async restart(): Promise<void> {
    const { clock, log } = this.#options
    await this.#alone(() => this.#takeUp())
    if (!this.#process.started) return
    const serves = await restartNow({
      clock,
      serves: async () => this.#serves(),
      restart: async () => {
        log('etcd: restarting the member on this host for new certificates')
        await this.#alone(() => this.#process.restart())
      },
      closed: () => this.#closed,
    })
    if (!serves) throw late("The restart of this host's member of etcd", RESTART_MS)
  }

  /** Stops looking. The process goes on; the next one to look takes it over. */
  async close(): Promise<void> {
    this.#closed = true
    this.#admin?.close()
    this.#wake()
    for (const watcher of [...this.#watchers]) watcher(null)
    await this.#running
    await this.#queue
    this.#process.release()
  }

  async #run(): Promise<void> {
    const { clock, random, warn } = this.#options
    let failures = 0
    while (!this.#closed) {
      let waitMs: number
      try {
        const look = await this.#alone(() => this.#look())
        failures = 0
        waitMs = this.#untilNextLook(look)
        for (const watcher of [...this.#watchers]) watcher(look)
      } catch (error) {
        // An unreachable coordinator is something to wait for, and others report it.
        if (!isWaiting(error)) warn(`The members of etcd: ${reasonOf(error)}`)
        waitMs = Math.min(this.#timing.busyLookMs * 2 ** failures, this.#timing.lookMs)
        failures += 1
      }
      await this.#pause(clock, waitMs * (0.75 + random.fraction() / 2))
    }
  }

  /** Soon while something changes; ever later while it should and does not. */
  #untilNextLook({ busy }: Look): number {
    const { lookMs, busyLookMs } = this.#timing
    const unchangedForMs = this.#options.clock.now() - this.#textSince
    return busy ? Math.min(Math.max(busyLookMs, unchangedForMs / 5), lookMs) : lookMs
  }

  async #pause(clock: Clock, delayMs: number): Promise<void> {
    if (this.#closed) return
    await new Promise<void>(resolve => {
      const timer = clock.after(millis(delayMs), resolve)
      this.#wake = () => {
        timer.cancel()
        resolve()
      }
    })
  }

  /** @returns false when the time is over */
  async #until(reached: (look: Look) => boolean, timeMs: number): Promise<boolean> {
    this.start()
    return new Promise(resolve => {
      const end = (result: boolean): void => {
        timer.cancel()
        this.#watchers.delete(watcher)
        resolve(result)
      }
      const watcher = (look: Look | null): void => {
        if (look === null) end(false)
        else if (reached(look)) end(true)
      }
      const timer = this.#options.clock.after(millis(timeMs), () => end(false))
      this.#watchers.add(watcher)
      this.#wake()
    })
  }

  /** One at a time. */
  async #alone<T>(action: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(action)
    this.#queue = result.catch(() => undefined)
    return result
  }

  /** Finds what runs here, and starts what should. @returns whether this host has a member's data */
  async #takeUp(): Promise<boolean> {
    if (!this.#adopted) await this.#process.adopt()
    this.#adopted = true
    const hasData = await this.#process.hasData()
    // Before anybody is asked: after a power cut there is no coordinator until its members run.
    if (hasData && !this.#process.started) await this.#start([])
    return hasData
  }

  async #look(): Promise<Look> {
    const { place, hosts, clock } = this.#options
    const hasData = await this.#takeUp()
    const admin = this.#target()
    if (admin === null) return { member: hasData || this.#process.started, complete: false, busy: true }
    const listed = await admin.members()
    const all = await hosts()
    const statuses = await this.#statuses(admin, listed)
    const members = listedMembers(
      listed,
      all.map(({ record }) => record),
      statuses
    )
    const candidates = await this.#candidates(all, members)
    await this.#tell(listed)
    const situation = {
      self: place.host,
      hosts: candidates,
      members,
      hasData,
      running: this.#process.started,
      unchangedForMs: 0,
    }
    const text = textOf(situation, this.#timing)
    if (text !== this.#text) [this.#text, this.#textSince] = [text, clock.now()]
    const own = members.find(({ host }) => host === place.host)
    const step =
      this.#hurried(members, own) ??
      nextStep({ ...situation, unchangedForMs: clock.now() - this.#textSince }, this.#timing)
    this.#watchOwn(own)
    await this.#take(step, admin, listed)
    if (step.kind === 'nothing') await this.#trim(admin, candidates)
    return {
      member: own !== undefined || hasData || this.#process.started,
      ...this.#progress(members, candidates),
    }
  }

  #progress(members: readonly ListedMember[], hosts: readonly CandidateHost[]) {
    const holders = new Set(members.flatMap(({ host }) => (host === null ? [] : [host])))
    const wanted = wantedHosts(hosts, holders, this.#timing.replaceAfterMs)
    const voters = members.filter(({ learner, started }) => !learner && started)
    const voting = wanted.filter(host => voters.some(voter => voter.host === host))
    return {
      complete: wanted.length > 0 && voting.length === wanted.length,
      busy: voting.length !== wanted.length || members.length !== voting.length,
    }
  }

  /** What a host that leaves does when others do not come. */
  #hurried(members: readonly ListedMember[], own: ListedMember | undefined): MemberStep | null {
    if (this.#leaving !== 'hurry' || own === undefined || !mayRemove(members, own)) return null
    return { kind: 'remove', id: own.id, reason: 'its host leaves, and nobody takes its place' }
  }

  async #take(step: MemberStep, admin: EtcdAdmin, listed: readonly EtcdMemberRecord[]): Promise<void> {
    const { place, log } = this.#options
    if (step.kind === 'nothing' || this.#closed) return
    switch (step.kind) {
      case 'add':
        log('etcd: adding a member on this host')
        await admin.addLearner([peerUrl(place)])
        break
      case 'start':
        await this.#start(listed)
        break
      case 'promote':
        log(`etcd: member ${step.id} on this host gets its vote`)
        await admin.promote(step.id)
        break
      case 'remove':
        log(`etcd: removing member ${step.id}: ${step.reason}`)
        await admin.remove(step.id)
        break
      case 'discard':
        log('etcd: this host is no member any more; its data are removed')
        await this.#process.stop()
        await this.#process.destroy()
        break
    }
  }

  /** Without data, it joins those that are listed. It never makes a cluster of its own. */
  async #start(listed: readonly EtcdMemberRecord[]): Promise<void> {
    const { place } = this.#options
    const own = { name: place.host, peerUrl: peerUrl(place) }
    const others = listed.flatMap(({ id, name, peerUrls: [url] }) =>
      url === undefined || url === own.peerUrl ? [] : [{ name: name === '' ? id : name, peerUrl: url }]
    )
    await this.#process.start({ state: 'existing', members: [...others, own] })
  }

  /** Null while this host knows no member. */
  #target(): EtcdAdmin | null {
    const { clock, random, target } = this.#options
    const now = target()
    if (now.members.length === 0 || this.#closed) return null
    if (this.#admin === null) this.#admin = new EtcdAdmin({ target: now, clock, random })
    else this.#admin.retarget(now)
    return this.#admin
  }

  async #statuses(
    admin: EtcdAdmin,
    listed: readonly EtcdMemberRecord[]
  ): Promise<ReadonlyMap<string, StatusReply>> {
    const statuses = new Map<string, StatusReply>()
    await Promise.all(
      listed.map(async member => {
        const address = addressOf(member)
        const status = address === null ? null : await admin.status(address, ANSWER_MS).catch(() => null)
        if (status !== null) statuses.set(member.id, status)
      })
    )
    return statuses
  }

  /** The hosts, with what was heard of them: of a host, or of its member. */
  async #candidates(
    all: readonly KeeperHost[],
    members: readonly ListedMember[]
  ): Promise<readonly CandidateHost[]> {
    const { clock, isUp, place } = this.#options
    const known = new Set(all.map(({ record }) => record.host))
    for (const host of this.#heardAt.keys()) if (!known.has(host)) this.#heardAt.delete(host)
    await Promise.all(
      all.map(async ({ record: { host } }) => {
        const heard =
          host === place.host ||
          members.some(member => member.host === host && member.reachable) ||
          (await Promise.race([isUp(host).catch(() => false), pause(clock, ANSWER_MS).then(() => false)]))
        // A host that is seen for the first time has its whole time before it is replaced.
        if (heard || !this.#heardAt.has(host)) this.#heardAt.set(host, clock.now())
      })
    )
    const candidates = all.map(({ record: { host, datapaths }, leaving }): CandidateHost => ({
      host,
      witness: datapaths === 0,
      leaving: leaving || (host === place.host && this.#leaving !== 'no'),
      silentForMs: clock.now() - this.#heardAt.get(host)!,
    }))
    if (this.#leaving === 'no' || known.has(place.host)) return candidates
    return [...candidates, { host: place.host, witness: false, leaving: true, silentForMs: 0 }]
  }

  async #tell(listed: readonly EtcdMemberRecord[]): Promise<void> {
    const members = membersForClients(listed)
    const told = JSON.stringify(members)
    if (members.length === 0 || told === this.#told) return
    await this.#options.members(members)
    this.#told = told
  }

  /** The first host that is up keeps the history short, for all. */
  async #trim(admin: EtcdAdmin, hosts: readonly CandidateHost[]): Promise<void> {
    const { clock, place } = this.#options
    const first = hosts.find(({ silentForMs }) => silentForMs < this.#timing.lookMs)
    if (first?.host !== place.host || clock.now() - this.#trimmedAt < TRIM_EVERY_MS) return
    this.#trimmedAt = clock.now()
    await admin.trimHistory(HISTORY_REVISIONS)
  }

  /** Says so when this host's member is down for long: others count on it, and nobody else can repair it. */
  #watchOwn(own: ListedMember | undefined): void {
    const { clock, warn } = this.#options
    if (own === undefined || own.reachable) this.#servedAt = clock.now()
    if (clock.now() - this.#servedAt < SILENT_MEMBER_MS) return
    this.#servedAt = clock.now()
    warn("This host's member of etcd does not serve; its log is etcd.log in the state directory.")
  }

  /** Whether this host's member answers and knows the leader. */
  async #serves(): Promise<boolean> {
    const { clock, random, target } = this.#options
    const alone = { members: [this.#self], tls: target().tls }
    return memberServes(new EtcdAdmin({ target: alone, clock, random }), this.#self, ANSWER_MS)
  }
}

const late = (what: string, deadlineMs: number): XosanError =>
  new XosanError('DEADLINE_EXCEEDED', { what, deadlineMs })
