import assert from 'node:assert/strict'
import fc from 'fast-check'
import { hasCode } from '../../../core/errors.ts'
import { type VolumeState } from '../../../core/mirror/volume-record.ts'
import { type PlacementRequest, chooseReplicaHosts } from '../../../core/placement/choose-replica-hosts.ts'
import { datapathIndexOf } from '../../../core/placement/datapath-index.ts'
import { planFirstActivationMove } from '../../../core/placement/first-activation.ts'
import { type PlacementHost, domainOf, roomOf } from '../../../core/placement/space.ts'
import {
  type HostId,
  type LayerId,
  type ReplicaId,
  type StoreId,
  type VolumeKey,
  byteLength,
  epoch,
} from '../../../core/units.ts'

const hostArbitrary = fc
  .record({
    host: fc.uuid().map(id => id as HostId),
    store: fc.uuid().map(id => id as StoreId),
    total: fc.integer({ min: 0, max: 1_000 }),
    used: fc.integer({ min: 0, max: 1_000 }),
    failureDomain: fc.option(fc.constantFrom('r1', 'r2', 'r3'), { nil: undefined }),
  })
  .map(({ host, store, total, used, failureDomain }): PlacementHost => ({
    host,
    store,
    total: byteLength(total),
    free: byteLength(Math.max(total - used, 0)),
    ...(failureDomain === undefined ? {} : { failureDomain }),
  }))
const hostsArbitrary = fc.uniqueArray(hostArbitrary, { maxLength: 8, selector: ({ host }) => host })
const headroomArbitrary = fc.oneof(
  fc.double({ min: 0, max: 0.5, noNaN: true }).map(amount => ({ unit: 'fraction' as const, amount })),
  fc.integer({ min: 0, max: 300 }).map(amount => ({ unit: 'bytes' as const, amount }))
)
const requestArbitrary: fc.Arbitrary<PlacementRequest> = hostsArbitrary.chain(hosts =>
  fc
    .record({
      copies: fc.integer({ min: 1, max: 4 }),
      size: fc.integer({ min: 1, max: 1_000 }).map(byteLength),
      headroom: headroomArbitrary,
      prefer: fc.option(fc.constantFrom(...hosts.map(({ host }) => host), 'elsewhere' as HostId), {
        nil: undefined,
      }),
    })
    .map(({ prefer, ...rest }) => ({ ...rest, hosts, ...(prefer === undefined ? {} : { prefer }) }))
)

const withRoom = ({ hosts, headroom }: PlacementRequest): PlacementHost[] =>
  hosts.filter(host => roomOf(host, headroom) > 0)
const domains = (hosts: readonly PlacementHost[]): number => new Set(hosts.map(domainOf)).size

describe('placement of a new volume', () => {
  it('puts each replica on a host of its own that has room, or says why it cannot', () => {
    fc.assert(
      fc.property(requestArbitrary, request => {
        const candidates = withRoom(request)
        let chosen: PlacementHost[]
        try {
          chosen = chooseReplicaHosts(request)
        } catch (error) {
          const expected = request.hosts.length < request.copies ? 'TOO_FEW_HOSTS' : 'NO_SPACE'
          assert.ok(hasCode(error, expected))
          assert.ok(candidates.length < request.copies)
          return
        }
        assert.equal(chosen.length, request.copies)
        assert.equal(new Set(chosen.map(({ host }) => host)).size, request.copies)
        assert.ok(chosen.every(host => candidates.includes(host)))
      })
    )
  })

  it('spreads the replicas over as many failure domains as there are', () => {
    fc.assert(
      fc.property(requestArbitrary, request => {
        const candidates = withRoom(request)
        fc.pre(candidates.length >= request.copies)
        const chosen = chooseReplicaHosts(request)
        assert.equal(domains(chosen), Math.min(request.copies, domains(candidates)))
      })
    )
  })

  it('puts the preferred host first whenever the volume fits there', () => {
    fc.assert(
      fc.property(requestArbitrary, request => {
        const candidates = withRoom(request)
        const preferred = candidates.find(({ host }) => host === request.prefer)
        fc.pre(candidates.length >= request.copies && preferred !== undefined)
        fc.pre(roomOf(preferred, request.headroom) >= request.size)
        assert.equal(chooseReplicaHosts(request)[0], preferred)
      })
    )
  })

  it('leaves out no host that has more room than a chosen one of the same domain', () => {
    fc.assert(
      fc.property(requestArbitrary, request => {
        const candidates = withRoom(request)
        fc.pre(candidates.length >= request.copies)
        const chosen = chooseReplicaHosts(request)
        for (const one of chosen.filter(({ host }) => host !== request.prefer)) {
          const better = candidates.find(
            host =>
              !chosen.includes(host) &&
              domainOf(host) === domainOf(one) &&
              roomOf(host, request.headroom) > roomOf(one, request.headroom)
          )
          assert.equal(better, undefined)
        }
      })
    )
  })

  it('does not depend on the order in which the hosts are named', () => {
    const shuffled = requestArbitrary.chain(request =>
      fc.tuple(
        fc.constant(request),
        fc.shuffledSubarray([...request.hosts], {
          minLength: request.hosts.length,
          maxLength: request.hosts.length,
        })
      )
    )
    fc.assert(
      fc.property(shuffled, ([request, hosts]) => {
        fc.pre(withRoom(request).length >= request.copies)
        assert.deepEqual(chooseReplicaHosts({ ...request, hosts }), chooseReplicaHosts(request))
      })
    )
  })
})

