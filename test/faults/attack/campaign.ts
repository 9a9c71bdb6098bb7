/** Runs one attack after the other against all ports, and judges what came of it. */
import { setTimeout as delay } from 'node:timers/promises'
import { type Load } from '../load/load-client.ts'
import { type AttackLab } from './attack-lab.ts'
import { type AttemptOutcome } from './attack-wire.ts'
import { type Attacker } from './attacker-process.ts'
import { type Attack, MEMBER_CALL } from './attacks.ts'
import { type Intruders } from './intruders.ts'
import { type Listener, PORT_KINDS, type PortKind } from './listening.ts'
import { type Refusal, readRefusals } from './refusals.ts'
import { Watch, resourcesOf } from './resources.ts'

/** The second and third are to be counted, not told. */
const TRIES = 3
/** A log is written by a stream, and etcd's by a logger that gathers. */
const LOG_MS = 5_000
const LOG_POLL_MS = 200
/** So many descriptors may have come or gone for other reasons: connections to peers and to etcd. */
const DESCRIPTORS_APART_MAX = 8
const DESCRIPTORS_MS = 15_000
/** Of one process; see docs/operating/drills.md. */
const MEMORY_GROWTH_MIB_MAX = 160
/** A wait that a guest would notice; on a machine that is busy with other things the load alone may wait longer. */
const STALL_MS = 2_000
/** When the member calls in the middle of a flood, after its beginning. */
const MEMBER_CALL_AFTER_MS = 5_000
/** Its patience is that of a host's own client. */
const MEMBER_CALL_MS_MAX = 5_000

interface CampaignOptions {
  readonly attacked: AttackLab
  readonly load: Load
  readonly intruders: Intruders
  /** Of the attacker, beside the one that was its own as a member. */
  readonly addresses: readonly string[]
  readonly attacker: Attacker
  /** Who may, in the network of the primary's host. */
  readonly member: Attacker
  readonly listeners: readonly Listener[]
  readonly calmStallMs: number
}

/** `HELD`: neither answered nor closed. */
type Verdict = 'refused' | 'ANSWERED' | 'HELD' | 'UNLOGGED' | '-'

export interface AttemptRow {
  readonly name: string
  /** By title of a kind of port. */
  readonly verdicts: Readonly<Record<string, Verdict>>
  readonly causes: readonly string[]
  readonly tries: number
  readonly lines: number
  readonly stallMs: number
  readonly faults: readonly string[]
}

export interface FloodRow {
  readonly title: string
  readonly opened: number
  /** By the other end. */
  readonly closed: number
  readonly lines: number
  /** A member's call in the middle of it, the slowest; null when one was not answered. */
  readonly memberMs: number | null
  readonly stallMs: number
  /** Of one process, the largest. */
  readonly descriptors: { readonly before: number; readonly most: number; readonly after: number }
  readonly residentMib: { readonly before: number; readonly most: number; readonly after: number }
  readonly faults: readonly string[]
}

export class Campaign {
  readonly #options: CampaignOptions
  readonly #stallMsMax: number

  constructor(options: CampaignOptions) {
    this.#options = options
    this.#stallMsMax = Math.max(STALL_MS, 2 * options.calmStallMs)
  }

