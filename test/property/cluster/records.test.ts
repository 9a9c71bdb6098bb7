import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import {
  hostKey,
  parseKey,
  srKey,
  storeKey,
  tombstoneKey,
  volumeInfoKey,
  volumeStateKey,
} from '../../../cluster/keys.ts'
import {
  parseVolumeInfo,
  parseVolumeState,
  serialiseVolumeInfo,
  serialiseVolumeState,
} from '../../../cluster/volume-state.ts'
import { XosanError, hasCode } from '../../../core/errors.ts'
import { type VolumeInfo, type VolumeState } from '../../../core/mirror/volume-record.ts'
import {
  type HostId,
  type LayerId,
  type ReplicaId,
  type SrId,
  type StoreId,
  type VolumeKey,
  byteLength,
  epoch,
} from '../../../core/units.ts'

const uuid = fc.uuid()
const distinct = (maxLength: number): fc.Arbitrary<string[]> =>
  fc.uniqueArray(uuid, { minLength: 1, maxLength })

const PLAIN = { noNullPrototype: true }

/** Replicas of up to three mirrors, each on hosts of its own, no replica id twice. */
const mirrorsArbitrary = fc
  .tuple(
    fc.array(distinct(4), { minLength: 1, maxLength: 3 }),
    fc.uniqueArray(uuid, { minLength: 12, maxLength: 12 }),
    fc.array(fc.boolean(), { minLength: 12, maxLength: 12 })
  )
  .map(([mirrors, ids, inSync]) => {
    let next = 0
    return mirrors.map(hosts =>
      hosts.map(host => {
        const index = next++
        return {
          host: host as HostId,
          replica: ids[index] as ReplicaId,
          store: ids.at(-index) as StoreId,
          inSync: inSync[index]!,
        }
      })
    )
  })

const stateArbitrary: fc.Arbitrary<VolumeState> = fc
  .record({
    blocks: fc.integer({ min: 1, max: 2 ** 40 }),
    sharable: fc.boolean(),
    epochs: fc.tuple(fc.integer({ min: 1, max: 2 ** 50 }), fc.nat()),
    reservedBy: fc.option(uuid),
    primary: fc.option(uuid),
    layers: distinct(5),
    mirrors: mirrorsArbitrary,
    operation: fc.option(fc.constantFrom('creating' as const, 'deleting' as const)),
  })
  .map(({ blocks, sharable, epochs, reservedBy, primary, layers, mirrors, operation }) => ({
    version: 1 as const,
    size: byteLength(blocks * 4096),
    sharable,
    epoch: epoch(epochs[0]),
    reserved: { epoch: epoch(epochs[0] + epochs[1]), host: reservedBy as HostId | null, operation: 'op' },
    primary: primary as HostId | null,
    layers: layers as LayerId[],
    mirrors,
    ...(operation === null ? {} : { operation: { kind: operation, host: layers[0] as HostId, id: 'op' } }),
  }))

const infoArbitrary: fc.Arbitrary<VolumeInfo> = fc.record(
  {
    version: fc.constant(1 as const),
    name: fc.string({ unit: 'binary' }),
    description: fc.string({ unit: 'binary' }),
    keys: fc.dictionary(
      fc.string().filter(key => key !== '__proto__'),
      fc.string(),
      PLAIN
    ),
  },
  PLAIN
)

const KEY = 'the key'

describe('the records of a volume', () => {
  it('come back as they were written, and as the same text', () => {
    fc.assert(
      fc.property(stateArbitrary, infoArbitrary, (state, info) => {
        const text = serialiseVolumeState(KEY, state)
        assert.deepEqual(parseVolumeState(KEY, text), state)
        assert.equal(serialiseVolumeState(KEY, reversed(state)), text)
        const infoText = serialiseVolumeInfo(KEY, info)
        assert.deepEqual(parseVolumeInfo(KEY, infoText), info)
        assert.equal(serialiseVolumeInfo(KEY, reversed(info)), infoText)
      })
    )
  })

  it('are not written when a member would be lost on the way', () => {
    const keys = JSON.parse('{"__proto__":"lost"}') as Record<string, string>
    assert.throws(
      () => serialiseVolumeInfo(KEY, { version: 1, name: '', description: '', keys }),
      error => hasCode(error, 'RECORD_INVALID')
    )
  })

  it('are refused, and never throw anything else, when a part of them is replaced', () => {
    const junk = fc.oneof(fc.jsonValue(), fc.constantFrom(-1, 1.5, 2 ** 53, '', null))
    fc.assert(
      fc.property(stateArbitrary, fc.nat(), junk, (state, which, value) => {
        const members = Object.keys(state)
        const changed = { ...state, [members[which % members.length]!]: value }
        try {
          parseVolumeState(KEY, JSON.stringify(changed))
        } catch (error) {
          assert.ok(hasCode(error, 'RECORD_INVALID') && error.parameters['key'] === KEY)
        }
      })
    )
  })

  it('are refused as any text that is no record', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json()), text => {
        assert.throws(
          () => parseVolumeState(KEY, text),
          error => hasCode(error, 'RECORD_INVALID')
        )
      })
    )
  })
})

describe('the keys of the coordinator', () => {
  it('tell what their builders were given', () => {
    fc.assert(
      fc.property(uuid, uuid, (first, second) => {
        const [sr, host] = [first as SrId, second as HostId]
        const [volume, replica] = [second as VolumeKey, second as ReplicaId]
        assert.deepEqual(parseKey(hostKey(host)), { kind: 'host', host })
        assert.deepEqual(parseKey(srKey(sr)), { kind: 'sr', sr })
        assert.deepEqual(parseKey(storeKey(sr, host)), { kind: 'store', sr, host })
        assert.deepEqual(parseKey(volumeStateKey(sr, volume)), { kind: 'volume-state', sr, volume })
        assert.deepEqual(parseKey(volumeInfoKey(sr, volume)), { kind: 'volume-info', sr, volume })
        assert.deepEqual(parseKey(tombstoneKey(sr, replica)), { kind: 'tombstone', sr, replica })
      })
    )
  })

  it('are of a kind that is not known when a part is missing, too much or no id', () => {
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.string(), uuid, fc.constantFrom('srs', 'volumes', 'state'))),
        parts => {
          const key = parts.join('/')
          const parsed = parseKey(key)
          if (parsed.kind !== 'other') {
            assert.match(key, /^(identity|hosts\/[0-9a-f-]{36}|srs\/[0-9a-f-]{36}\/.+)$/)
          }
        }
      )
    )
  })

  it('are never built from what is no id', () => {
    const notIds = ['', '..', 'x/y', randomUUID().toUpperCase(), `${randomUUID()}/state`]
    for (const bad of notIds) {
      assert.throws(
        () => volumeStateKey(randomUUID() as SrId, bad as VolumeKey),
        error => error instanceof XosanError && error.code === 'INVALID_ARGUMENT'
      )
    }
  })
})

/** The same record with its members in the opposite order. */
function reversed<T extends object>(record: T): T {
  return Object.fromEntries(Object.entries(record).reverse()) as T
}
