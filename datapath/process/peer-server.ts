import { promisify } from 'node:util'
import { deflateRaw } from 'node:zlib'
import { type SessionName } from '../../core/mirror/messages.ts'
import { type VolumeKey } from '../../core/units.ts'
import { datapathApi } from '../../rpc/datapath-api.ts'
import { mirrorApi, type MirrorMethod, type MirrorParams, type MirrorResult } from '../../rpc/mirror-api.ts'
import { type RpcServer } from '../../rpc/server.ts'
import { type Caller } from '../../trust/caller.ts'
import { type DatapathNode } from './datapath-node.ts'
import { register, type ReplicaMethod, replicaMethods, requireOurs, requireSpeaker } from './methods.ts'
import { type ReplicaHost } from './replica-host.ts'

const deflate = promisify(deflateRaw)

/** Bytes of a bitmap of write intents in one answer: 2 TiB of volume, well within one line in base64. */
const INTENT_BYTES_MAX = 4 * 1024 * 1024

type Handlers = {
  [M in MirrorMethod]: (params: MirrorParams<M>, caller: Caller) => Promise<MirrorResult<M>>
}

/**
 * Serves the messages of other hosts' primaries, and the making and deleting of replicas for other hosts' xosand.
 * @param isOurs whether this process is the one of its host that serves a volume: no other may open its files
 */
export function servePeers(
  server: RpcServer,
  node: DatapathNode,
  isOurs: (volume: VolumeKey) => boolean
): void {
  const handlers = handlersOf(node.replicas, isOurs)
  for (const method of Object.keys(mirrorApi) as MirrorMethod[]) {
    register(server, method, mirrorApi[method].params, handlers[method])
  }
  const replica = replicaMethods(node, isOurs)
  for (const method of Object.keys(replica) as ReplicaMethod[]) {
    register(server, method, datapathApi[method].params, replica[method])
  }
}

function handlersOf(replicas: ReplicaHost, isOurs: (volume: VolumeKey) => boolean): Handlers {
  const check = ({ volume }: { readonly volume: VolumeKey }): void => requireOurs(volume, isOurs)
  return {
    'mirror.heartbeat': async (heartbeat, caller) => {
      requireSpeaker(caller, heartbeat.from.host)
      return Promise.resolve(replicas.heartbeat(heartbeat))
    },
    'mirror.accept': async (request, caller) => {
      requireSpeaker(caller, request.asker.host)
      check(request.address)
      return replicas.accept(request)
    },
    'mirror.confirm': async (request, caller) => {
      requireSpeaker(caller, request.asker.host)
      check(request.address)
      return replicas.confirm(request)
    },
    'mirror.raise': async (request, caller) => {
      requireSpeaker(caller, request.asker.host)
      check(request.address)
      return replicas.raise(request)
    },
    'mirror.intents': async ({ name, fromByte }) => {
      check(name.address)
      return intentsPart(replicas, name, fromByte)
    },
    'mirror.digests': async ({ name, region }) => {
      check(name.address)
      const digests = await replicas.digests(name, region)
      return { digests: digests === null ? null : Buffer.from(digests).toString('base64') }
    },
    'mirror.clear': async request => {
      check(request.name.address)
      await replicas.clear(request)
      return null
    },
    'mirror.finish': async request => {
      check(request.name.address)
      await replicas.finish(request)
      return null
    },
    'mirror.create': async ({ address, blank, lost }) => {
      check(address)
      return replicas.create(address, blank, { lost })
    },
  }
}

async function intentsPart(
  replicas: ReplicaHost,
  name: SessionName,
  fromByte: number
): Promise<MirrorResult<'mirror.intents'>> {
  const intents = await replicas.intents(name)
  const bytes = Math.max(0, Math.min(INTENT_BYTES_MAX, Math.ceil(intents.size / 8) - fromByte))
  const part = new Uint8Array(bytes)
  intents.copyBytes(fromByte, part)
  return { regions: intents.size, bytes, bits: (await deflate(part)).toString('base64') }
}
