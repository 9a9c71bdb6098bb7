/** Members are added, promoted and removed as whoever looks after them would do it. */
import assert from 'node:assert/strict'
import { type EtcdMemberRecord, EtcdAdmin } from '../../../cluster/etcd/etcd-admin.ts'
import { hasCode } from '../../../core/errors.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { nodeRandom } from '../../../daemon/ports/node-random.ts'
import { EtcdCluster, hasEtcd } from '../../support/etcd-cluster.ts'
import { create, eventually, openClient } from './rig.ts'

describe('the membership of etcd', function () {
  let cluster: EtcdCluster
  let admin: EtcdAdmin

  beforeEach(async function () {
    if (!hasEtcd()) this.skip()
    cluster = await EtcdCluster.start({ members: 1 })
    admin = new EtcdAdmin({
      target: { members: cluster.members, tls: null },
      clock: createNodeClock(),
      random: nodeRandom,
    })
  })
  afterEach(async () => {
    ;(admin as EtcdAdmin | undefined)?.close()
    await (cluster as EtcdCluster | undefined)?.end()
  })

  it('grows by a learner, which serves nobody until it is promoted, and shrinks again', async () => {
    const client = openClient(cluster.members)
    assert.equal(await create(client, 'a'), 'committed')

    const joining = await cluster.prepareJoin()
    const learner = await admin.addLearner([joining.peerUrl])
    assert.deepEqual([learner.learner, learner.name, learner.clientUrls], [true, '', []])
    await assert.rejects(admin.addLearner([joining.peerUrl]), error =>
      hasCode(error, 'COORDINATOR_UNAVAILABLE')
    )
    // Not started yet, so it cannot have caught up.
    await assert.rejects(admin.promote(learner.id), error => hasCode(error, 'COORDINATOR_UNAVAILABLE'))

    cluster.join(joining)
    const alone = openClient([cluster.members[1]!])
    await eventually(async () => assert.ok((await admin.status(cluster.members[1]!)).isLearner))
    assert.equal(await create(alone, 'b'), 'unavailable')

    const members = await eventually(async () => admin.promote(learner.id))
    assert.deepEqual(members.filter(isLearner), [])
    assert.equal(await eventually(async () => (await alone.read('a')).entry?.value), 'x')
    assert.equal(await create(alone, 'b'), 'committed')

    // etcd refuses until all members have been connected for five seconds.
    assert.equal((await eventually(async () => admin.remove(learner.id))).length, 1)
    await eventually(async () => assert.equal((await admin.members()).length, 1))
    assert.equal((await eventually(async () => client.read('b'))).entry?.value, 'x')
    await Promise.all([client.close(), alone.close()])
  })
})

const isLearner = ({ learner }: EtcdMemberRecord): boolean => learner
