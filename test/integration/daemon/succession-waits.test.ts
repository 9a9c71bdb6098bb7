import assert from 'node:assert/strict'
import { setTimeout as delay } from 'node:timers/promises'
import { XosanError } from '../../../core/errors.ts'
import { createOldTrust, type OldTrust, SuccessionPool } from '../../support/succession-pool.ts'
import { type SuccessionHost } from '../../support/succession-xosand.ts'

/** More than a host may take for one step, with the restart of its member of etcd. */
const ANY_STEP_MS = 200_000
/** Less than somebody who asks the coordinator waits for it. */
const SOME_TIME_MS = 20_000
const TOO_LONG_MS = 40_000

describe('a succession that has to wait', function () {
  this.timeout(120_000)
  let old: OldTrust
  let pool: SuccessionPool
  let h1: SuccessionHost
  let h2: SuccessionHost
  let h3: SuccessionHost
  before(async () => (old = await createOldTrust(3)))
  beforeEach(async () => {
    pool = await SuccessionPool.create(old)
    ;[h1, h2, h3] = pool.hosts as [SuccessionHost, SuccessionHost, SuccessionHost]
  })
  afterEach(async () => pool.close())

  const remove = async () => pool.xosand(h2).remove(h1.uuid)

  /** Asks for the removal while a host does not answer to a kind of call. */
  async function attemptWithout(host: SuccessionHost, method: string): Promise<XosanError> {
    const called = pool.next(`h2 calls ${host.name} ${method}`)
    const failed = failure(remove())
    await called
    pool.clock.skip(ANY_STEP_MS)
    return failed
  }

  async function failure(work: Promise<unknown>): Promise<XosanError> {
    const error: unknown = await work.then(
      () => null,
      (reason: unknown) => reason
    )
    assert.ok(error instanceof XosanError, 'it did not fail')
    return error
  }

  for (const method of ['cluster.check', 'cluster.trust', 'cluster.request', 'cluster.certify'] as const) {
    it(`names the host that never answers to ${method}, and goes on when that is back`, async () => {
      pool.hangs(h3, method)
      const { code, message } = await attemptWithout(h3, method)
      assert.equal(code, 'SUCCESSION_WAITS')
      assert.ok(message.includes(h3.uuid), message)
      assert.equal(pool.isDone(h2), false)
      pool.kill(h3)
      await pool.start(h3)
      await remove()
      await pool.check(h2, [h1])
    })

    it(`goes on when a host answers late to ${method}, beside what it is asked then`, async () => {
      const goOn = pool.hangs(h3, method)
      await attemptWithout(h3, method)
      // What comes late may be refused.
      const late = goOn().catch(() => undefined)
      await remove()
      await late
      await pool.check(h2, [h1])
    })
  }

  it('changes nothing while a host does not answer, unless it was begun', async () => {
    const before = pool.coordinator.list('')
    pool.hangs(h3, 'cluster.check')
    await attemptWithout(h3, 'cluster.check')
    assert.deepEqual(pool.coordinator.list(''), before)
  })

  /** Nobody decides for so long, beginning with the first restart of a member of etcd. */
  async function withoutQuorum(durationMs: number): Promise<void> {
    const decide = (decides: boolean): void => {
      for (const { name } of pool.hosts) pool.coordinator.setReachable(name, decides)
    }
    await pool.next('h2 starts etcd anew', () => decide(false))
    const { length } = pool.done
    for (let passedMs = 0; passedMs < durationMs; passedMs += 1000) {
      pool.clock.skip(1000)
      // Whoever has waited for this moment has his turn.
      await delay(5)
    }
    assert.equal(pool.done.length, length, 'nothing was done meanwhile')
    decide(true)
  }

  it('goes on by itself when nobody decides for a while', async () => {
    const quorum = withoutQuorum(SOME_TIME_MS)
    const removed = remove()
    await quorum
    await removed
    await pool.check(h2, [h1])
  })

  it('says so when nobody decides for long, and goes on when it is asked again', async () => {
    const quorum = withoutQuorum(TOO_LONG_MS)
    const failed = failure(remove())
    await quorum
    assert.equal((await failed).code, 'COORDINATOR_UNAVAILABLE')
    await remove()
    await pool.check(h2, [h1])
  })
})
