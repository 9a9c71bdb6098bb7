/**
 * The part of etcd's published v3 API that we use, as a table: package, message and field names, field numbers and
 * types are those of `rpc.proto`, `kv.proto` (https://etcd.io/docs/v3.4/dev-guide/api_reference_v3/). Fields that we
 * neither send nor look at are left out, which protocol buffers allow.
 *
 * It is a table in a source file, not a `.proto`, so that a bundled program needs no file beside it.
 */
import { type MethodDefinition as GrpcMethod } from '@grpc/grpc-js'
import { fromJSON } from '@grpc/proto-loader'

/** Field name -> "[repeated] type number". */
type Fields = Readonly<Record<string, string>>

function message(fields: Fields, oneof: readonly string[] = []) {
  const parsed = Object.entries(fields).map(([name, text]) => {
    const words = text.split(' ')
    const id = Number(words.pop())
    const type = words.pop()!
    return [name, words[0] === 'repeated' ? { rule: 'repeated' as const, type, id } : { type, id }] as const
  })
  return {
    fields: Object.fromEntries(parsed),
    ...(oneof.length === 0 ? {} : { oneofs: { union: { oneof: [...oneof] } } }),
  }
}

/** Method name -> request and reply; `stream` for both directions. */
function service(methods: Readonly<Record<string, readonly [string, string, 'stream'?]>>) {
  const parsed = Object.entries(methods).map(([name, [requestType, responseType, stream]]) => {
    const both = stream !== undefined
    return [
      name,
      { requestType, responseType, requestStream: both, responseStream: both, comment: '' },
    ] as const
  })
  return { methods: Object.fromEntries(parsed) }
}

const MVCC = {
  KeyValue: message({ key: 'bytes 1', mod_revision: 'int64 3', value: 'bytes 5' }),
  EventType: { values: { PUT: 0, DELETE: 1 } },
  Event: message({ type: 'EventType 1', kv: 'KeyValue 2' }),
}

