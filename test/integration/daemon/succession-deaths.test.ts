/**
 * A xosand that takes part in a succession dies: with each thing that is done, be it by itself or by another host. What
 * is done are the writes of files and records, the calls, and the starts of etcd, counted as they come. Then the command
 * is given again.
 */
import assert from 'node:assert/strict'
import { hasCode, reasonOf } from '../../../core/errors.ts'
import { createOldTrust, type OldTrust, SuccessionPool } from '../../support/succession-pool.ts'
import { type SuccessionHost } from '../../support/succession-xosand.ts'

/** More than a succession does. */
const THINGS_MAX = 200
/** Whoever is told that somebody does not answer starts that host, and asks again. */
const ATTEMPTS_MAX = 4
/** Much of a run is waiting, for other threads and for files. */
const AT_ONCE = 3

type Four = readonly [SuccessionHost, SuccessionHost, SuccessionHost, SuccessionHost]

interface Run {
  readonly pool: SuccessionPool
  readonly hosts: readonly [SuccessionHost, SuccessionHost, SuccessionHost, ...SuccessionHost[]]
}

describe('a succession during which xosand dies', function () {
  this.timeout(300_000)
  let three: OldTrust
  let four: OldTrust
  before(async () => ([three, four] = await Promise.all([createOldTrust(3), createOldTrust(4)])))

  /**
   * Does it again and again, each time with a death one thing later, until it is over before that.
   * @returns how many deaths there were
   */
  async function withDeaths(
    old: OldTrust,
    victimOf: (run: Run) => SuccessionHost,
    counts: RegExp,
    whole: (run: Run) => Promise<void>
  ): Promise<number> {
    const once = async (after: number): Promise<string | null> => {
      const pool = await SuccessionPool.create(old)
      const run = { pool, hosts: pool.hosts as unknown as Run['hosts'] }
      try {
        pool.killAfter(after, victimOf(run), what => counts.test(what))
        await whole(run)
        return pool.diedWith
      } catch (error) {
        const story = [...pool.done, ...pool.warnings].join('\n')
        const text = `died with "${String(pool.diedWith)}": ${reasonOf(error)}\n${story}`
        throw new Error(text, { cause: error })
      } finally {
        await pool.close()
      }
    }
    for (let after = 0; after < THINGS_MAX; after += AT_ONCE) {
      const runs = Array.from({ length: AT_ONCE }, async (_, i) => once(after + i))
      const died = (await Promise.all(runs)).filter(what => what !== null)
      if (died.length < AT_ONCE) return after + died.length
    }
    throw new Error('a succession has no end')
  }

  /** Gives the command until it is carried out, with these hosts up each time. */
  async function removed(
    { pool }: Run,
    by: SuccessionHost,
    host: SuccessionHost,
    up: readonly SuccessionHost[]
  ): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      for (const each of up) await pool.start(each)
      if (pool.isDone(by)) return
      try {
        await pool.xosand(by).remove(host.uuid)
        return
      } catch (error) {
        const again = hasCode(error, 'PEER_UNREACHABLE') || hasCode(error, 'SUCCESSION_WAITS')
        if (!again || attempt === ATTEMPTS_MAX) throw error
      }
    }
  }

  it('ends as it should when it was the successor, who is asked again', async () => {
    const deaths = await withDeaths(
      three,
      ({ hosts }) => hosts[1],
      /./,
      async run => {
        const [h1, h2, ...others] = run.hosts
        await removed(run, h2, h1, [h2, ...others])
        await run.pool.check(h2, [h1])
      }
    )
    assert.ok(deaths > 20, `there were only ${deaths} of them`)
  })

  it('ends as it should when it was another host', async () => {
    const deaths = await withDeaths(
      three,
      ({ hosts }) => hosts[2],
      /h3/,
      async run => {
        const [h1, h2, ...others] = run.hosts
        await removed(run, h2, h1, [h2, ...others])
        await run.pool.check(h2, [h1])
      }
    )
    assert.ok(deaths > 8, `there were only ${deaths} of them`)
  })

  /** The successor dies, and is lost; another host is to remove both, whatever the first one was about to do. */
  async function withLosses(
    old: OldTrust,
    counts: RegExp,
    before: (run: Run) => Promise<void>
  ): Promise<void> {
    const deaths = await withDeaths(
      old,
      ({ hosts }) => hosts[1],
      counts,
      async run => {
        const [h1, h2, ...others] = run.hosts
        const [h3] = others
        const { pool } = run
        await pool
          .xosand(h2)
          .remove(h1.uuid)
          .catch(() => undefined)
        if (pool.diedWith === null) return
        await before(run)
        await removed(run, h3, h2, others)
        // Nothing had been begun: that was an ordinary removal.
        await removed(run, h3, h1, others)
        await pool.check(h3, [h1, h2])
      }
    )
    assert.ok(deaths > 12, `there were only ${deaths} of them`)
  }

  it('ends as it should when it was the successor, who is lost then', async () =>
    withLosses(four, /^h2/, async () => Promise.resolve()))

  it('ends as it should when it was the successor, who starts again, and is lost before it is asked', async () =>
    withLosses(three, /^h2 (?!calls)/, async ({ pool, hosts: [, h2] }) => {
      await pool.start(h2)
      await pool.xosand(h2).looked()
      pool.kill(h2)
    }))

  for (const [first, commands] of [
    // It has certified the others before it is broken off, so there is something to revoke.
    ['h4', ['h2', 'h3']],
    ['h2', ['h3', 'h2']],
  ] as const) {
    it(`goes on without hosts that are lost meanwhile, one command for each, when ${first} had begun`, async () => {
      const pool = await SuccessionPool.create(await createOldTrust(5))
      try {
        const hostOf = (name: string): SuccessionHost => pool.hosts.find(host => host.name === name)!
        const [h1, h2, h3, h4] = ['h1', 'h2', 'h3', 'h4'].map(hostOf) as unknown as Four
        pool.killAfter(0, h2, what => what === `${first} calls h3 cluster.certify`)
        await assert.rejects(pool.xosand(hostOf(first)).remove(h1.uuid))
        assert.equal(pool.isUp(h2), false)
        pool.kill(h3)
        const removed = async (name: string) => pool.xosand(h4).remove(hostOf(name).uuid)
        for (const name of commands.slice(0, -1)) {
          await assert.rejects(removed(name), { code: 'SUCCESSION_WAITS' })
        }
        await removed(commands.at(-1)!)
        await pool.check(h4, [h1, h2, h3])
      } finally {
        await pool.close()
      }
    })
  }
})
