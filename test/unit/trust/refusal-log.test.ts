import assert from 'node:assert/strict'
import { type RefusalEvent, RefusalLog } from '../../../trust/refusal-log.ts'
import { ManualClock } from '../cluster/manual-clock.ts'

describe('the log of refused connections', () => {
  let clock: ManualClock
  let events: RefusalEvent[]
  let log: RefusalLog
  const refusal = (address: string, cause = 'expired') => ({
    listener: 'nbd',
    address,
    cause,
    detail: 'words',
  })

  beforeEach(() => {
    clock = new ManualClock()
    events = []
    log = new RefusalLog(clock, event => events.push(event))
  })

  it('says the first at once and the others as a number after a minute', async () => {
    for (let count = 0; count < 10_000; count++) log.note(refusal('10.0.0.1'))
    assert.deepEqual(
      events.map(({ count }) => count),
      [1]
    )
    await clock.advance(60_000)
    assert.deepEqual(
      events.map(({ count }) => count),
      [1, 9999]
    )
  })

  it('tells addresses and causes apart', () => {
    for (const address of ['10.0.0.1', '10.0.0.2']) {
      for (const cause of ['expired', 'left', 'expired']) log.note(refusal(address, cause))
    }
    assert.equal(events.length, 4)
  })

  it('says it anew after a minute without any', async () => {
    log.note(refusal('10.0.0.1'))
    await clock.advance(60_000)
    log.note(refusal('10.0.0.1'))
    assert.deepEqual(
      events.map(({ count }) => count),
      [1, 1]
    )
  })

  it('holds few lines and little memory however many addresses there are', () => {
    for (let index = 0; index < 20_000; index++) log.note(refusal(`10.0.${index >> 8}.${index & 255}`))
    assert.equal(events.length, 1025)
    assert.equal(events.at(-1)?.address, 'others')
  })

  it('says what it has counted when it is closed', () => {
    log.note(refusal('10.0.0.1'))
    log.note(refusal('10.0.0.1'))
    log.close()
    assert.equal(events.at(-1)?.count, 1)
    assert.equal(events.length, 2)
  })
})
