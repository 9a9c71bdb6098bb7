import assert from 'node:assert/strict'
import { Socket } from 'node:net'
import fc from 'fast-check'
import { millis } from '../../../core/units.ts'
import { HandshakeGate } from '../../../trust/handshake-gate.ts'
import { type RefusalEvent, RefusalLog } from '../../../trust/refusal-log.ts'
import { ManualClock } from '../cluster/manual-clock.ts'

/** A socket that is connected to nothing and says it comes from somewhere. */
function socketFrom(address: string): Socket {
  return Object.defineProperty(new Socket(), 'remoteAddress', { value: address })
}

describe('the gate in front of a listener', () => {
  const limits = { handshakeMs: millis(5000), pendingMax: 6, pendingOfAddressMax: 3 }
  let clock: ManualClock
  let refusals: RefusalEvent[]
  let gate: HandshakeGate

  beforeEach(() => {
    clock = new ManualClock()
    refusals = []
    const log = new RefusalLog(clock, event => refusals.push(event))
    gate = new HandshakeGate('listener', clock, log, limits)
  })

  it('closes what is not authenticated in time, and leaves alone what is', async () => {
    const [slow, fast] = [socketFrom('10.0.0.1'), socketFrom('10.0.0.1')]
    gate.enter(slow)
    gate.enter(fast).pass()
    await clock.advance(5000)
    assert.ok(slow.destroyed)
    assert.ok(!fast.destroyed)
    assert.deepEqual(
      refusals.map(({ cause }) => cause),
      ['handshake-timeout']
    )
    assert.equal(gate.pending, 0)
  })

  it('says one cause for one connection', async () => {
    const attempt = gate.enter(socketFrom('::ffff:10.0.0.1'))
    attempt.refuse('expired', 'words')
    attempt.refuse('left', 'words')
    await clock.advance(5000)
    assert.deepEqual(
      refusals.map(({ cause, address }) => [cause, address]),
      [['expired', '10.0.0.1']]
    )
  })

  it('closes the oldest of the address that has most, never one of an address that has few', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 5 }), { maxLength: 60 }), flood => {
        const closed = new Set<string>()
        const log = new RefusalLog(clock, ({ address }) => closed.add(address))
        const other = new HandshakeGate('listener', clock, log, limits)
        other.enter(socketFrom('10.0.0.99'))
        for (const address of flood) {
          other.enter(socketFrom(`10.0.0.${address}`))
          assert.ok(other.pending <= limits.pendingMax)
        }
        // There is room for six: of the five others one has always two or more.
        assert.ok(!closed.has('10.0.0.99'))
        other.close()
        assert.equal(other.pending, 0)
      }),
      { numRuns: 200 }
    )
  })
})
