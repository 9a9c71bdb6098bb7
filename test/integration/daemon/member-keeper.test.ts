/**
 * Hosts that look after their members of etcd, with real members: how members come, go and are replaced. Some
 * scenarios run at the same time, since they mostly wait: etcd changes its members only when all have been connected for five
 * seconds.
 */
import assert from 'node:assert/strict'
import { rm } from 'node:fs/promises'
import { hasCode } from '../../../core/errors.ts'
import { etcdPath } from '../../../daemon/cluster/cluster-file.ts'
import { hasEtcd } from '../../support/etcd-cluster.ts'
import { soon } from '../../support/etcd-hosts.ts'
import { EtcdKeepers, Writer } from '../../support/etcd-keepers.ts'

type Form = Parameters<typeof EtcdKeepers.form>

describe('hosts that look after their members of etcd', function () {
  this.timeout(180_000)
  const begin: (() => Promise<void>)[] = []

  const scenario = (title: string, form: Form, play: (cluster: EtcdKeepers) => Promise<void>): void => {
    const run = async (): Promise<Error | null> => {
      const cluster = await EtcdKeepers.form(...form)
      try {
        await play(cluster)
        return null
      } catch (error) {
        return new Error(cluster.log(), { cause: error })
      } finally {
        await cluster.end()
      }
    }
    const played = new Promise<Error | null>(resolve => {
      begin.push(async () =>
        resolve(await run().catch((error: unknown) => new Error('not formed', { cause: error })))
      )
    })
    it(title, async () => {
      const failure = await played
      if (failure !== null) throw failure
    })
  }

  before(function () {
    if (!hasEtcd()) this.skip()
    void runAtMost(3, begin)
  })

  scenario(
    'grow to three and to five while the coordinator is used, and tell clients of every member',
    [7],
    async cluster => {
      const writer = new Writer(cluster.client(0))
      cluster.join(1, 2)
      await cluster.keeper(2).untilComplete(60_000)
      await cluster.settled(0, 1, 2)
      cluster.join(3, 4, 5, 6)
      await cluster.settled(0, 1, 2, 3, 4)
      const { nodes } = cluster
      await soon(async () => assert.ok(nodes.every(({ known }) => known.length === 5)))
      await writer.stop()
      assert.ok(writer.count > 100)
      assert.deepEqual(cluster.warnings, [])
    }
  )

  scenario(
    'bring members back that were killed, replace one whose data are lost, and one whose host is gone',
    [4, { replaceAfterMs: 3_000, patienceMs: 500 }],
    async cluster => {
      cluster.join(1, 2)
      await cluster.settled(0, 1, 2)
      const writer = new Writer(cluster.client(0))
      const { nodes, rig } = cluster

      await rig.kill(nodes[1]!.host)
      await cluster.settled(0, 1, 2)

      await cluster.fail(1)
      await rm(etcdPath(nodes[1]!.host.stateDirectory), { recursive: true })
      cluster.join(1)
      await cluster.settled(0, 1, 2)

      await cluster.fail(2)
      cluster.join(3)
      await cluster.settled(0, 1, 3)
      // It comes back, is not a member any more, and has nothing left to do.
      cluster.join(2)
      await soon(async () => assert.ok(nodes[2]!.host.log.some(text => text.includes('data are removed'))))
      await cluster.settled(0, 1, 3)
      await writer.stop()
    }
  )

  scenario(
    'take two and a witness for three, go on without any one of them, and are one when the witness leaves',
    [3, { witnesses: 1 }],
    async cluster => {
      cluster.join(1)
      await cluster.keeper(1).untilComplete(20_000)
      await cluster.settled(0)
      cluster.join(2)
      await cluster.settled(0, 1, 2)
      const client = cluster.client(1)
      await cluster.fail(2)
      await soon(async () => client.transact([], [{ key: 'a', value: '1' }]))
      cluster.join(2)
      await cluster.settled(0, 1, 2)
      cluster.nodes[2]!.leaving = true
      await cluster.keeper(2).leave(60_000)
      cluster.nodes[2]!.recorded = false
      await cluster.settled(0)
      assert.equal((await soon(async () => client.read('a'))).entry?.value, '1')
    }
  )

  scenario('let a host go after another has its place, and end with the last one', [2], async cluster => {
    cluster.join(1)
    const client = cluster.client(1)
    await soon(async () => client.transact([], [{ key: 'a', value: '1' }]))
    // Nobody comes in its place, because nobody knows.
    await assert.rejects(cluster.keeper(0).leave(2_000), error => hasCode(error, 'DEADLINE_EXCEEDED'))
    cluster.nodes[0]!.leaving = true
    await cluster.keeper(0).leave(60_000)
    cluster.nodes[0]!.recorded = false
    await cluster.settled(1)
    assert.equal((await soon(async () => client.read('a'))).entry?.value, '1')
    await cluster.keeper(1).end()
    await assert.rejects(client.read('a'))
  })

  scenario('go on from wherever a host was interrupted', [3], async cluster => {
    const { nodes } = cluster
    const interrupted: string[] = []
    cluster.stepping = (n, text) => {
      const step = /adding|gets its vote|etcd started|removing|are removed/.exec(text)?.[0]
      if (step === undefined || interrupted.includes(`${n} ${step}`)) return
      interrupted.push(`${n} ${step}`)
      // Before the step, in the middle of it or after it, as it happens; the next xosand starts at once.
      const old = nodes[n]!.keeper!
      nodes[n]!.keeper = null
      void old.close().then(() => cluster.join(n))
    }
    cluster.join(1, 2)
    await cluster.settled(0, 1, 2)
    nodes[2]!.leaving = true
    await cluster.settled(0)
    assert.ok(interrupted.length >= 6, interrupted.join())
  })

  scenario('restart one member after the other to read other authorities', [3], async cluster => {
    cluster.join(1, 2)
    await cluster.settled(0, 1, 2)
    const writer = new Writer(cluster.client(0))
    const keepers = [0, 1, 2].map(n => cluster.keeper(n))
    const before = keepers.map(({ pid }) => pid)
    // Each serves again before the next one is ended.
    for (const keeper of keepers) await keeper.restart()
    const after = keepers.map(({ pid }) => pid)
    assert.ok(after.every((pid, i) => pid !== null && pid !== before[i]))
    await cluster.settled(0, 1, 2)
    await writer.stop()
    assert.ok(writer.longestMs < 8_000, `no change for ${writer.longestMs} ms`)
  })
})

/** Plays so many of them at a time, in their order. */
async function runAtMost(count: number, scenarios: readonly (() => Promise<void>)[]): Promise<void> {
  const left = [...scenarios]
  const actor = async (): Promise<void> => {
    for (let next = left.shift(); next !== undefined; next = left.shift()) await next()
  }
  await Promise.all(Array.from({ length: count }, actor))
}