describe('the move at a first activation', () => {
  const caseArbitrary = fc
    .tuple(
      fc.uniqueArray(hostArbitrary, { minLength: 3, maxLength: 6, selector: ({ host }) => host }),
      fc.integer({ min: 1, max: 2 }),
      headroomArbitrary,
      fc.integer({ min: 1, max: 1_000 })
    )
    .map(([hosts, copies, headroom, size]) => ({
      hosts,
      headroom,
      state: pristine(hosts.slice(0, copies), size),
      activating: hosts.at(-1)!,
    }))

  it('replaces one replica by one on the activating host, in no fewer failure domains', () => {
    fc.assert(
      fc.property(caseArbitrary, ({ hosts, headroom, state, activating }) => {
        const move = planFirstActivationMove(state, activating.host, hosts, headroom)
        fc.pre(move !== null)
        assert.equal(move.to, activating)
        assert.ok(roomOf(activating, headroom) > 0)
        const before = hosts.slice(0, state.mirrors[0]!.length)
        const after = [...before.filter(({ host }) => host !== move.replace.host), activating]
        assert.equal(after.length, before.length)
        assert.ok(domains(after) >= domains(before))
      })
    )
  })

  it('gives up the replica on the fullest host when all hosts fail alone', () => {
    fc.assert(
      fc.property(caseArbitrary, ({ hosts, headroom, state, activating }) => {
        const alone = hosts.map(({ host, store, total, free }) => ({ host, store, total, free }))
        const move = planFirstActivationMove(state, activating.host, alone, headroom)
        fc.pre(move !== null)
        const rooms = alone.slice(0, state.mirrors[0]!.length).map(host => roomOf(host, headroom))
        const replaced = alone.find(({ host }) => host === move.replace.host)!
        assert.equal(roomOf(replaced, headroom), Math.min(...rooms))
      })
    )
  })

  it('moves nothing of a volume that was ever opened', () => {
    fc.assert(
      fc.property(caseArbitrary, fc.integer({ min: 1 }), ({ hosts, headroom, state, activating }, number) => {
        const reserved = { ...state.reserved, epoch: epoch(number) }
        const opened = { ...state, reserved }
        assert.equal(planFirstActivationMove(opened, activating.host, hosts, headroom), null)
      })
    )
  })

  it('moves nothing to a host that has a replica already', () => {
    fc.assert(
      fc.property(caseArbitrary, ({ hosts, headroom, state }) => {
        assert.equal(planFirstActivationMove(state, hosts[0]!.host, hosts, headroom), null)
      })
    )
  })
})

describe('the datapath process of a volume', () => {
  const keyArbitrary = fc.uuid().map(id => id as VolumeKey)

  it('is one of the processes that there are, and always the same', () => {
    fc.assert(
      fc.property(keyArbitrary, fc.integer({ min: 1, max: 64 }), (volume, count) => {
        const index = datapathIndexOf(volume, count)
        assert.ok(Number.isInteger(index) && index >= 0 && index < count)
        assert.equal(datapathIndexOf(volume, count), index)
      })
    )
  })

  it('has a fair share of the volumes', () => {
    const keys = fc.sample(keyArbitrary, { numRuns: 4_000, seed: 1 })
    for (const count of [2, 3, 4, 8]) {
      const shares = new Array<number>(count).fill(0)
      keys.forEach(key => shares[datapathIndexOf(key, count)]!++)
      const expected = keys.length / count
      assert.ok(
        shares.every(share => Math.abs(share - expected) < expected / 4),
        `${count}: ${shares.join(' ')}`
      )
    }
  })
})

function pristine(hosts: readonly PlacementHost[], size: number): VolumeState {
  return {
    version: 1,
    size: byteLength(size),
    sharable: false,
    epoch: epoch(0),
    reserved: { epoch: epoch(0), host: null, operation: '' },
    primary: null,
    layers: ['layer' as LayerId],
    mirrors: [
      hosts.map(({ host, store }) => ({ host, store, replica: `of ${host}` as ReplicaId, inSync: true })),
    ],
  }
}