const SERVER = {
  ResponseHeader: message({ cluster_id: 'uint64 1', member_id: 'uint64 2', revision: 'int64 3' }),

  KV: service({
    Range: ['RangeRequest', 'RangeResponse'],
    Txn: ['TxnRequest', 'TxnResponse'],
    Compact: ['CompactionRequest', 'CompactionResponse'],
  }),
  RangeRequest: message({
    key: 'bytes 1',
    range_end: 'bytes 2',
    limit: 'int64 3',
    revision: 'int64 4',
    serializable: 'bool 7',
    count_only: 'bool 9',
  }),
  RangeResponse: message({ header: 'ResponseHeader 1', kvs: 'repeated mvccpb.KeyValue 2', more: 'bool 3' }),
  PutRequest: message({ key: 'bytes 1', value: 'bytes 2' }),
  DeleteRangeRequest: message({ key: 'bytes 1' }),
  RequestOp: message(
    {
      request_range: 'RangeRequest 1',
      request_put: 'PutRequest 2',
      request_delete_range: 'DeleteRangeRequest 3',
    },
    ['request_range', 'request_put', 'request_delete_range']
  ),
  ResponseOp: message({ response_range: 'RangeResponse 1' }, ['response_range']),
  CompareResult: { values: { EQUAL: 0, GREATER: 1, LESS: 2, NOT_EQUAL: 3 } },
  CompareTarget: { values: { VERSION: 0, CREATE: 1, MOD: 2, VALUE: 3, LEASE: 4 } },
  Compare: message(
    { result: 'CompareResult 1', target: 'CompareTarget 2', key: 'bytes 3', mod_revision: 'int64 6' },
    ['mod_revision']
  ),
  TxnRequest: message({
    compare: 'repeated Compare 1',
    success: 'repeated RequestOp 2',
    failure: 'repeated RequestOp 3',
  }),
  TxnResponse: message({
    header: 'ResponseHeader 1',
    succeeded: 'bool 2',
    responses: 'repeated ResponseOp 3',
  }),
  CompactionRequest: message({ revision: 'int64 1', physical: 'bool 2' }),
  CompactionResponse: message({ header: 'ResponseHeader 1' }),

  Watch: service({ Watch: ['WatchRequest', 'WatchResponse', 'stream'] }),
  WatchRequest: message(
    { create_request: 'WatchCreateRequest 1', progress_request: 'WatchProgressRequest 3' },
    ['create_request', 'progress_request']
  ),
  WatchCreateRequest: message({
    key: 'bytes 1',
    range_end: 'bytes 2',
    start_revision: 'int64 3',
    fragment: 'bool 8',
  }),
  WatchProgressRequest: message({}),
  WatchResponse: message({
    header: 'ResponseHeader 1',
    created: 'bool 3',
    canceled: 'bool 4',
    compact_revision: 'int64 5',
    cancel_reason: 'string 6',
    fragment: 'bool 7',
    events: 'repeated mvccpb.Event 11',
  }),

  Cluster: service({
    MemberList: ['MemberListRequest', 'MembersResponse'],
    MemberAdd: ['MemberAddRequest', 'MemberAddResponse'],
    MemberPromote: ['MemberIdRequest', 'MembersResponse'],
    MemberRemove: ['MemberIdRequest', 'MembersResponse'],
  }),
  Member: message({
    ID: 'uint64 1',
    name: 'string 2',
    peerURLs: 'repeated string 3',
    clientURLs: 'repeated string 4',
    isLearner: 'bool 5',
  }),
  MemberListRequest: message({}),
  MemberAddRequest: message({ peerURLs: 'repeated string 1', isLearner: 'bool 2' }),
  MemberAddResponse: message({
    header: 'ResponseHeader 1',
    member: 'Member 2',
    members: 'repeated Member 3',
  }),
  // Promote and remove look the same, as do the replies of three methods; only numbers and types travel.
  MemberIdRequest: message({ ID: 'uint64 1' }),
  MembersResponse: message({ header: 'ResponseHeader 1', members: 'repeated Member 2' }),

  Maintenance: service({ Status: ['StatusRequest', 'StatusResponse'] }),
  StatusRequest: message({}),
  StatusResponse: message({
    header: 'ResponseHeader 1',
    version: 'string 2',
    dbSize: 'int64 3',
    leader: 'uint64 4',
    raftIndex: 'uint64 5',
    raftAppliedIndex: 'uint64 7',
    errors: 'repeated string 8',
    dbSizeInUse: 'int64 9',
    isLearner: 'bool 10',
  }),
}

// 64-bit numbers come as text: the ids use all bits, more than a JavaScript number has.
const definitions = fromJSON(
  { nested: { mvccpb: { nested: MVCC }, etcdserverpb: { nested: SERVER } } },
  { longs: String, enums: String, defaults: true, arrays: true }
)

/** How a request becomes bytes and bytes become a reply, which is not yet checked. */
export type Method = GrpcMethod<object, unknown>

function method(serviceName: string, name: string): Method {
  const found = definitions[`etcdserverpb.${serviceName}`] as Readonly<Record<string, Method>> | undefined
  const definition = found?.[name]
  if (definition === undefined) throw new TypeError(`${serviceName}.${name} is not in the table`)
  return definition
}

export const RANGE = method('KV', 'Range')
export const TXN = method('KV', 'Txn')
export const COMPACT = method('KV', 'Compact')
export const WATCH = method('Watch', 'Watch')
export const MEMBER_LIST = method('Cluster', 'MemberList')
export const MEMBER_ADD = method('Cluster', 'MemberAdd')
export const MEMBER_PROMOTE = method('Cluster', 'MemberPromote')
export const MEMBER_REMOVE = method('Cluster', 'MemberRemove')
export const STATUS = method('Maintenance', 'Status')
