/**
 * Open: how a host gets the right to serve a volume.
 *
 * 1. It reserves a new highest epoch in the record. Whoever reserved before and has not finished is overtaken, so a
 *    contender that died blocks nobody.
 * 2. It asks every in-sync replica to accept the epoch. A replica that owes a promise to a live primary refuses; one
 *    that accepts will never again serve a lower epoch. One that has to flush for long before says so, and is waited for.
 *    One that is silent is waited for as long as one call takes, once; then it is only asked on the side.
 * 3. It takes the volume by compare-and-swap on the condition that its reservation still stands. In-sync replicas
 *    that did not accept are in-sync no longer.
 *
 * What happens when a step fails: after 1, nothing; a higher reservation replaces it. After 2, a live primary at the
 * old epoch finds its writes refused and opens itself again. After 3, the record names this host, which finds
 * that out when it comes back and goes on from there.
 */
import { type Epoch, type HostId, type Millis, type ReplicaId, epoch as toEpoch } from '../units.ts'
import { type AcceptAnswer, type Purpose } from './messages.ts'
import { RecordKeeper, changeRecord } from './record-keeper.ts'
import { type Silent, type Steps, acceptAll, fraction, now, readRecord, uuid, wait } from './steps.ts'
import { type MirrorTiming } from './timing.ts'
import { inSyncReplicas, reserveEpoch, takeVolume } from './volume-change.ts'
import { type ReplicaRecord, type VolumeState } from './volume-record.ts'

export type OpenOutcome =
  | {
      readonly kind: 'opened'
      readonly keeper: RecordKeeper
      /** What each replica that accepted said, those that are in-sync at the new epoch only. */
      readonly accepted: ReadonlyMap<ReplicaId, AcceptAnswer & { kind: 'accepted' }>
    }
  | { readonly kind: 'active-elsewhere'; readonly host: HostId }
  | { readonly kind: 'missing' }
  | { readonly kind: 'deadline'; readonly reason: string }
  /** Refused for a reason that waiting does not mend. */
  | { readonly kind: 'refused'; readonly reason: string }

export interface OpenOptions {
  readonly host: HostId
  readonly purpose: Purpose
  /** Moment (of the driver's clock) after which no new attempt begins; infinite for a primary that re-opens. */
  readonly deadline: Millis
  readonly timing: MirrorTiming
  /** True once the attempt is to end: the volume is being closed. */
  readonly cancelled: () => boolean
  /**
   * The volume was served here before, and a guest from then waits. It may go on only if nobody else had the volume
   * meanwhile: over what another one wrote, its writes would be those of a second writer.
   */
  readonly resumes: boolean
}

type Answers = ReadonlyMap<ReplicaId, AcceptAnswer | Silent>

/** What an opening remembers from one attempt to the next, so that none begins from scratch. */
interface Memory {
  /** Names the reservation that this opening made last; null when it has to make another one. */
  reservation: string | null
  /** Since when a replica has been asked without an answer. */
  readonly silentSince: Map<ReplicaId, Millis>
}

/** What every replica is asked in one attempt. */
interface Question {
  readonly state: VolumeState
  readonly epoch: Epoch
  readonly voidUpTo: Epoch
  readonly purpose: Purpose
}

export function* openVolume(options: OpenOptions): Steps<OpenOutcome> {
  const { timing } = options
  const memory: Memory = { reservation: null, silentSince: new Map() }
  let reason = 'the coordinator did not answer'
  for (let attempt = 0; ; attempt++) {
    if (options.cancelled()) return { kind: 'deadline', reason: 'the attempt was ended' }
    if (attempt > 0 && (yield* now()) >= options.deadline) return { kind: 'deadline', reason }
    if (attempt > 0) yield* backOff(attempt, timing)

    const reserved = yield* reserve(options, memory)
    if (reserved.kind === 'again') {
      reason = reserved.reason
      continue
    }
    if (reserved.kind !== 'reserved') return reserved

    const { keeper, epoch, voidUpTo } = reserved
    const replicas = inSyncReplicas(keeper.state)
    const request = { state: keeper.state, epoch, voidUpTo, purpose: options.purpose }
    const answers: Answers | HostId = yield* askUntilFree(replicas, request, options, memory)
    if (typeof answers === 'string') return { kind: 'active-elsewhere', host: answers }
    if (options.cancelled()) continue
    const obstacle = obstacleToTake(keeper.state, answers)
    if (obstacle !== null) {
      reason = obstacle
      if (overtaken(answers)) memory.reservation = null
      continue
    }
    const taken = yield* take(keeper, options, epoch, answers)
    if (taken) return { kind: 'opened', keeper, accepted: acceptedIn(keeper.state, answers) }
    reason = OVERTAKEN
  }
}