  /** Tries one thing at every port where it makes sense. @param index tells attacks apart by the attacker's address */
  async attempt(attack: Attack, index: number): Promise<AttemptRow> {
    const { addresses, load } = this.#options
    const from = addresses[index]!
    const startedAt = Date.now()
    const watch = new Watch(this.#pids())
    load.mark()
    const kinds = PORT_KINDS.filter(({ protocol }) => attack.protocols.includes(protocol))
    const outcomes = await Promise.all(kinds.map(async kind => this.#tryAll(attack, kind, from)))
    const { longestStallMs } = await load.report()
    watch.end()
    const faults = this.#stallFaults(longestStallMs)
    const targets = kinds.flatMap(kind => this.#targets(kind))
    const lines = await this.#untilLogged(startedAt, from, targets)
    const verdicts: Record<string, Verdict> = {}
    for (const [at, kind] of kinds.entries()) {
      const [verdict, sentences] = judge(attack, kind, outcomes[at]!, this.#targets(kind), lines)
      verdicts[kind.title] = verdict
      faults.push(...sentences)
    }
    faults.push(...(await this.#descriptorFaults(watch.before)))
    return {
      name: attack.name,
      verdicts,
      causes: [...new Set(lines.map(({ cause }) => cause))],
      tries: targets.length * TRIES,
      lines: lines.length,
      stallMs: longestStallMs,
      faults,
    }
  }

  /** Opens connections to all ports of a kind that never get anywhere. */
  async flood(kind: PortKind, connections: number): Promise<FloodRow> {
    const { addresses, attacker, load } = this.#options
    const targets = this.#targets(kind)
    const linesBefore = (await readRefusals(this.#options.attacked)).length
    const pids = [...new Set(targets.map(({ pid }) => pid))]
    const watch = new Watch(pids)
    load.mark()
    const member = delay(MEMBER_CALL_AFTER_MS).then(async () => this.#callAsMember(kind))
    const places = targets.map(({ address, port }) => ({ address, port }))
    const { opened, closed, failed } = await attacker.flood({ targets: places, from: addresses, connections })
    const memberMs = await member
    attacker.release()
    const { longestStallMs } = await load.report()
    const faults = [...this.#stallFaults(longestStallMs), ...(await this.#descriptorFaults(watch.before))]
    const most = watch.end()
    if (memberMs === null)
      faults.push(`a member was not answered within ${MEMBER_CALL_MS_MAX / 1000} s meanwhile`)
    if (failed > 0)
      faults.push(`${failed} connections could not be opened: the attack was smaller than it should be`)
    if (closed < opened) faults.push(`${opened - closed} connections stayed open`)
    const after = new Map(pids.map(pid => [pid, resourcesOf(pid)]))
    for (const [pid, { residentMib }] of after) {
      const growth = residentMib - watch.before.get(pid)!.residentMib
      if (growth > MEMORY_GROWTH_MIB_MAX) faults.push(`process ${pid} has ${growth} MiB more than before`)
    }
    const largest = (of: 'descriptors' | 'residentMib') => ({
      before: Math.max(...[...watch.before.values()].map(each => each[of])),
      most: Math.max(...[...most.values()].map(each => each[of])),
      after: Math.max(...[...after.values()].map(each => each[of])),
    })
    return {
      title: kind.title,
      opened,
      closed,
      lines: (await readRefusals(this.#options.attacked)).length - linesBefore,
      memberMs,
      stallMs: longestStallMs,
      descriptors: largest('descriptors'),
      residentMib: largest('residentMib'),
      faults,
    }
  }

  /** From the primary's host to the others, with a member's certificate. @returns the longest, or null when one had no answer */
  async #callAsMember(kind: PortKind): Promise<number | null> {
    const { attacked, member, intruders } = this.#options
    const { primary } = attacked
    const calls = this.#targets(kind)
      .filter(({ host }) => host !== primary)
      .map(async ({ address, port }) =>
        member.attempt({
          address,
          port,
          protocol: kind.protocol,
          way: MEMBER_CALL.way,
          from: primary.address,
          credentials: intruders[MEMBER_CALL.who],
        })
      )
    const outcomes = await Promise.all(calls)
    const slowest = Math.max(...outcomes.map(({ closedAfterMs }) => closedAfterMs ?? Infinity))
    return outcomes.every(({ answer }) => answer !== null) && slowest <= MEMBER_CALL_MS_MAX ? slowest : null
  }

  async #tryAll(attack: Attack, kind: PortKind, from: string): Promise<AttemptOutcome[]> {
    const { attacker, intruders } = this.#options
    const { way, who } = attack
    const tries = this.#targets(kind).flatMap(target =>
      Array.from({ length: TRIES }, async () =>
        attacker.attempt({
          ...{ address: target.address, port: target.port, way, from },
          protocol: kind.protocol,
          credentials: intruders[who],
        })
      )
    )
    return Promise.all(tries)
  }

  #targets({ ports }: PortKind): Listener[] {
    return this.#options.listeners.filter(({ port }) => ports.includes(port))
  }

  #pids(): number[] {
    return [...new Set(this.#options.listeners.map(({ pid }) => pid))]
  }

  /** Waits until every port has said something about the attacker, but not for ever. @returns what was said */
  async #untilLogged(startedAt: number, from: string, targets: readonly Listener[]): Promise<Refusal[]> {
    const { attacked } = this.#options
    const end = performance.now() + LOG_MS
    for (;;) {
      const all = await readRefusals(attacked)
      const lines = all.filter(line => line.at >= startedAt && line.address === from)
      const silent = targets.some(target => !lines.some(line => isAbout(line, target)))
      if (!silent || performance.now() >= end) return lines
      await delay(LOG_POLL_MS)
    }
  }

  #stallFaults(stallMs: number): string[] {
    return stallMs <= this.#stallMsMax ? [] : [`a request of the load waited ${stallMs} ms`]
  }

  /** Waits until every process has as many descriptors as before. @returns those that do not come down */
  async #descriptorFaults(before: Watch['before']): Promise<string[]> {
    const end = performance.now() + DESCRIPTORS_MS
    for (;;) {
      const more = [...before].flatMap(([pid, { descriptors }]): string[] => {
        const now = resourcesOf(pid).descriptors
        const kept = now - descriptors > DESCRIPTORS_APART_MAX
        return kept ? [`process ${pid} had ${descriptors} descriptors, and has ${now}`] : []
      })
      if (more.length === 0 || performance.now() >= end) return more
      await delay(LOG_POLL_MS)
    }
  }
}

const isAbout = (line: Refusal, { host, port }: Listener): boolean =>
  line.host === host.name && line.port === port

/** What became of an attack on the ports of one kind. */
function judge(
  attack: Attack,
  kind: PortKind,
  outcomes: readonly AttemptOutcome[],
  targets: readonly Listener[],
  lines: readonly Refusal[]
): [Verdict, string[]] {
  const where = kind.title
  const answered = outcomes.find(({ answer }) => answer !== null)
  if (answered !== undefined)
    return ['ANSWERED', [`${where}: answered with ${JSON.stringify(answered.answer)}`]]
  if (outcomes.some(({ closedAfterMs }) => closedAfterMs === null)) {
    return ['HELD', [`${where}: the connection stayed open`]]
  }
  const faults = targets.flatMap((target): string[] => {
    const own = lines.filter(line => isAbout(line, target))
    const at = `${where}, port ${target.port} of ${target.host.name}`
    if (own.length === 0) return [`${at}: the log says nothing`]
    const causes = own.map(({ cause }) => cause)
    const odd = causes.find(cause => !attack.causes.includes(cause))
    return odd === undefined ? [] : [`${at}: refused for ${odd} instead of ${attack.causes.join(' or ')}`]
  })
  return [faults.length === 0 ? 'refused' : 'UNLOGGED', faults]
}
