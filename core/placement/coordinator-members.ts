/**
 * Which hosts have a member of etcd, and what one host does next so that it becomes so.
 *
 * Nobody is in charge: every host looks at what etcd lists, at the hosts' records, and at which hosts answer, and takes
 * at most one step, then looks again. Nothing is remembered between two looks but for how long things have been as they are, so a host
 * that dies between two steps leaves nothing behind that another look would not see. Two hosts that take the same step
 * are sorted out by etcd, which makes one change of its members at a time and takes only one learner.
 */
import { type HostId } from '../units.ts'

/** A host of the cluster. Lists of hosts are in the order of their records, the same for everybody. */
export interface CandidateHost {
  readonly host: HostId
  /** It holds no data. */
  readonly witness: boolean
  /** It is about to leave the cluster. */
  readonly leaving: boolean
  /** How long ago it was last heard of, in milliseconds; 0 for oneself and for a host that has just answered. */
  readonly silentForMs: number
}

/** A member, as etcd lists it. */
export interface ListedMember {
  readonly id: string
  /** Whose it is; null when no host has its name or address. */
  readonly host: HostId | null
  readonly learner: boolean
  /** It has been running, at least once. */
  readonly started: boolean
  /** It answers now, and knows the leader. */
  readonly reachable: boolean
  /** It has all but the last few changes. */
  readonly caughtUp: boolean
}

export interface MemberTimes {
  /** A host that is silent for longer than this is replaced, if there is another one. */
  readonly replaceAfterMs: number
  /** How long a host waits for the one whose turn is before its own. */
  readonly patienceMs: number
}

export interface Situation {
  readonly self: HostId
  readonly hosts: readonly CandidateHost[]
  /** From a linearizable read: an old list could make a host remove the data of a member that has just been added. */
  readonly members: readonly ListedMember[]
  /** Whether this host has the data of a member. */
  readonly hasData: boolean
  /** Whether its member's process is looked after. */
  readonly running: boolean
  /** For how long members and hosts have been as they are now, in milliseconds. */
  readonly unchangedForMs: number
}

export type MemberStep =
  | { readonly kind: 'nothing' }
  /** Add this host as a learner. */
  | { readonly kind: 'add' }
  /** Start the member of this host, which is listed. */
  | { readonly kind: 'start' }
  | { readonly kind: 'promote'; readonly id: string }
  | { readonly kind: 'remove'; readonly id: string; readonly reason: string }
  /** This host has data, and no member: stop what runs and remove them. */
  | { readonly kind: 'discard' }

const NOTHING: MemberStep = { kind: 'nothing' }

/** A host that was heard of within this time is taken to be up: two looks, of which one may fail. */
export const UP_WITHIN_MS = 20_000
/** etcd takes one learner at a time: one whose host is silent for so long is in the way of others, and has no vote. */
const LEARNER_SILENT_MS = 60_000
/** A member of a host that nobody knows: the record of a host that has just joined may still be on its way here. */
const UNKNOWN_FOR_MS = 5_000

interface Size {
  readonly hostsMin: number
  readonly members: number
  readonly membersWithWitness: number
}

/** How many members a cluster has, by its hosts with data. Never an even number: it would survive no more than one less. */
const SIZES: readonly Size[] = [
  { hostsMin: 7, members: 5, membersWithWitness: 5 },
  { hostsMin: 3, members: 3, membersWithWitness: 3 },
  { hostsMin: 2, members: 1, membersWithWitness: 3 },
  { hostsMin: 0, members: 1, membersWithWitness: 1 },
]

/**
 * The hosts that shall have a member, those that are preferred first. A host keeps its member as long as it is not
 * silent for too long, so that nothing moves without need.
 *
 * @param holders hosts that have a member now
 */
