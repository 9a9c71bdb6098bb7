import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { type TombstoneRecord } from '../../../cluster/records.ts'
import { XosanError } from '../../../core/errors.ts'
import { millis, type ReplicaId } from '../../../core/units.ts'
import { Janitor } from '../../../daemon/janitor.ts'
import { type VolumeContext } from '../../../volume/context.ts'
import { newHost, newSr, newVolume } from '../catalogue/samples.ts'
import { ManualClock } from '../cluster/manual-clock.ts'

describe('the janitor, of replicas that are to be deleted', () => {
  const sr = newSr()
  const here = newHost()
  let tombstones: Map<ReplicaId, TombstoneRecord>
  /** Replicas whose store is missing. */
  let stuck: Set<ReplicaId>
  let tried: ReplicaId[]
  let janitor: Janitor

  const add = (): ReplicaId => {
    const replica = randomUUID() as ReplicaId
    tombstones.set(replica, { version: 1, volume: newVolume(), host: here, replica })
    return replica
  }

  beforeEach(() => {
    tombstones = new Map()
    stuck = new Set()
    tried = []
    const context = {
      host: here,
      clock: new ManualClock(),
      replicasInTheMaking: new Set(),
      metadata: {
        tombstones: () => [...tombstones.values()].map(record => ({ sr, record })),
        volume: () => null,
        halfDoneSrs: () => [],
        halfDoneVolumes: () => [],
      },
      datapath: {
        call: async (method: string, { replica }: { replica: ReplicaId }) => {
          assert.equal(method, 'replica.delete')
          tried.push(replica)
          if (stuck.has(replica))
            throw new XosanError('STORE_MISSING', { sr, path: '', reason: 'it is a test' })
          tombstones.delete(replica)
        },
      },
      coordinator: { read: async () => ({ entry: null }) },
    }
    const silent = () => undefined
    janitor = new Janitor({
      // Only what tombstones need.
      context: context as unknown as VolumeContext,
      stores: {
        attached: async () => [],
        space: async () => assert.fail('no store is attached'),
        volumeNames: async () => [],
      },
      log: { error: silent, info: silent, debug: silent, warn: silent },
      intervalMs: millis(1),
      reconcile: async () => undefined,
    })
  })

  it('deletes the others when one cannot be deleted, and says so', async () => {
    const [first, second] = [add(), add()]
    stuck.add(first)
    await assert.rejects(janitor.carryOutTombstones(10), { code: 'STORE_MISSING' })
    assert.deepEqual(tried, [first, second])
    assert.deepEqual([...tombstones.keys()], [first])
  })

  it('comes to the others when those that cannot be deleted would fill each round', async () => {
    const [first, second, third] = [add(), add(), add()]
    stuck.add(first).add(second)
    await assert.rejects(janitor.carryOutTombstones(2), { code: 'STORE_MISSING' })
    await assert.rejects(janitor.carryOutTombstones(2), { code: 'STORE_MISSING' })
    assert.deepEqual(tried, [first, second, third, first])
  })

  it('deletes it when that can be done again', async () => {
    const replica = add()
    stuck.add(replica)
    await assert.rejects(janitor.carryOutTombstones(1), { code: 'STORE_MISSING' })
    stuck.clear()
    await janitor.carryOutTombstones(1)
    assert.equal(tombstones.size, 0)
  })
})
