/** Hosts that look after their members of etcd, with real members: how members come, go and are replaced. */
import assert from 'node:assert/strict'
import { rm } from 'node:fs/promises'
import { hasCode } from '../../../core/errors.ts'
import { etcdPath } from '../../../daemon/cluster/cluster-file.ts'
import { hasEtcd } from '../../support/etcd-cluster.ts'
import { soon } from '../../support/etcd-hosts.ts'
import { EtcdKeepers, Writer } from '../../support/etcd-keepers.ts'

describe('hosts that look after their members of etcd', function () {
  this.timeout(120_000)
  let cluster: EtcdKeepers | null = null

  before(function () {
    if (!hasEtcd()) this.skip()
  })
  afterEach(async () => {
    await cluster?.end()
    cluster = null
  })

  it('grow to three and to five while the coordinator is used, and tell clients of every member', async () => {
    cluster = await EtcdKeepers.form(7)
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
  })

  it('bring members back that were killed, replace one whose data are lost, and one whose host is gone', async () => {
    cluster = await EtcdKeepers.form(4, { replaceAfterMs: 3_000, patienceMs: 500 })
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
  })

  it('take two and a witness for three, go on without any one of them, and are one when the witness leaves', async () => {
    cluster = await EtcdKeepers.form(3, { witnesses: 1 })
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
  })

  it('let a host go after another has its place, and end with the last one', async () => {
    cluster = await EtcdKeepers.form(2)
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

  it('go on from wherever a host was interrupted', async () => {
    cluster = await EtcdKeepers.form(3)
    const { nodes } = cluster
    const interrupted: string[] = []
    cluster.stepping = (n, text) => {
      const step = /adding|gets its vote|etcd started|removing|are removed/.exec(text)?.[0]
      if (step === undefined || interrupted.includes(`${n} ${step}`)) return
      interrupted.push(`${n} ${step}`)
      // Before the step, in the middle of it or after it, as it happens; the next xosand starts at once.
      const old = nodes[n]!.keeper!
      nodes[n]!.keeper = null
      void old.close().then(() => cluster?.join(n))
    }
    cluster.join(1, 2)
    await cluster.settled(0, 1, 2)
    nodes[2]!.leaving = true
    await cluster.settled(0)
    assert.ok(interrupted.length >= 6, interrupted.join())
  })

  it('restart one member at a time to read other certificates', async () => {
    cluster = await EtcdKeepers.form(3)
    cluster.join(1, 2)
    await cluster.settled(0, 1, 2)
    const writer = new Writer(cluster.client(0))
    const keepers = [0, 1, 2].map(n => cluster!.keeper(n))
    const before = keepers.map(({ pid }) => pid)
    await Promise.all(keepers.map(async keeper => keeper.restartForCertificates()))
    const after = keepers.map(({ pid }) => pid)
    assert.ok(after.every((pid, i) => pid !== null && pid !== before[i]))
    await cluster.settled(0, 1, 2)
    await writer.stop()
    assert.ok(writer.longestMs < 8_000, `no change for ${writer.longestMs} ms`)
  })
})
