import assert from 'node:assert/strict'
import { millis } from '../../../core/units.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'

describe('the clock', () => {
  /** A machine that can be suspended, with an up-time in hundredths of a second as Linux shows it. */
  const machine = () => {
    let monotonic = 1000
    let suspended = 0
    return {
      run: (ms: number) => (monotonic += ms),
      suspend: (ms: number) => (suspended += ms),
      sources: {
        monotonic: () => monotonic,
        uptime: () => Math.floor((monotonic + suspended + 123_456) / 10) * 10,
      },
    }
  }

  it('counts through a suspend, which the monotonic clock does not', () => {
    const { run, suspend, sources } = machine()
    const clock = createNodeClock(sources)
    const before = clock.now()
    run(3)
    suspend(60_000)
    run(2)
    const passed = clock.now() - before
    assert.ok(passed > 60_005 - 20 && passed < 60_005 + 20, `${passed}`)
  })

  it('is as fine as the monotonic clock, and never goes back, whatever the up-time is rounded to', () => {
    const { run, sources } = machine()
    const clock = createNodeClock(sources)
    let last: number = clock.now()
    for (let i = 0; i < 5000; i++) {
      run(1.7)
      const now = clock.now()
      assert.ok(Math.abs(now - last - 1.7) < 1e-6, `step ${i}: ${now - last}`)
      last = now
    }
  })

  it('runs a timer no earlier than asked, and not at all when cancelled', async () => {
    const clock = createNodeClock()
    const before = clock.now()
    const cancelled = clock.after(millis(1), () => assert.fail('cancelled'))
    cancelled.cancel()
    await new Promise<void>(resolve => clock.after(millis(5), resolve))
    assert.ok(clock.now() - before >= 5)
  })
})
