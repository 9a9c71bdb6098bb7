import { reasonOf } from '../../core/errors.ts'
import { type ProcessIdentity, type ReplicaAddress } from '../../core/mirror/messages.ts'
import { NOT_AWAITED, type Silent, type Step, type Steps } from '../../core/mirror/steps.ts'
import { type ReplicaRecord, type VolumeState } from '../../core/mirror/volume-record.ts'
import { type Clock, pause } from '../../core/ports/clock.ts'
import { type Random } from '../../core/ports/random.ts'
import { type HostId } from '../../core/units.ts'
import { type RecordStore } from './record-store.ts'
import { type ReplicaPeer } from './replica-peer.ts'

/** What the procedures of the core act upon. */
export interface ProcedureWorld {
  readonly clock: Clock
  readonly random: Random
  readonly records: RecordStore
  readonly identity: ProcessIdentity
  readonly peer: (host: HostId) => ReplicaPeer
  readonly address: (record: ReplicaRecord, state: VolumeState) => ReplicaAddress
}

/** Runs a procedure to its end: does what it yields and resumes it with the answer. */
export async function runSteps<Result>(
  steps: Steps<Result>,
  perform: (step: Step) => Promise<unknown>
): Promise<Result> {
  let next = steps.next()
  while (next.done !== true) next = steps.next(await perform(next.value))
  return next.value
}

/** Does one step. A replica that does not answer is an answer too: Silent. */
export async function performStep(step: Step, world: ProcedureWorld): Promise<unknown> {
  switch (step.do) {
    case 'read-record':
      return world.records.read()
    case 'swap-record':
      return world.records.swap(step.revision, step.state)
    case 'accept': {
      const { replica, state, epoch, voidUpTo, purpose } = step
      const address = world.address(replica, state)
      const request = { address, epoch, asker: world.identity, purpose, inSync: true, voidUpTo }
      return orSilent(world.peer(replica.host).accept(request))
    }
    case 'raise': {
      const { replica, state, from } = step
      const address = world.address(replica, state)
      const request = { address, from, to: state.epoch, asker: world.identity, inSync: replica.inSync }
      return orSilent(world.peer(replica.host).raise(request))
    }
    case 'all': {
      const answers = step.steps.map(async one => performStep(one, world))
      return step.patience === undefined
        ? Promise.all(answers)
        : answersInTime(answers, step.patience, world.clock)
    }
    case 'wait':
      return pause(world.clock, step.ms)
    case 'now':
      return world.clock.now()
    case 'fraction':
      return world.random.fraction()
    case 'uuid':
      return world.random.uuid()
  }
}

/** Those of the answers that have come when all awaited ones have, or the time is over. */
async function answersInTime(
  answers: readonly Promise<unknown>[],
  { awaited, ms, late }: NonNullable<(Step & { do: 'all' })['patience']>,
  clock: Clock
): Promise<unknown[]> {
  const come: unknown[] = answers.map(() => NOT_AWAITED)
  let isOver = false
  const missing = new Set(awaited.flatMap((isAwaited, index) => (isAwaited ? [index] : [])))
  return new Promise((resolve, reject) => {
    const done = (): void => {
      timer.cancel()
      isOver = true
      resolve([...come])
    }
    const timer = clock.after(ms, done)
    for (const [index, answer] of answers.entries()) {
      answer.then(value => {
        if (isOver) {
          late(index, value)
          return
        }
        come[index] = value
        missing.delete(index)
        if (missing.size === 0) done()
      }, reject)
    }
  })
}

const orSilent = async <Answer>(answer: Promise<Answer>): Promise<Answer | Silent> =>
  answer.catch((error: unknown) => ({ kind: 'silent', reason: reasonOf(error) }))