const OVERTAKEN = 'another host reserved a higher epoch'

/** Whether a replica has accepted a higher epoch than the one that was reserved. */
const overtaken = (answers: Answers): boolean =>
  [...answers.values()].some(({ kind }) => kind === 'higher-epoch')

/**
 * Asks the replicas to accept, and waits for promises that bind them to end. A live primary renews its promises, a dead
 * one's run out: which it is shows when a few heartbeats later as much is left as before.
 *
 * @returns the host that holds a promise and lives, or whose promise outlasts the deadline; else the answers
 */
function* askUntilFree(
  replicas: readonly ReplicaRecord[],
  request: Question,
  options: OpenOptions,
  memory: Memory
): Steps<Answers | HostId> {
  const { timing, deadline, host } = options
  // Three heartbeats may be lost or late before their absence means something.
  const look = 3 * timing.heartbeatIntervalMs
  // The primary's own host first: if it lives it says so, before any other has been taken from it. A host that lives
  // answers sooner than a heartbeat is due.
  const own = replicas.filter(replica => replica.host === request.state.primary && replica.host !== host)
  const others = replicas.filter(replica => !own.includes(replica))
  const before = new Map<ReplicaId, number>()
  for (;;) {
    let answers: Answers = new Map()
    if (!own.some(({ replica }) => memory.silentSince.has(replica))) {
      answers = yield* ask(own, request, timing, memory, timing.heartbeatIntervalMs)
    }
    if (longestPromise(answers) === null) {
      const unheard = own.filter(({ replica }) => memory.silentSince.has(replica))
      answers = new Map([...answers, ...(yield* ask([...unheard, ...others], request, timing, memory))])
      answers = yield* askUntilPrepared(replicas, answers, request, options, memory)
    }
    const promised = longestPromise(answers)
    if (promised === null) return answers
    const { remainingMs } = promised
    const holder = promised.holder ?? ownerOf(request.state, host)
    if (isRenewed(answers, before, look) || request.purpose === 'maintenance') return holder
    if ((yield* now()) + remainingMs > deadline) return holder
    for (const [replica, answer] of answers) {
      if (answer.kind === 'promised') before.set(replica, answer.remainingMs)
    }
    yield* wait(Math.min(remainingMs, look) as Millis)
  }
}

/**
 * Asks replicas to accept, and waits for those that may still answer: each for one call's time from when it was first
 * asked in vain. A dead host's silence must not be waited out again with every question to the others.
 *
 * @param atMostMs how long to wait in any case
 */
function* ask(
  replicas: readonly ReplicaRecord[],
  question: Question,
  { callTimeoutMs }: MirrorTiming,
  { silentSince }: Memory,
  atMostMs: Millis = callTimeoutMs
): Steps<Answers> {
  if (replicas.length === 0) return new Map()
  const at = yield* now()
  const left = new Map<ReplicaId, number>()
  for (const { replica } of replicas) {
    const since = silentSince.get(replica) ?? at
    silentSince.set(replica, since)
    if (at - since < callTimeoutMs) left.set(replica, callTimeoutMs - (at - since))
  }
  // Nobody else is there: then the silent ones are all there is to wait for.
  const isAwaited = ({ replica }: ReplicaRecord): boolean => left.size === 0 || left.has(replica)
  const ms = Math.min(atMostMs, left.size === 0 ? callTimeoutMs : Math.max(...left.values()))
  // One that is back after all is waited for like any other when it is asked next.
  const heard = ({ replica }: ReplicaRecord): void => void silentSince.delete(replica)
  const answers = yield* acceptAll(replicas, question, isAwaited, ms as Millis, heard)
  for (const [replica, { kind }] of answers) if (kind !== 'silent') silentSince.delete(replica)
  return answers
}

