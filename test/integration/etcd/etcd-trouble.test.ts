/** What calls end with when members die, stand still or lose each other, checked against what is there afterwards. */
import assert from 'node:assert/strict'
import { setTimeout as delay } from 'node:timers/promises'
import { type EtcdCoordinator } from '../../../cluster/etcd/etcd-coordinator.ts'
import { transactUntilKnown } from '../../../cluster/update.ts'
import { hasCode } from '../../../core/errors.ts'
import { millis } from '../../../core/units.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { nodeRandom } from '../../../daemon/ports/node-random.ts'
import { EtcdCluster, hasEtcd } from '../../support/etcd-cluster.ts'
import { TcpProxy } from '../../support/tcp-proxy.ts'
import { type Outcome, create, eventually, openClient, removeAll } from './rig.ts'

describe('the coordinator on etcd, in trouble', function () {
  let cluster: EtcdCluster
  let client: EtcdCoordinator
  const ended: (() => Promise<void>)[] = []

  before(async function () {
    if (!hasEtcd()) this.skip()
    cluster = await EtcdCluster.start({ members: 3 })
  })
  beforeEach(async () => {
    await cluster.heal()
    client = openClient(cluster.members)
    await removeAll(client)
  })
  afterEach(async () => {
    await client.close()
    for (const end of ended.splice(0)) await end()
  })
  after(async () => (cluster as EtcdCluster | undefined)?.end())

  /** Every outcome must agree with what is there, read from members that have all come back. */
  async function check(outcomes: ReadonlyMap<string, Outcome>, asked = cluster): Promise<void> {
    const reader = openClient(asked.members)
    const { entries } = await eventually(async () => reader.list(''))
    const present = new Set(entries.map(({ key }) => key))
    await reader.close()
    for (const [key, outcome] of outcomes) {
      assert.ok(outcome !== 'refused', `${key} was made by nobody else, yet refused: it was sent twice`)
      if (outcome === 'committed') assert.ok(present.has(key), `${key} was committed and is not there`)
      if (outcome === 'unavailable')
        assert.ok(!present.has(key), `${key} was said to be nothing, and is there`)
    }
  }

  /** Creates keys from several callers at once until told to stop. */
  function load(callers: number) {
    const outcomes = new Map<string, Outcome>()
    let stopped = false
    const done = Promise.all(
      Array.from({ length: callers }, async (_, caller) => {
        for (let i = 0; !stopped; i++) {
          const key = `k/${caller}/${i}`
          outcomes.set(key, await create(client, key))
        }
      })
    )
    const committed = (): number => [...outcomes.values()].filter(one => one === 'committed').length
    return {
      outcomes,
      /** Waits until so many more were committed. */
      async goesOn(more = 20): Promise<void> {
        const target = committed() + more
        await eventually(async () =>
          assert.ok(committed() >= target, `${committed()} of ${target} committed`)
        )
      },
      async stop() {
        stopped = true
        await done
      },
    }
  }

  it('tells the truth about every change while leaders are killed', async () => {
    const running = load(8)
    await running.goesOn()
    for (let round = 0; round < 3; round++) {
      const leader = await cluster.untilLed()
      await cluster.kill(leader)
      await running.goesOn()
      cluster.restart(leader)
    }
    await running.stop()
    await cluster.untilLed()
    await check(running.outcomes)
  })

  it('goes on with a new leader while the old one stands still, and when that wakes up', async () => {
    const running = load(8)
    await running.goesOn()
    for (let round = 0; round < 2; round++) {
      const leader = await cluster.untilLed()
      await cluster.pause(leader)
      await running.goesOn()
      cluster.resume(leader)
      await running.goesOn()
    }
    await running.stop()
    await cluster.untilLed()
    await check(running.outcomes)
  })

  it('asks another member when the one that it used stands still', async () => {
    const leader = await cluster.untilLed()
    const follower = (leader + 1) % 3
    // It has heard from the follower just now, and so asks it without asking around.
    const alone = openClient([cluster.members[follower]!])
    ended.push(async () => alone.close())
    await alone.read('a')
    alone.retarget({ members: cluster.members, tls: null })
    await cluster.pause(follower)
    assert.equal((await alone.read('a')).entry, null)
    assert.equal(await create(alone, 'a'), 'committed')
    cluster.resume(follower)
  })

  it('ends every call in time without a quorum, with certainty once the loss is known', async () => {
    const leader = await cluster.untilLed()
    const outcomes = new Map([['before', await create(client, 'before')]])
    const lost = [0, 1, 2].filter(i => i !== leader)
    await Promise.all(lost.map(async i => cluster.kill(i)))
    await eventually(async () => {
      const key = `after/${outcomes.size}`
      const outcome = await create(client, key)
      outcomes.set(key, outcome)
      // The leader takes changes for up to two election times, until it notices: then nobody can tell.
      assert.equal(outcome, 'unavailable')
    })
    await Promise.all(
      [client.read('before'), client.list(''), client.transact([], [])].map(async call =>
        assert.rejects(call, error => hasCode(error, 'COORDINATOR_UNAVAILABLE'))
      )
    )
    for (const i of lost) cluster.restart(i)
    await cluster.untilLed()
    assert.equal(await eventually(async () => create(client, 'again')), 'committed')
    await check(outcomes)
  })

  it('asks the quorum also when a transaction has nothing to do', async () => {
    const leader = await cluster.untilLed()
    const alone = openClient([cluster.members[leader]!])
    ended.push(async () => alone.close())
    await alone.read('a')
    await Promise.all([0, 1, 2].filter(i => i !== leader).map(async i => cluster.pause(i)))
    // The leader still believes that it leads, but has nobody to confirm that.
    await assert.rejects(alone.transact([], []), error => hasCode(error, 'COORDINATOR_UNAVAILABLE'))
  })

  for (const what of ['is lost', 'is cut off'] as const) {
    it(`says that it does not know when the answer to a change ${what}, which settling finds out`, async () => {
      const proxy = await TcpProxy.start(cluster.members[0]!.port)
      ended.push(async () => proxy.end())
      const far = openClient([{ address: '127.0.0.1', port: proxy.port }])
      ended.push(async () => far.close())
      await far.read('a')
      proxy.loseAnswers()
      const outcome = create(far, 'a', 'mine')
      const entry = await eventually(async () => {
        const found = (await client.read('a')).entry
        assert.ok(found !== null, 'the change has not arrived yet')
        return found
      })
      if (what === 'is cut off') proxy.cut()
      assert.equal(await outcome, 'unknown')
      assert.equal(entry.value, 'mine')
      proxy.heal()
      const clock = createNodeClock()
      const settled = await transactUntilKnown(
        { coordinator: far, clock, random: nodeRandom },
        [{ key: 'a', revision: 0 }],
        [{ key: 'a', value: 'mine' }],
        millis(clock.now() + 10_000)
      )
      assert.deepEqual([settled.committed, settled.current], [false, [entry]])
    })
  }

  it('takes an unanswered call for nothing when it only reads, and asks elsewhere', async () => {
    await create(client, 'a')
    const proxy = await TcpProxy.start(cluster.members[0]!.port)
    ended.push(async () => proxy.end())
    const near = { address: '127.0.0.1', port: proxy.port }
    const both = openClient([near])
    ended.push(async () => both.close())
    await both.read('a')
    both.retarget({ members: [near, cluster.members[1]!], tls: null })
    proxy.loseAnswers()
    assert.equal((await both.read('a')).entry?.value, 'x')
  })

  it('ends calls that are under way when it is closed, and says what is not known of them', async () => {
    const proxy = await TcpProxy.start(cluster.members[0]!.port)
    ended.push(async () => proxy.end())
    const far = openClient([{ address: '127.0.0.1', port: proxy.port }], { callTimeMs: 60_000 })
    await far.read('a')
    proxy.loseAnswers()
    const change = create(far, 'b')
    const read = assert.rejects(far.read('a'), error => hasCode(error, 'COORDINATOR_UNAVAILABLE'))
    await delay(50)
    await far.close()
    assert.equal(await change, 'unknown')
    await read
  })

  it('tells the truth when the space of its members runs out', async () => {
    const small = await EtcdCluster.start({ members: 1, flags: ['--quota-backend-bytes', '4000000'] })
    ended.push(async () => small.end())
    const filling = openClient(small.members)
    ended.push(async () => filling.close())
    const value = 'x'.repeat(500_000)
    const outcomes = new Map<string, Outcome>()
    await eventually(async () => {
      // At the same time, so that some are let in while there is room and find none when their turn comes.
      const round = outcomes.size
      await Promise.all(
        Array.from({ length: 10 }, async (_, i) => {
          const key = `k/${round}/${i}`
          outcomes.set(key, await create(filling, key, value))
        })
      )
      assert.ok([...outcomes.values()].includes('unknown'), 'there is still room')
    })
    await check(outcomes, small)
  })

  it('belongs to one cluster, and takes no answer of another', async () => {
    const other = await EtcdCluster.start({ members: 1 })
    ended.push(async () => other.end())
    await client.read('a')
    client.retarget({ members: other.members, tls: null })
    const reading = assert.rejects(client.read('a'), error => hasCode(error, 'COORDINATOR_UNAVAILABLE'))
    assert.equal(await create(client, 'a'), 'unavailable')
    await reading
  })
})
