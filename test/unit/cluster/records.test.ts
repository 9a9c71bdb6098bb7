import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import {
  parseHostRecord,
  parseSrRecord,
  parseStoreRecord,
  parseTombstoneRecord,
  serialiseHostRecord,
  serialiseSrRecord,
} from '../../../cluster/records.ts'
import { parseVolumeState, serialiseVolumeState } from '../../../cluster/volume-state.ts'
import { hasCode } from '../../../core/errors.ts'
import { type VolumeState } from '../../../core/mirror/volume-record.ts'
import { type HostId, type LayerId, epoch } from '../../../core/units.ts'
import { newHost, sampleState } from '../catalogue/samples.ts'

const uuid = randomUUID()
const host = {
  version: 1,
  host: uuid,
  name: 'one',
  address: '127.0.0.1',
  ports: { peer: 1, datapath: [2, 3], nbd: [4, 5] },
  datapaths: 2,
}
const sr = {
  version: 1,
  sr: uuid,
  name: 'n',
  description: 'd',
  generation: 1,
  configuration: { path: '/data', copies: 2, headroom: { unit: 'bytes', amount: 10 } },
  hosts: [uuid],
  createdBy: uuid,
}
const store = { version: 1, host: uuid, store: uuid, directory: '/d', space: { total: 2, free: 1 } }
const tombstone = { version: 1, volume: uuid, host: uuid, replica: uuid }

const refused = (parse: (key: string, text: string) => unknown, record: object, reason: RegExp): void =>
  assert.throws(
    () => parse('the key', JSON.stringify(record)),
    error =>
      hasCode(error, 'RECORD_INVALID') && reason.test(error.message) && error.message.includes('the key')
  )

describe('records', () => {
  it('of every kind are accepted as they should be and refused with a member too many or of another version', () => {
    const kinds: [(key: string, text: string) => unknown, object][] = [
      [parseHostRecord, host],
      [parseSrRecord, sr],
      [parseStoreRecord, store],
      [parseTombstoneRecord, tombstone],
      [parseVolumeState, sampleState([newHost()])],
    ]
    for (const [parse, record] of kinds) {
      assert.deepEqual(parse('the key', JSON.stringify(record)), record)
      refused(parse, { ...record, extra: 1 }, /extra/)
      refused(parse, { ...record, version: 2 }, /version/)
      refused(parse, {}, /version/)
    }
  })

  it('are written in one way', () => {
    const swapped = {
      ...sr,
      configuration: { headroom: sr.configuration.headroom, copies: 2, path: '/data' },
    }
    const write = (record: object): string => serialiseSrRecord('the key', record as never)
    assert.equal(write(swapped), write(sr))
    assert.match(
      write(sr),
      /^\{"configuration":\{"copies":2,"headroom":\{"amount":10,"unit":"bytes"\},"path"/
    )
  })

  it('are not written when no host could read them', () => {
    assert.throws(
      () => serialiseHostRecord('the key', { ...host, datapaths: 3 } as never),
      error => hasCode(error, 'RECORD_INVALID')
    )
  })

  it('refuse ids in another spelling, relative paths, ports and shares out of range', () => {
    refused(parseHostRecord, { ...host, host: uuid.toUpperCase() }, /UUID/)
    refused(parseHostRecord, { ...host, ports: { ...host.ports, peer: 65_536 } }, /ports\.peer/)
    refused(parseStoreRecord, { ...store, directory: 'data' }, /directory/)
    refused(parseStoreRecord, { ...store, space: { total: 1, free: -1 } }, /space\.free/)
    refused(
      parseSrRecord,
      { ...sr, configuration: { copies: 2, headroom: { unit: 'fraction', amount: 1 } } },
      /headroom/
    )
  })
})

describe('the state of a volume', () => {
  const state = sampleState([newHost(), newHost()])
  const [first, second] = state.mirrors[0]!
  const impossible: [string, Partial<VolumeState>, RegExp][] = [
    ['an epoch above all that were reserved', { epoch: epoch(1) }, /reserved/],
    ['a primary that never got an epoch', { primary: newHost() }, /primary/],
    [
      'two replicas of one mirror on one host',
      { mirrors: [[first!, { ...second!, host: first!.host }]] },
      /host/,
    ],
    ['one replica twice', { mirrors: [[first!], [{ ...first!, host: newHost() }]] }, /replica/],
    ['one layer twice', { layers: [state.layers[0]!, state.layers[0]!] }, /layer/],
    ['no layer', { layers: [] }, /layers/],
    ['a mirror without replicas', { mirrors: [[]] }, /mirrors/],
    ['half a block', { size: 2048 as never }, /block/],
    ['an id that is none', { layers: ['../../etc' as LayerId] }, /UUID/],
    [
      'an operation of a newer version',
      { operation: { kind: 'snapshotting', host: '' as HostId, id: '' } as never },
      /operation/,
    ],
  ]
  for (const [what, change, reason] of impossible) {
    it(`is refused with ${what}, on reading and on writing`, () => {
      refused(parseVolumeState, { ...state, ...change }, reason)
      assert.throws(
        () => serialiseVolumeState('the key', { ...state, ...change }),
        error => hasCode(error, 'RECORD_INVALID')
      )
    })
  }
})
