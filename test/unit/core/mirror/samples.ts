import assert from 'node:assert/strict'
import {
  type AcceptAnswer,
  type AcceptRequest,
  type ProcessIdentity,
} from '../../../../core/mirror/messages.ts'
import { type Step, type Steps } from '../../../../core/mirror/steps.ts'
import { type ReplicaRecord, type VolumeState } from '../../../../core/mirror/volume-record.ts'
import {
  type BootId,
  type Epoch,
  type HostId,
  type Incarnation,
  type LayerId,
  type Millis,
  type ReplicaId,
  type SrId,
  type StoreId,
  type VolumeKey,
  byteLength,
  epoch,
  millis,
} from '../../../../core/units.ts'

export const HOST_A = 'host a' as HostId
export const HOST_B = 'host b' as HostId
export const HOST_C = 'host c' as HostId

/** Ids of replicas are told apart by one letter: the replica `a` is the one on host a. */
export const replicaOn = (letter: string): ReplicaId => `replica ${letter}` as ReplicaId

/** The first process of a host, or a later one of the same boot. */
export const processOf = (host: HostId, run = 1): ProcessIdentity => ({
  host,
  boot: `boot of ${host}` as BootId,
  incarnation: `run ${run} on ${host}` as Incarnation,
})

export const ms = (value: number): Millis => millis(value)

interface RecordShape {
  readonly primary?: HostId | null
  readonly epoch?: number
  readonly reserved?: number
  readonly reservedBy?: HostId | null
  readonly operation?: string
  /** One letter per replica; a capital one is in-sync. Stripes are told apart by a space. */
  readonly replicas?: string
}

/** A record as it may stand in the coordinator; by default that of a volume on two hosts, open on host a. */
export function recordOf(shape: RecordShape = {}): VolumeState {
  const { primary = HOST_A, epoch: at = 5, reserved = at, reservedBy = HOST_A } = shape
  const { operation = 'the last one', replicas = 'AB' } = shape
  return {
    version: 1,
    size: byteLength(2 ** 21),
    sharable: false,
    epoch: epoch(at),
    reserved: { epoch: epoch(reserved), host: reservedBy, operation },
    primary,
    layers: ['the layer' as LayerId],
    mirrors: replicas.split(' ').map(mirror => Array.from(mirror, replicaRecord)),
  }
}

function replicaRecord(letter: string): ReplicaRecord {
  const small = letter.toLowerCase()
  return {
    host: `host ${small}` as HostId,
    replica: replicaOn(small),
    store: `store of ${small}` as StoreId,
    inSync: letter !== small,
  }
}

/** The replicas of a record in the letters of `recordOf`. */
export const lettersOf = ({ mirrors }: VolumeState): string =>
  mirrors
    .map(mirror =>
      mirror.map(({ replica, inSync }) => (inSync ? replica.at(-1)!.toUpperCase() : replica.at(-1)!)).join('')
    )
    .join(' ')

/** A request to accept an epoch; by default of the first process of host b, for its guest. */
export function acceptRequest(
  shape: Partial<Omit<AcceptRequest, 'epoch' | 'voidUpTo'>> & { epoch: number; voidUpTo?: number }
) {
  const { replica, store } = replicaRecord('a')
  const address = {
    sr: 'the sr' as SrId,
    volume: 'the volume' as VolumeKey,
    replica,
    store,
    layers: ['the layer' as LayerId],
    size: byteLength(2 ** 21),
  }
  const request: AcceptRequest = {
    address,
    asker: processOf(HOST_B),
    purpose: 'guest',
    inSync: true,
    ...shape,
    epoch: epoch(shape.epoch),
    voidUpTo: epoch(shape.voidUpTo ?? 0),
  }
  return request
}

/** A replica's answer that it accepted. @param lostAt the epoch at which it may have lost un-flushed writes */
export const accepted = (
  host: HostId,
  lostAt: number | null = null
): AcceptAnswer & { kind: 'accepted' } => ({
  kind: 'accepted',
  identity: processOf(host),
  lostAt: lostAt as Epoch | null,
})

/**
 * Runs a procedure against a world that answers its steps.
 * @param waited told of each question to several, with their answers
 * @throws AssertionError when the procedure takes more than 1000 steps
 */
export function run<Result>(
  steps: Steps<Result>,
  answer: (step: Step) => unknown,
  waited?: (step: Step & { do: 'all' }, answers: readonly unknown[]) => void
): Result {
  const perform = (step: Step): unknown => {
    if (step.do !== 'all') return answer(step)
    const answers = step.steps.map(perform)
    waited?.(step, answers)
    return answers
  }
  let next = steps.next()
  for (let count = 0; next.done !== true; count++) {
    assert(count < 1000, 'the procedure does not end')
    next = steps.next(perform(next.value))
  }
  return next.value
}