export function wantedHosts(
  hosts: readonly CandidateHost[],
  holders: ReadonlySet<HostId>,
  replaceAfterMs: number
): readonly HostId[] {
  const staying = hosts.filter(({ leaving }) => !leaving)
  const withData = staying.filter(({ witness }) => !witness).length
  const { members, membersWithWitness } = SIZES.find(({ hostsMin }) => withData >= hostsMin)!
  const size = staying.length > withData ? membersWithWitness : members
  const away = ({ silentForMs }: CandidateHost): boolean => silentForMs > replaceAfterMs
  const holding = staying.filter(({ host }) => holders.has(host))
  const others = staying.filter(host => !holders.has(host.host) && !away(host))
  const ranked = [
    ...holding.filter(host => !away(host)),
    ...others.filter(host => isUp(host) && !host.witness),
    ...others.filter(host => isUp(host) && host.witness),
    ...others.filter(host => !isUp(host)),
    // Better a member that is away and may come back than none.
    ...holding.filter(away),
  ]
  const chosen = ranked.slice(0, size).map(({ host }) => host)
  return chosen.length % 2 === 0 ? chosen.slice(0, -1) : chosen
}

const isUp = ({ silentForMs }: CandidateHost): boolean => silentForMs <= UP_WITHIN_MS
const majorityOf = (count: number): number => Math.floor(count / 2) + 1
const isAlive = ({ started, reachable }: ListedMember): boolean => started && reachable

/** Whether those that would be left could still decide. A learner has no vote, so it can always go. */
export function mayRemove(members: readonly ListedMember[], member: ListedMember): boolean {
  if (member.learner) return true
  const rest = members.filter(each => !each.learner && each.id !== member.id)
  return rest.length > 0 && rest.filter(isAlive).length >= majorityOf(rest.length)
}

/**
 * Whether a learner can have a vote. From an odd number to an even one, a majority grows by one as well: then a cluster
 * survives no more than before, and has one more member that can fail.
 * @param hasSuccessor whether another change will follow, so that the number of votes is odd again
 */
function mayPromote(members: readonly ListedMember[], learner: ListedMember, hasSuccessor: boolean): boolean {
  const voters = members.filter(each => !each.learner)
  const odd = (voters.length + 1) % 2 === 1
  const decides = voters.filter(isAlive).length + 1 >= majorityOf(voters.length + 1)
  return learner.caughtUp && isAlive(learner) && decides && (odd || hasSuccessor)
}

/** What the turns of hosts depend on: as long as it is the same text, it is the same situation. */
export function textOf({ hosts, members }: Situation, times: MemberTimes): string {
  const silence = (host: CandidateHost): string =>
    [UP_WITHIN_MS, learnerSilentMs(times), times.replaceAfterMs]
      .map(limit => (host.silentForMs > limit ? '1' : '0'))
      .join('')
  return JSON.stringify([
    hosts.map(host => [host.host, host.leaving, silence(host)]),
    members.map(({ id, learner, started, reachable }) => [id, learner, started, reachable]),
  ])
}

/** What the host does now. */
export function nextStep(situation: Situation, times: MemberTimes): MemberStep {
  const { members, self, hosts, hasData, running } = situation
  const own = members.find(({ host }) => host === self)
  const view = new View(situation, times)
  if (own === undefined) {
    if (hasData || running) return { kind: 'discard' }
    return view.mayAdd() ? { kind: 'add' } : view.removalOfOthers()
  }
  if (!hasData && !running) {
    if (own.learner && !own.started) return { kind: 'start' }
    // What it voted for and promised is lost: as the same member it could elect two leaders for one term.
    return mayRemove(members, own) ? remove(own, 'its data are lost') : NOTHING
  }
  if (!running) return { kind: 'start' }
  // A host that has left, or does not know the hosts yet: what becomes of its member is for others to say.
  if (!hosts.some(({ host }) => host === self)) return NOTHING
  if (view.shallGo(own)) return remove(own, 'its host shall not have one')
  if (own.learner && mayPromote(members, own, view.hasSuccessor(own))) return { kind: 'promote', id: own.id }
  return view.removalOfOthers()
}

const learnerSilentMs = ({ replaceAfterMs }: MemberTimes): number =>
  Math.min(LEARNER_SILENT_MS, replaceAfterMs)

const remove = ({ id }: ListedMember, reason: string): MemberStep => ({ kind: 'remove', id, reason })

