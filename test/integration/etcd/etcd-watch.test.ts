/** What a watch on etcd tells through interruptions, compactions and large answers. */
import assert from 'node:assert/strict'
import { type EtcdCoordinator } from '../../../cluster/etcd/etcd-coordinator.ts'
import { EtcdAdmin } from '../../../cluster/etcd/etcd-admin.ts'
import { hasCode } from '../../../core/errors.ts'
import { type Coordinator } from '../../../core/ports/coordinator.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { nodeRandom } from '../../../daemon/ports/node-random.ts'
import { EtcdCluster, hasEtcd } from '../../support/etcd-cluster.ts'
import { TcpProxy } from '../../support/tcp-proxy.ts'
import { eventually, follow, openClient, removeAll } from './rig.ts'

const put = async (client: Coordinator, key: string, value: string | null): Promise<number> =>
  (await client.transact([], [{ key, value }])).revision

describe('a watch on etcd', function () {
  let cluster: EtcdCluster
  let client: EtcdCoordinator
  const ended: (() => Promise<void>)[] = []

  before(async function () {
    if (!hasEtcd()) this.skip()
    cluster = await EtcdCluster.start({ members: 3 })
  })
  beforeEach(async () => {
    await cluster.heal()
    // Most tests here take any failure of a change for their own.
    client = openClient(cluster.members, { callTimeMs: 8_000 })
    await removeAll(client)
  })
  afterEach(async () => {
    await client.close()
    for (const end of ended.splice(0)) await end()
  })
  after(async () => (cluster as EtcdCluster | undefined)?.end())

  /** A client that reaches only the first member, by way of a proxy. */
  async function throughProxy(): Promise<{ proxy: TcpProxy; far: EtcdCoordinator }> {
    const proxy = await TcpProxy.start(cluster.members[0]!.port)
    ended.push(async () => proxy.end())
    const far = openClient([{ address: '127.0.0.1', port: proxy.port }])
    ended.push(async () => far.close())
    return { proxy, far }
  }

  it('tells each change once while members are killed and stand still in turn', async () => {
    const { revision } = await client.read('a')
    const watchers = [0, 1, 2].map(i => {
      // Each begins with another member.
      const watching = openClient([cluster.members[i]!])
      ended.push(async () => watching.close())
      return { watching, seen: follow(watching, 'k', revision) }
    })
    await put(client, 'k', 'first')
    for (const { watching, seen } of watchers) {
      await seen.until(revision + 1)
      watching.retarget({ members: cluster.members, tls: null })
    }
    for (let member = 0; member < 3; member++) {
      if (member === 1) await cluster.pause(member)
      else await cluster.kill(member)
      for (let i = 0; i < 20; i++) await eventually(async () => put(client, 'k', `${member}.${i}`))
      if (member === 1) cluster.resume(member)
      else cluster.restart(member)
      await cluster.untilLed()
    }
    const last = await eventually(async () => put(client, 'k', 'last'))
    for (const { seen } of watchers) {
      await seen.until(last)
      // Only `k` has changed: every revision is one of its changes, also those whose answers were lost.
      const expected = Array.from({ length: last - revision }, (_, i) => revision + 1 + i)
      assert.deepEqual(
        seen.events.map(event => event.revision),
        expected
      )
    }
  })

  it('moves to another member when the connection goes silent', async () => {
    const { proxy, far } = await throughProxy()
    const seen = follow(far, '', (await far.read('a')).revision)
    await seen.until(await put(client, 'a', '1'))
    far.retarget({ members: [{ address: '127.0.0.1', port: proxy.port }, cluster.members[1]!], tls: null })
    proxy.loseAll()
    await seen.until(await put(client, 'a', '2'))
    assert.deepEqual(
      seen.events.map(({ value }) => value),
      ['1', '2']
    )
  })

  it('goes on where it was when the connection comes back', async () => {
    const { proxy, far } = await throughProxy()
    const seen = follow(far, '', (await far.read('a')).revision)
    await seen.until(await put(client, 'a', '1'))
    proxy.loseAll()
    await put(client, 'a', '2')
    await put(client, 'a', null)
    proxy.heal()
    await seen.until(await put(client, 'b', '3'))
    assert.deepEqual(
      seen.events.map(({ key, value }) => [key, value]),
      [
        ['a', '1'],
        ['a', '2'],
        ['a', null],
        ['b', '3'],
      ]
    )
  })

  it('fails when history was forgotten while it was cut off', async () => {
    const { proxy, far } = await throughProxy()
    const seen = follow(far, '', (await far.read('a')).revision)
    await seen.until(await put(client, 'a', '1'))
    proxy.loseAll()
    await put(client, 'a', '2')
    const last = await put(client, 'a', '3')
    await cluster.compact(last)
    proxy.heal()
    assert.ok(hasCode(await seen.failure(), 'COORDINATOR_COMPACTED'))
    assert.deepEqual(
      seen.events.map(({ value }) => value),
      ['1']
    )
  })

  it('never passes over a removal at the very revision of a compaction', async () => {
    await put(client, 'a', '1')
    const before = await put(client, 'a', '2')
    const removed = await put(client, 'a', null)
    const after = await put(client, 'b', '3')
    await cluster.compact(removed)
    // etcd would serve a watch from `removed` on, without the removal.
    const early = follow(client, '', before)
    assert.ok(hasCode(await early.failure(), 'COORDINATOR_COMPACTED'))
    assert.deepEqual(early.events, [])
    const late = follow(client, '', removed)
    await late.until(after)
    assert.deepEqual(late.events, [{ key: 'b', value: '3', revision: after }])
  })

  it('gives the changes of one revision together, when they come in many pieces', async () => {
    const { revision } = await client.read('a')
    const value = 'x'.repeat(8 * 1024)
    const keys = Array.from({ length: 120 }, (_, i) => `k/${i}`)
    let last = 0
    // Together several times what etcd puts into one message.
    for (let i = 0; i < 6; i++) {
      last = (
        await client.transact(
          [],
          keys.map(key => ({ key, value }))
        )
      ).revision
    }
    const seen = follow(client, '', revision)
    await seen.until(last)
    assert.deepEqual(
      seen.batches,
      Array.from({ length: 6 }, (_, i) => ({ revision: last - 5 + i, size: 120 }))
    )
    assert.equal((await client.list('k/')).entries.length, 120)
  })

  it('fails, and does not wait for ever, when the store has less than it has seen', async () => {
    const { revision } = await client.read('a')
    const seen = follow(client, '', revision + 1_000)
    assert.ok(hasCode(await seen.failure(), 'COORDINATOR_COMPACTED'))
  })

  it('loses no page of a list, and mixes no two moments in it', async () => {
    for (let i = 0; i < 4; i++) {
      const changes = Array.from({ length: 100 }, (_, k) => ({ key: `page/${i}/${k}`, value: '0' }))
      await client.transact([], changes)
    }
    let stopped = false
    const writing = (async () => {
      for (let round = 1; !stopped; round++) {
        await client.transact(
          [],
          [0, 3].map(i => ({ key: `page/${i}/50`, value: String(round) }))
        )
      }
    })()
    for (let i = 0; i < 20; i++) {
      const { entries } = await client.list('page/')
      assert.equal(entries.length, 400)
      const [first, last] = ['page/0/50', 'page/3/50'].map(
        key => entries.find(entry => entry.key === key)?.value
      )
      assert.equal(first, last)
    }
    stopped = true
    await writing
  })

  it('is not disturbed when history is trimmed behind it, and learns of it when it is too far behind', async () => {
    const admin = new EtcdAdmin({
      target: { members: cluster.members, tls: null },
      clock: createNodeClock(),
      random: nodeRandom,
    })
    ended.push(async () => admin.close())
    await admin.trimHistory(10)
    const { revision } = await client.read('a')
    const seen = follow(client, '', revision)
    let last = 0
    for (let i = 0; i < 12; i++) last = await put(client, 'a', String(i))
    // The mark is old enough now, so history before it goes.
    await admin.trimHistory(10)
    for (let i = 0; i < 12; i++) last = await put(client, 'a', String(i))
    await seen.until(last)
    await admin.trimHistory(10)
    assert.equal(seen.events.length, 24)
    assert.ok(hasCode(await follow(client, '', revision).failure(), 'COORDINATOR_COMPACTED'))
    const kept = follow(client, '', last - 10)
    await kept.until(last)
    assert.equal(kept.events.length, 10)
  })
})