/**
 * Asks replicas again that are about to accept. One that can be done without is waited for only a while and then left
 * behind: that costs its host a resync by intents, and guests no more than this while. One that cannot is waited for
 * until the deadline. The silent ones are asked beside them, because they may do as well.
 */
function* askUntilPrepared(
  replicas: readonly ReplicaRecord[],
  first: Answers,
  question: Question,
  { timing, deadline, cancelled }: OpenOptions,
  memory: Memory
): Steps<Answers> {
  let answers = first
  let leaveAt = Number.POSITIVE_INFINITY
  for (;;) {
    const kinds = new Set([...answers.values()].map(({ kind }) => kind))
    if (!kinds.has('preparing') || kinds.has('promised') || kinds.has('higher-epoch')) return answers
    const at = yield* now()
    const enough = obstacleToTake(question.state, answers) === null
    // What is left to do after the last answer has to be done by the deadline, too.
    const latest = Math.min(at + timing.preparationMs, deadline - timing.callTimeoutMs)
    leaveAt = enough ? Math.min(leaveAt, latest) : Number.POSITIVE_INFINITY
    if (cancelled() || at >= Math.min(leaveAt, deadline)) return answers
    yield* wait(timing.retryDelayMs)
    const asked = replicas.filter(({ replica }) => answers.get(replica)?.kind !== 'accepted')
    answers = new Map([...answers, ...(yield* ask(asked, question, timing, memory))])
  }
}

/** Whether a replica has more of its promise left than it can have without a sign of life since it was last asked. */
function isRenewed(answers: Answers, before: ReadonlyMap<ReplicaId, number>, look: number): boolean {
  for (const [replica, answer] of answers) {
    const last = before.get(replica)
    if (last === undefined || answer.kind !== 'promised') continue
    // Half of the wait is more than clocks differ by: one that has a last moment left was not renewed.
    if (answer.remainingMs > last - Math.min(last, look) / 2) return true
  }
  return false
}

function* backOff(attempt: number, timing: MirrorTiming): Steps<void> {
  const steps = Math.min(2 ** attempt, 16)
  // Contenders must not march in step, or each would overtake the other for ever.
  yield* wait((timing.retryDelayMs * steps * (0.5 + (yield* fraction()))) as Millis)
}

type Reserved =
  | {
      readonly kind: 'reserved'
      readonly keeper: RecordKeeper
      readonly epoch: Epoch
      readonly voidUpTo: Epoch
    }
  | { readonly kind: 'again'; readonly reason: string }
  | Exclude<OpenOutcome, { kind: 'opened' }>

/** Reserves an epoch, unless the reservation of the attempt before stands. */
function* reserve(options: OpenOptions, memory: Memory): Steps<Reserved> {
  const read = yield* readRecord()
  if (read.kind === 'missing') return { kind: 'missing' }
  if (read.kind === 'unavailable') return { kind: 'again', reason: read.reason }
  if (read.state.operation !== undefined) {
    return { kind: 'refused', reason: `the volume is ${read.state.operation.kind}` }
  }
  const keeper = new RecordKeeper(read.state, read.revision)
  if (!mayOpen(keeper.state, options)) return elsewhere(keeper.state)
  if (
    options.purpose === 'maintenance' &&
    read.state.primary !== null &&
    read.state.primary !== options.host
  ) {
    return { kind: 'active-elsewhere', host: read.state.primary }
  }
  const { reservation } = memory
  const stands = reservation !== null && read.state.reserved.operation === reservation
  const operation = stands ? reservation : yield* uuid()
  const outcome = yield* changeRecord(keeper, {
    decide: state =>
      state.operation === undefined && mayOpen(state, options)
        ? reserveEpoch(state, options.host, operation)
        : null,
    isDone: state => state.reserved.operation === operation,
    mayGiveUp: () => true,
    retryDelayMs: options.timing.retryDelayMs,
  })
  memory.reservation = operation
  if (outcome.kind === 'missing') return { kind: 'missing' }
  if (!mayOpen(keeper.state, options)) return elsewhere(keeper.state)
  if (outcome.kind === 'refused') return { kind: 'refused', reason: 'the volume is being deleted' }
  if (outcome.kind === 'given-up') return { kind: 'again', reason: outcome.reason }
  const { state } = keeper
  const { epoch } = state.reserved
  // Once this epoch is reserved no lower one can be taken any more. So the only promise that may still bind is that to
  // the primary in the record, and if that is nobody or this host, none does. Of which epoch it is cannot be told from
  // the record: a replica may not have heard of it when its primary raised it last.
  const voidUpTo = ownerOf(state, options.host) === options.host ? epoch - 1 : 0
  return { kind: 'reserved', keeper, epoch, voidUpTo: toEpoch(voidUpTo) }
}

