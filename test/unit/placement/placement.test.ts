import assert from 'node:assert/strict'
import { hasCode } from '../../../core/errors.ts'
import { type PlacementRequest, chooseReplicaHosts } from '../../../core/placement/choose-replica-hosts.ts'
import { datapathIndexOf } from '../../../core/placement/datapath-index.ts'
import { planFirstActivationMove } from '../../../core/placement/first-activation.ts'
import { type PlacementHost } from '../../../core/placement/space.ts'
import { type HostId, type StoreId, type VolumeKey, byteLength } from '../../../core/units.ts'
import { sampleState } from '../catalogue/samples.ts'

const GIB = 1024 ** 3

const at = (name: string, freeGib: number, failureDomain?: string): PlacementHost => ({
  host: name as HostId,
  store: `store of ${name}` as StoreId,
  total: byteLength(100 * GIB),
  free: byteLength(freeGib * GIB),
  ...(failureDomain === undefined ? {} : { failureDomain }),
})

const tenPercent = { unit: 'fraction', amount: 0.1 } as const

function choose(hosts: PlacementHost[], changes: Partial<PlacementRequest> = {}): string[] {
  return chooseReplicaHosts({
    copies: 2,
    size: byteLength(GIB),
    headroom: tenPercent,
    hosts,
    ...changes,
  }).map(({ host }) => host)
}

describe('placement', () => {
  it('takes the hosts with the most free space', () => {
    assert.deepEqual(choose([at('a', 20), at('b', 80), at('c', 50)]), ['b', 'c'])
  })

  it('takes the lower id among equals', () => {
    assert.deepEqual(choose([at('c', 50), at('a', 50), at('b', 50)]), ['a', 'b'])
  })

  it('starts with the host that asked', () => {
    assert.deepEqual(choose([at('a', 20), at('b', 80), at('c', 50)], { prefer: 'a' as HostId }), ['a', 'b'])
  })

  it('passes over the host that asked when the volume fits elsewhere only', () => {
    const hosts = [at('a', 20), at('b', 80), at('c', 50)]
    const size = byteLength(30 * GIB)
    assert.deepEqual(choose(hosts, { prefer: 'a' as HostId, size }), ['b', 'c'])
  })

  it('takes a volume that is larger than every store, for it is thin', () => {
    const size = byteLength(2000 * GIB)
    assert.deepEqual(choose([at('a', 20), at('b', 80)], { size, prefer: 'a' as HostId }), ['a', 'b'])
  })

  it('prefers another failure domain to more space', () => {
    assert.deepEqual(choose([at('a', 90, 'r1'), at('b', 80, 'r1'), at('c', 20, 'r2')]), ['a', 'c'])
  })

  it('uses one failure domain twice rather than refuse', () => {
    assert.deepEqual(choose([at('a', 90, 'r1'), at('b', 80, 'r1')]), ['a', 'b'])
  })

  it('says how many hosts there are when there are too few', () => {
    assert.throws(
      () => choose([at('a', 90)]),
      error => hasCode(error, 'TOO_FEW_HOSTS') && error.parameters['hosts'] === 1
    )
  })

  it('says how much is free and how much must be when hosts are full', () => {
    assert.throws(
      () => choose([at('a', 90), at('b', 10), at('c', 3)]),
      error =>
        hasCode(error, 'NO_SPACE') &&
        error.parameters['free'] === 10 * GIB &&
        error.parameters['needed'] === 10 * GIB + 1
    )
  })

  it('keeps head-room in bytes', () => {
    const headroom = { unit: 'bytes', amount: 60 * GIB } as const
    assert.throws(
      () => choose([at('a', 90), at('b', 50)], { headroom }),
      error => hasCode(error, 'NO_SPACE')
    )
  })
})

describe('the first activation of a volume', () => {
  const plan = (on: string[], host: string, hosts: PlacementHost[]): string | undefined =>
    planFirstActivationMove(sampleState(on as HostId[]), host as HostId, hosts, tenPercent)?.replace.host

  it('gives up the replica on the fullest host', () => {
    assert.equal(plan(['a', 'b'], 'c', [at('a', 80), at('b', 20), at('c', 50)]), 'b')
  })

  it('gives up the replica on a host that is away', () => {
    assert.equal(plan(['a', 'b'], 'c', [at('b', 20), at('c', 50)]), 'a')
  })

  it('gives up the replica of the same failure domain', () => {
    assert.equal(plan(['a', 'b'], 'c', [at('a', 80, 'r1'), at('b', 20, 'r2'), at('c', 50, 'r1')]), 'a')
  })

  it('moves nothing to a host without room or without a store', () => {
    assert.equal(plan(['a', 'b'], 'c', [at('a', 80), at('b', 20), at('c', 10)]), undefined)
    assert.equal(plan(['a', 'b'], 'c', [at('a', 80), at('b', 20)]), undefined)
  })

  it('moves nothing during an operation', () => {
    const state = {
      ...sampleState(['a', 'b'] as HostId[]),
      operation: { kind: 'deleting', host: 'a' as HostId, id: 'x' },
    } as const
    const hosts = [at('a', 80), at('b', 20), at('c', 50)]
    assert.equal(planFirstActivationMove(state, 'c' as HostId, hosts, tenPercent), null)
  })
})

describe('the datapath process of a volume', () => {
  it('is what every release has said: peers rely on it', () => {
    const indexes = [
      '00000000-0000-0000-0000-000000000000',
      'f81d4fae-7dec-11d0-a765-00a0c91e6bf6',
      '7d444840-9dc0-11d1-b245-5ffdce74fad2',
    ].map(key => datapathIndexOf(key as VolumeKey, 64))
    // Computed by another implementation of 32-bit FNV-1a.
    assert.deepEqual(indexes, [17, 41, 61])
  })
})
