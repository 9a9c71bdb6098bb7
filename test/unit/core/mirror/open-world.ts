import assert from 'node:assert/strict'
import { type AcceptAnswer } from '../../../../core/mirror/messages.ts'
import { openVolume } from '../../../../core/mirror/open-procedure.ts'
import { type ReadAnswer, type Silent, type Step, type SwapAnswer } from '../../../../core/mirror/steps.ts'
import { DEFAULT_TIMING } from '../../../../core/mirror/timing.ts'
import { type VolumeState } from '../../../../core/mirror/volume-record.ts'
import { type Epoch, type HostId, epoch } from '../../../../core/units.ts'
import { HOST_A, HOST_B, accepted, ms, processOf, recordOf, run } from './samples.ts'

export type Answer = AcceptAnswer | Silent

export const silent: Silent = { kind: 'silent', reason: 'no answer' }
export const promised = (remainingMs: number, holder: HostId | null = HOST_A): Answer => ({
  kind: 'promised',
  identity: processOf(HOST_A),
  holder,
  epoch: epoch(5),
  remainingMs: ms(remainingMs),
})
export const preparing = (host: HostId): Answer => ({
  kind: 'preparing',
  identity: processOf(host),
  reason: 'what was written is made durable',
})
export const gone = (host: HostId): Answer => ({
  kind: 'gone',
  identity: processOf(host),
  reason: 'no files',
})

/** A coordinator that does what it is asked and replicas that answer as told, seen from host b. */
export class World {
  state: VolumeState
  revision = 1
  now = 1000
  deadline = 20_000
  purpose: 'guest' | 'maintenance' = 'guest'
  cancelled = false
  readonly order: string[] = []
  readonly accepts: { host: HostId; epoch: Epoch; voidUpTo: Epoch }[] = []
  /** Answers to accepts, by host, one after the other; the last one stays. */
  readonly answers = new Map<HostId, Answer[]>()
  /** What a host answers to accepts, where it depends on the moment. */
  readonly asked = new Map<HostId, () => Answer>()
  read: () => ReadAnswer = () => ({ kind: 'read', state: this.state, revision: this.revision })
  swap: (next: VolumeState, count: number) => SwapAnswer = next => this.commit(next)
  #swaps = 0

  constructor(state: VolumeState) {
    this.state = state
  }

  commit(next: VolumeState): SwapAnswer {
    this.state = next
    return { kind: 'committed', revision: ++this.revision }
  }

  conflict(): SwapAnswer {
    return { kind: 'conflict', state: this.state, revision: this.revision }
  }

  resumes = false

  open() {
    const { purpose } = this
    const cancelled = (): boolean => this.cancelled
    const { resumes, deadline } = this
    const options = {
      host: HOST_B,
      purpose,
      deadline: ms(deadline),
      timing: DEFAULT_TIMING,
      cancelled,
      resumes,
    }
    return run(
      openVolume(options),
      step => this.#perform(step),
      ({ patience }, answers) => {
        // The time of a question to one that does not answer is over.
        const isSilent = (answer: unknown): boolean => (answer as Answer).kind === 'silent'
        if (patience?.awaited.some((isAwaited, index) => isAwaited && isSilent(answers[index])) === true) {
          this.now += patience.ms
        }
      }
    )
  }

  #perform(step: Step): unknown {
    if (step.do !== 'now' && step.do !== 'uuid' && step.do !== 'fraction') this.order.push(step.do)
    switch (step.do) {
      case 'read-record':
        return this.read()
      case 'swap-record':
        return step.revision === this.revision ? this.swap(step.state, this.#swaps++) : this.conflict()
      case 'accept': {
        const { host } = step.replica
        this.accepts.push({ host, epoch: step.epoch, voidUpTo: step.voidUpTo })
        const asked = this.asked.get(host)
        if (asked !== undefined) return asked()
        const answers = this.answers.get(host) ?? [accepted(host)]
        return answers.length > 1 ? answers.shift() : answers[0]
      }
      case 'wait':
        return void (this.now += step.ms)
      case 'now':
        return this.now
      case 'fraction':
        return 0.5
      case 'uuid':
        return `operation ${this.order.length}`
      case 'all':
      case 'raise':
        return assert.fail(`not a step of an open: ${step.do}`)
    }
  }
}

/** A volume that was closed cleanly. */
export const closed = (): World => new World(recordOf({ primary: null }))
