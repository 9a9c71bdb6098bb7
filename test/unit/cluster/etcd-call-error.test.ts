import assert from 'node:assert/strict'
import { EtcdCallError } from '../../../cluster/etcd/call-error.ts'

describe('the end of a call to etcd', () => {
  const nothingDone = (details: string): boolean => new EtcdCallError('m', details).nothingDone

  it('is certain when etcd refuses before it proposes', () => {
    for (const details of [
      'etcdserver: no leader',
      'etcdserver: too many requests',
      'etcdserver: rpc not supported for learner',
      'etcdserver: request is too large',
      'raft proposal dropped',
    ]) {
      assert.ok(nothingDone(details), details)
    }
  })

  it('is not certain when the change may have been proposed, whatever the status', () => {
    for (const details of [
      'etcdserver: request timed out',
      'etcdserver: request timed out, possibly due to previous leader failure',
      'etcdserver: request timed out, possibly due to connection lost',
      'etcdserver: server stopped',
      'etcdserver: leader changed',
      // Made, and then answered with an error: the request that crosses the quota is applied.
      'etcdserver: mvcc: database space exceeded',
      'etcdserver: corrupt cluster',
      // gRPC's own.
      'Connection dropped',
      'Received message larger than max (5 vs 4)',
      'no answer within 1000 ms',
      // Texts are compared as a whole.
      'etcdserver: no leader any more, while proposing',
    ]) {
      assert.ok(!nothingDone(details), details)
    }
  })
})
