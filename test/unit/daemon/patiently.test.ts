import assert from 'node:assert/strict'
import { XosanError } from '../../../core/errors.ts'
import { patiently } from '../../../daemon/cluster/patiently.ts'
import { Deadline } from '../../../volume/deadline.ts'
import { ManualClock } from '../cluster/manual-clock.ts'

describe('asking the coordinator patiently', () => {
  let clock: ManualClock
  /** What it answers; null while nobody decides. */
  let answer: string | Error | null
  let asked: number
  beforeEach(() => {
    clock = new ManualClock()
    answer = null
    asked = 0
  })

  const ask = async (): Promise<string> => {
    asked++
    if (typeof answer === 'string') return Promise.resolve(answer)
    throw answer ?? new XosanError('COORDINATOR_UNAVAILABLE', { reason: 'there is no leader' })
  }

  /** @returns how it has ended; 'waiting' until it has */
  function begin(deadlineMs: number, what = ask): () => string {
    let outcome = 'waiting'
    patiently(clock, new Deadline(clock, 'the test', deadlineMs), what).then(
      value => (outcome = value),
      (error: unknown) => (outcome = error instanceof XosanError ? error.code : String(error))
    )
    return () => outcome
  }

  it('goes on with the answer as soon as somebody decides', async () => {
    const outcome = begin(600_000)
    await clock.advance(29_000)
    assert.equal(outcome(), 'waiting')
    assert.ok(asked > 100 && asked < 200, `it has asked ${asked} times`)
    answer = 'decided'
    await clock.advance(200)
    assert.equal(outcome(), 'decided')
  })

  it('says what the coordinator says when nobody has decided for half a minute', async () => {
    const outcome = begin(600_000)
    await clock.advance(31_000)
    assert.equal(outcome(), 'COORDINATOR_UNAVAILABLE')
    const before = asked
    await clock.advance(60_000)
    assert.equal(asked, before, 'it asks no more')
  })

  it('does not wait for anything else', async () => {
    answer = new XosanError('RECORD_INVALID', { key: 'a', reason: 'b' })
    const outcome = begin(600_000)
    await clock.advance(0)
    assert.equal(outcome(), 'RECORD_INVALID')
    assert.equal(asked, 1)
  })

  it('takes no longer than its caller has', async () => {
    const outcome = begin(5_000)
    await clock.advance(5_200)
    assert.equal(outcome(), 'DEADLINE_EXCEEDED')
  })

  it('takes no longer than that for an answer that never comes', async () => {
    const outcome = begin(5_000, async () => new Promise(() => undefined))
    await clock.advance(4_999)
    assert.equal(outcome(), 'waiting')
    await clock.advance(1)
    assert.equal(outcome(), 'DEADLINE_EXCEEDED')
  })
})