/** The only host that a replica may owe a promise; the one that asks when it cannot be another. */
const ownerOf = ({ primary }: VolumeState, asker: HostId): HostId => primary ?? asker

/** Who has the volume, or was given it last; null for one that nobody ever had. */
const lastOf = ({ primary, reserved }: VolumeState): HostId | null => primary ?? reserved.host

/** Whether nobody else had the volume, for who needs that. */
const mayOpen = (state: VolumeState, { resumes, host }: OpenOptions): boolean =>
  !resumes || lastOf(state) === host

/** Only for a volume that this host had once: so somebody was given it last. */
const elsewhere = (state: VolumeState) => ({ kind: 'active-elsewhere', host: lastOf(state)! }) as const

function longestPromise(answers: Answers): (AcceptAnswer & { kind: 'promised' }) | null {
  let longest: (AcceptAnswer & { kind: 'promised' }) | null = null
  for (const answer of answers.values()) {
    if (answer.kind !== 'promised') continue
    if (longest === null || answer.remainingMs > longest.remainingMs) longest = answer
  }
  return longest
}

/**
 * Why the answers are not enough to take the volume; null when they are.
 *
 * One in-sync replica is enough to have every acknowledged write. But if every one that answered may have lost
 * un-flushed writes in a power cut, a silent one may still hold them: then the volume waits for it.
 */
export function obstacleToTake(state: VolumeState, answers: Answers): string | null {
  const inSync = inSyncReplicas(state)
  const accepted = inSync
    .map(({ replica }) => answers.get(replica))
    .filter(answer => answer?.kind === 'accepted')
  if (overtaken(answers)) return OVERTAKEN
  if (accepted.length === 0) {
    const reasons = inSync.map(({ replica, host }) => `${host}: ${describe(answers.get(replica))}`)
    return `no in-sync replica accepted (${reasons.join('; ')})`
  }
  const whole = accepted.some(answer => answer.lostAt === null)
  const gone = inSync.filter(({ replica }) => answers.get(replica)?.kind === 'gone').length
  if (!whole && accepted.length + gone < inSync.length) {
    return 'the replicas that answered lost power, and one that is away may hold writes that they lost'
  }
  return null
}

/** Of one that is in-sync only since the others were asked. */
const NOT_ASKED = { kind: 'not asked', reason: 'it was stale until now' }

const describe = ({
  kind,
  reason = 'for no reason that it gave',
}: {
  readonly kind: string
  readonly reason?: string
} = NOT_ASKED): string => `${kind}, ${reason}`

function acceptedIn(state: VolumeState, answers: Answers) {
  const accepted = new Map<ReplicaId, AcceptAnswer & { kind: 'accepted' }>()
  for (const { replica } of inSyncReplicas(state)) {
    const answer = answers.get(replica)
    if (answer?.kind === 'accepted') accepted.set(replica, answer)
  }
  return accepted
}

function* take(keeper: RecordKeeper, options: OpenOptions, epoch: Epoch, answers: Answers): Steps<boolean> {
  const accepted = new Set<ReplicaId>()
  for (const [replica, answer] of answers) if (answer.kind === 'accepted') accepted.add(replica)
  const outcome = yield* changeRecord(keeper, {
    // The primary of before may have changed the membership meanwhile, so the answers are weighed again.
    decide: state =>
      obstacleToTake(state, answers) === null ? takeVolume(state, options.host, epoch, accepted) : null,
    isDone: state => state.primary === options.host && state.epoch === epoch,
    mayGiveUp: () => options.cancelled(),
    retryDelayMs: options.timing.retryDelayMs,
  })
  return outcome.kind === 'changed'
}
