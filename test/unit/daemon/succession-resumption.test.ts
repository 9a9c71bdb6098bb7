import assert from 'node:assert/strict'
import { type HostId } from '../../../core/units.ts'
import { SuccessionResumption } from '../../../daemon/cluster/succession-resumption.ts'
import { createLog } from '../../../daemon/log.ts'
import { newHostId } from '../../support/trust-rig.ts'
import { ManualClock } from '../cluster/manual-clock.ts'

const [h1, h2, h3] = [newHostId(), newHostId(), newHostId()]
const MINUTE_MS = 60_000

describe('a succession that was broken off', () => {
  let clock: ManualClock
  let succession: { removed: HostId[]; by: HostId } | undefined
  let attempts: number
  let fails: boolean
  let resumption: SuccessionResumption

  beforeEach(() => {
    clock = new ManualClock()
    succession = undefined
    attempts = 0
    fails = false
    resumption = new SuccessionResumption({
      self: h2,
      clock,
      log: createLog('test', 'error'),
      record: () => (succession === undefined ? {} : { succession }),
      resume: async () => {
        attempts++
        if (fails) return Promise.reject(new Error('a host is away'))
        succession = undefined
        return Promise.resolve()
      },
      nameOf: host => `h${[h1, h2, h3].indexOf(host) + 1}`,
    })
    resumption.start()
  })
  afterEach(() => resumption.close())

  it('is gone on with by the host that has begun it', async () => {
    await clock.advance(10 * MINUTE_MS)
    assert.equal(attempts, 0)
    succession = { removed: [h1], by: h2 }
    await clock.advance(MINUTE_MS)
    assert.equal(attempts, 1)
    await clock.advance(10 * MINUTE_MS)
    assert.equal(attempts, 1)
  })

  it('is left to the host that has begun it', async () => {
    succession = { removed: [h1], by: h3 }
    await clock.advance(10 * MINUTE_MS)
    assert.equal(attempts, 0)
  })

  it('is tried again when it fails, less and less often, but always', async () => {
    fails = true
    succession = { removed: [h1], by: h2 }
    await clock.advance(60 * MINUTE_MS)
    assert.ok(attempts > 5 && attempts < 12, `${attempts} attempts`)
    await clock.advance(60 * MINUTE_MS)
    assert.ok(attempts > 8, `${attempts} attempts`)
    fails = false
    await clock.advance(20 * MINUTE_MS)
    assert.equal(succession, undefined)
    resumption.close()
    succession = { removed: [h1], by: h2 }
    const { length } = resumption.warnings
    assert.equal(length, 1)
    await clock.advance(60 * MINUTE_MS)
    assert.notEqual(succession, undefined, 'it was closed')
  })

  it('is told by all hosts, with names: who is at it, and who is removed', () => {
    assert.deepEqual(resumption.warnings, [])
    succession = { removed: [h1, h2], by: h3 }
    assert.match(
      resumption.warnings[0]!,
      /^Host h3 takes the place of .*Removed by that: h1, h2\..*Host h3 goes on/
    )
  })
})
