import assert from 'node:assert/strict'
import { XosanError } from '../../../core/errors.ts'
import { type VolumeState } from '../../../core/mirror/volume-record.ts'
import { type HostId, millis, type VolumeKey } from '../../../core/units.ts'
import { Janitor } from '../../../daemon/janitor.ts'
import { type StaleReplica, type VolumeContext } from '../../../volume/context.ts'
import { newHost, newSr, newVolume, sampleInfo, sampleState } from '../catalogue/samples.ts'
import { ManualClock } from '../cluster/manual-clock.ts'

const INTERVAL_MS = 5_000

describe('the janitor, of closed volumes with a stale replica', () => {
  const sr = newSr()
  const [here, other, third] = [newHost(), newHost(), newHost()]
  let clock: ManualClock
  let records: Map<VolumeKey, VolumeState | 'unreadable'>
  let down: Set<HostId>
  /** Calls of the other hosts, in their order. */
  let pings: HostId[]
  /** Volumes whose resync was begun here, in that order. */
  let begun: VolumeKey[]
  /** Volumes whose datapath process does not answer. */
  let stuck: Set<VolumeKey>
  let warnings: string[]
  let janitor: Janitor

  /** Replicas on hosts in the order of the record; those that are stale are named. */
  const record = (
    hosts: readonly HostId[],
    stale: readonly HostId[],
    changes: Partial<VolumeState> = {}
  ): VolumeState => {
    const state = sampleState(hosts, changes)
    const mirrors = state.mirrors.map(mirror =>
      mirror.map(replica => ({ ...replica, inSync: !stale.includes(replica.host) }))
    )
    return { ...state, mirrors }
  }

  const add = (state: VolumeState | 'unreadable'): VolumeKey => {
    const key = newVolume()
    records.set(key, state)
    return key
  }

  const stored = (key: VolumeKey) => {
    const state = records.get(key)
    if (state === 'unreadable') throw new XosanError('RECORD_INVALID', { key, reason: 'it is a test' })
    return state === undefined ? null : { sr, key, state, info: sampleInfo('') }
  }

  /** Of an unreadable one it is the other record that cannot be read. */
  const staleOf = (key: VolumeKey, state: VolumeState | 'unreadable'): StaleReplica[] =>
    state === 'unreadable'
      ? [{ sr, key, host: other }]
      : state.mirrors.flat().flatMap(({ host, inSync }) => (inSync ? [] : [{ sr, key, host }]))

  /** Runs the rounds of that many intervals. */
  const rounds = async (count: number): Promise<void> => clock.advance(count * INTERVAL_MS)

  beforeEach(() => {
    clock = new ManualClock()
    records = new Map()
    down = new Set()
    pings = []
    begun = []
    stuck = new Set()
    warnings = []
    const metadata = {
      halfDoneSrs: () => [],
      halfDoneVolumes: () => [],
      volume: (_: unknown, key: VolumeKey) => stored(key),
      staleReplicas: (besideOneOn: HostId) => {
        assert.equal(besideOneOn, here)
        return [...records].flatMap(([key, state]) => staleOf(key, state))
      },
      tombstones: () => [],
      stores: () => [],
    }
    const context = {
      host: here,
      clock,
      metadata,
      replicasInTheMaking: new Set(),
      agent: (host: HostId) => ({
        peer: async () => {
          pings.push(host)
          if (down.has(host)) throw new XosanError('PEER_UNREACHABLE', { host, reason: 'it is a test' })
        },
      }),
      datapath: {
        call: async (method: string, { volume }: { volume: VolumeKey }) => {
          assert.equal(method, 'volume.resync')
          if (stuck.has(volume)) throw new XosanError('DEADLINE_EXCEEDED', { what: method, deadlineMs: 1 })
          begun.push(volume)
        },
      },
    }
    const silent = () => undefined
    janitor = new Janitor({
      // Only what a round looks at.
      context: context as unknown as VolumeContext,
      stores: {
        attached: async () => [],
        space: async () => assert.fail('no store is attached'),
        volumeNames: async () => [],
      },
      log: { error: silent, info: silent, debug: silent, warn: message => warnings.push(message) },
      intervalMs: millis(INTERVAL_MS),
      reconcile: async () => undefined,
    })
  })

  afterEach(() => janitor.close())

  it('begins to bring it up to date on the host with the in-sync replica', async () => {
    const volume = add(record([here, other], [other]))
    add(record([here, other], []))
    janitor.start()
    await rounds(0)
    assert.deepEqual(begun, [volume])
  })

  it('finds out about one that became stale later, and begins again until it is in-sync', async () => {
    janitor.start()
    await rounds(2)
    const volume = add(record([here, other], []))
    records.set(volume, record([here, other], [other]))
    await rounds(2)
    assert.deepEqual(begun, [volume, volume])
    records.set(volume, record([here, other], []))
    await rounds(3)
    assert.deepEqual(begun, [volume, volume])
  })

  it('leaves alone what is open, half-done, or has no in-sync replica here', async () => {
    add(record([here, other], [other], { primary: here }))
    add(record([here, other], [other], { primary: other }))
    add(record([here, other], [other], { operation: { kind: 'deleting', host: other, id: 'x' } }))
    add(record([here, other], [here]))
    add(record([other, third], [third]))
    janitor.start()
    await rounds(3)
    assert.deepEqual(begun, [])
  })

  it('takes up one that is closed again', async () => {
    const volume = add(record([here, other], [other], { primary: other }))
    janitor.start()
    await rounds(2)
    assert.deepEqual(begun, [])
    records.set(volume, record([here, other], [other]))
    await rounds(1)
    assert.deepEqual(begun, [volume])
  })

  it('waits until a host with a stale replica answers', async () => {
    const volume = add(record([here, other], [other]))
    down.add(other)
    janitor.start()
    await rounds(3)
    assert.deepEqual(begun, [])
    down.clear()
    await rounds(1)
    assert.deepEqual(begun, [volume])
  })

  it('leaves it to the first host with an in-sync replica that answers', async () => {
    const volume = add(record([other, here, third], [third]))
    janitor.start()
    await rounds(3)
    assert.deepEqual(begun, [])
    down.add(other)
    await rounds(1)
    assert.deepEqual(begun, [volume])
  })

  it('begins few in one round, and lets all of them have their turn', async () => {
    const volumes = Array.from({ length: 20 }, () => add(record([here, other], [other])))
    janitor.start()
    await rounds(0)
    assert.deepEqual(begun, volumes.slice(0, 8))
    await rounds(2)
    assert.deepEqual(begun.slice(0, 20), volumes)
  })

  it('asks each host once in a round, however many volumes wait for it', async () => {
    for (let i = 0; i < 100; i++) add(record([other, here, third], [third]))
    janitor.start()
    await rounds(0)
    assert.deepEqual(pings, [third, other])
    down.add(third)
    await rounds(1)
    assert.deepEqual(pings, [third, other, third])
  })

  it('goes on with the others when one cannot be begun, and says so', async () => {
    const first = add(record([here, other], [other]))
    const second = add(record([here, other], [other]))
    stuck.add(first)
    janitor.start()
    await rounds(0)
    assert.deepEqual(begun, [second])
    assert.equal(warnings.length, 1)
    stuck.clear()
    await rounds(1)
    assert.ok(begun.includes(first))
  })

  it('goes on with the others when a record cannot be read', async () => {
    add('unreadable')
    const volume = add(record([here, other], [other]))
    janitor.start()
    await rounds(0)
    assert.deepEqual(begun, [volume])
  })
})
