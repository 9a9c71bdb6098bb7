/**
 * Procedures of the mirror that talk to the coordinator and to replicas, written as generators: each yields what it
 * wants done and is resumed with the answer. So they read from top to bottom like the protocol, and still
 * decide without touching a socket, a clock or a random number.
 */
import { type Epoch, type Millis, type ReplicaId } from '../units.ts'
import { type AcceptAnswer, type EpochAnswer, type Purpose } from './messages.ts'
import { type ReplicaRecord, type VolumeState } from './volume-record.ts'

/** Something for the driver to do. */
export type Step =
  | { readonly do: 'read-record' }
  | { readonly do: 'swap-record'; readonly revision: number; readonly state: VolumeState }
  | {
      readonly do: 'accept'
      readonly replica: ReplicaRecord
      readonly state: VolumeState
      readonly epoch: Epoch
      readonly voidUpTo: Epoch
      readonly purpose: Purpose
    }
  | {
      readonly do: 'raise'
      readonly replica: ReplicaRecord
      readonly state: VolumeState
      readonly from: Epoch
    }
  | {
      readonly do: 'all'
      readonly steps: readonly Step[]
      /** All answers are waited for as long as they take if it is not given. */
      readonly patience?: Patience
    }
  | { readonly do: 'wait'; readonly ms: Millis }
  | { readonly do: 'now' }
  | { readonly do: 'fraction' }
  | { readonly do: 'uuid' }

/** For whose answers to wait when several are asked, and for how long. */
interface Patience {
  readonly awaited: readonly boolean[]
  readonly ms: Millis
  /** Told of an answer that has come when nobody waited for it any more. */
  readonly late: (index: number, answer: unknown) => void
}

/** A procedure that ends with a result. */
export type Steps<Result> = Generator<Step, Result, unknown>

/** Nothing came back within the deadline; the message may have arrived all the same. */
export interface Silent {
  readonly kind: 'silent'
  readonly reason: string
}

/** The answer of a step that nobody waits for any more. */
export const NOT_AWAITED: Silent = { kind: 'silent', reason: 'it has not answered yet' }

export type ReadAnswer =
  | { readonly kind: 'read'; readonly state: VolumeState; readonly revision: number }
  | { readonly kind: 'missing' }
  | { readonly kind: 'unavailable'; readonly reason: string }

export type SwapAnswer =
  | { readonly kind: 'committed'; readonly revision: number }
  /** Refused: the record is another one by now. */
  | { readonly kind: 'conflict'; readonly state: VolumeState; readonly revision: number }
  | { readonly kind: 'missing' }
  /** Certainly not done. */
  | { readonly kind: 'unavailable'; readonly reason: string }
  /** Done, or not, or still to be done. */
  | { readonly kind: 'unknown'; readonly reason: string }

export function* readRecord(): Steps<ReadAnswer> {
  return (yield { do: 'read-record' }) as ReadAnswer
}

export function* swapRecord(revision: number, state: VolumeState): Steps<SwapAnswer> {
  return (yield { do: 'swap-record', revision, state }) as SwapAnswer
}

/**
 * Asks replicas to accept.
 * @param awaited whose answers are waited for
 * @param ms for how long at most
 * @param late told of a replica whose answer came after that
 */
export function* acceptAll(
  replicas: readonly ReplicaRecord[],
  rest: { state: VolumeState; epoch: Epoch; voidUpTo: Epoch; purpose: Purpose },
  awaited: (replica: ReplicaRecord) => boolean,
  ms: Millis,
  late: (replica: ReplicaRecord) => void
): Steps<ReadonlyMap<ReplicaId, AcceptAnswer | Silent>> {
  const steps = replicas.map(replica => ({ do: 'accept', replica, ...rest }) as const)
  const patience: Patience = {
    awaited: replicas.map(awaited),
    ms,
    late: (index, answer) => {
      if ((answer as AcceptAnswer | Silent).kind !== 'silent') late(replicas[index]!)
    },
  }
  const answers = (yield { do: 'all', steps, patience }) as readonly (AcceptAnswer | Silent)[]
  return new Map(replicas.map((replica, index) => [replica.replica, answers[index]!]))
}

export function* raiseAll(
  replicas: readonly ReplicaRecord[],
  state: VolumeState,
  from: Epoch
): Steps<ReadonlyMap<ReplicaId, EpochAnswer | Silent>> {
  const steps = replicas.map(replica => ({ do: 'raise', replica, state, from }) as const)
  const answers = (yield { do: 'all', steps }) as readonly (EpochAnswer | Silent)[]
  return new Map(replicas.map((replica, index) => [replica.replica, answers[index]!]))
}

export function* wait(ms: Millis): Steps<void> {
  yield { do: 'wait', ms }
}

export function* now(): Steps<Millis> {
  return (yield { do: 'now' }) as Millis
}

/** A random number from 0 to 1. */
export function* fraction(): Steps<number> {
  return (yield { do: 'fraction' }) as number
}

export function* uuid(): Steps<string> {
  return (yield { do: 'uuid' }) as string
}