/** What one host sees, with what follows from it. */
class View {
  readonly #now: Situation
  readonly #times: MemberTimes
  readonly #wanted: ReadonlySet<HostId>
  /** Hosts that can act, in the order of their turns. */
  readonly #actors: readonly HostId[]

  constructor(now: Situation, times: MemberTimes) {
    this.#now = now
    this.#times = times
    const holders = new Set(now.members.flatMap(({ host }) => (host === null ? [] : [host])))
    this.#wanted = new Set(wantedHosts(now.hosts, holders, times.replaceAfterMs))
    this.#actors = now.hosts.filter(isUp).map(({ host }) => host)
  }

  /** Whether this host is the next one to become a learner. */
  mayAdd(): boolean {
    const { self, members } = this.#now
    // etcd would refuse: one learner at a time, and none while a member is away.
    if (!this.#wanted.has(self) || members.some(each => each.learner || !isAlive(each))) return false
    return this.#isTurn(this.#lacking())
  }

  /** Whether a member shall be removed now by its own host. */
  shallGo(own: ListedMember): boolean {
    if (own.host === null || this.#wanted.has(own.host)) return false
    return own.learner || (this.#mayShrinkBy(own) && this.#isTurn(this.#unwantedUp()))
  }

  /** Whether one more change will follow when this learner has a vote. */
  hasSuccessor(learner: ListedMember): boolean {
    const { members } = this.#now
    if (members.some(each => !each.learner && !this.#isWanted(each))) return true
    return this.#lacking().some(host => host !== learner.host)
  }

  removalOfOthers(): MemberStep {
    const { members } = this.#now
    for (const member of members) {
      const reason = this.#reasonToRemove(member)
      if (reason !== null) return remove(member, reason)
    }
    return NOTHING
  }

  #reasonToRemove(member: ListedMember): string | null {
    const { self, hosts, unchangedForMs } = this.#now
    if (member.host === self || (!member.learner && !this.#mayShrinkBy(member))) return null
    const host = hosts.find(each => each.host === member.host)
    if (host === undefined) {
      const known = unchangedForMs >= UNKNOWN_FOR_MS && this.#isTurn(this.#actors, UNKNOWN_FOR_MS)
      return known ? 'its host is not in the cluster' : null
    }
    if (member.learner) {
      const silent = host.silentForMs > learnerSilentMs(this.#times)
      return silent && this.#isTurn(this.#actors) ? 'it is not voting yet, and its host is silent' : null
    }
    if (this.#isWanted(member)) return null
    // A host that is up does so itself, unless it does not.
    const own = isUp(host) ? [host.host] : []
    const others = this.#actors.filter(each => each !== host.host)
    return this.#isTurn([...own, ...others])
      ? 'its host is silent or leaves, and another has its place'
      : null
  }

  /**
   * A voter may be taken away when those left can decide; and if it is alive, not before those that shall come have
   * come, as far as they are up: until then it is worth having.
   */
  #mayShrinkBy(member: ListedMember): boolean {
    if (!mayRemove(this.#now.members, member)) return false
    return !isAlive(member) || this.#lacking().length === 0
  }

  /** Hosts that shall have a voter, have none, and are up. */
  #lacking(): readonly HostId[] {
    const voting = new Set(this.#now.members.filter(({ learner }) => !learner).map(({ host }) => host))
    return this.#now.hosts
      .filter(host => this.#wanted.has(host.host) && !voting.has(host.host) && isUp(host))
      .map(({ host }) => host)
  }

  #unwantedUp(): readonly HostId[] {
    const { hosts, members } = this.#now
    const unwanted = members.filter(member => !this.#isWanted(member)).map(({ host }) => host)
    return hosts.filter(host => unwanted.includes(host.host) && isUp(host)).map(({ host }) => host)
  }

  #isWanted({ host }: ListedMember): boolean {
    return host !== null && this.#wanted.has(host)
  }

  /** The first of them acts; the others when those before them had time to. Who is not among them comes last. */
  #isTurn(order: readonly HostId[], sinceMs = 0): boolean {
    const found = order.indexOf(this.#now.self)
    const position = found < 0 ? order.length : found
    return this.#now.unchangedForMs - sinceMs >= position * this.#times.patienceMs
  }
}
