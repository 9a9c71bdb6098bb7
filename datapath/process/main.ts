/**
 * xosan-datapath, the data plane of one host: serves volumes to guests and replicas to other hosts. It may be killed at
 * any instruction; its successor takes up what it left. Read from top to bottom: configuration, ports, the node,
 * sockets.
 */
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { reasonOf, XosanError } from '../../core/errors.ts'
import { type ProcessIdentity } from '../../core/mirror/messages.ts'
import { datapathIndexOf } from '../../core/placement/datapath-index.ts'
import { type HostId, type Incarnation, millis, type VolumeKey } from '../../core/units.ts'
import { HostCluster } from '../../daemon/cluster/host-cluster.ts'
import { readConfig, type Config } from '../../daemon/config.ts'
import { datapathSocket } from '../../daemon/datapaths.ts'
import { lockInstance } from '../../daemon/instance-lock.ts'
import { createLog, type Log, type LogFacts } from '../../daemon/log.ts'
import { createNodeClock } from '../../daemon/ports/node-clock.ts'
import { nodeRandom } from '../../daemon/ports/node-random.ts'
import { shutDownOnSignal } from '../../daemon/shutdown.ts'
import { RpcServer, type RpcServerEvent } from '../../rpc/server.ts'
import { endThoughDisksHang } from '../disk/disk-lanes.ts'
import { type ServerEvent } from '../nbd-server/close-reason.ts'
import { NbdServer } from '../nbd-server/nbd-server.ts'
import { AttachmentFile } from './attachment-file.ts'
import { serveControl } from './control-server.ts'
import { DatapathNode } from './datapath-node.ts'
import { GuestSockets } from './guest-sockets.ts'
import { HostDirectory } from './host-directory.ts'
import { powerOf } from './lab-power.ts'
import { PeerExports } from './peer-exports.ts'
import { servePeers } from './peer-server.ts'
import { PeerTransports } from './peer-transports.ts'
import { StoreFinder } from './store-finder.ts'

/** What closing all volumes in order may take; the process ends a moment later in any case. */
const STOP_MS = 8000
/**
 * Calls of one peer under way on one connection. Each may wait for a disk, and one volume's must not keep those of
 * all others waiting; a process serves some hundred volumes at most.
 */
const PEER_CALLS_MAX = 512

async function main(config: Config, index: number, log: Log): Promise<void> {
  const { host, runDirectory, stateDirectory, ports, timing } = config
  if (index >= config.datapaths) {
    throw new XosanError('INVALID_ARGUMENT', {
      what: `The index ${index}`,
      reason: `this host runs ${config.datapaths} datapath processes`,
    })
  }
  await mkdir(runDirectory, { recursive: true, mode: 0o700 })
  await mkdir(stateDirectory, { recursive: true, mode: 0o700 })
  // Held for life: a new incarnation means that the one before is dead, and other hosts rely on it.
  lockInstance(join(stateDirectory, `datapath-${index}.lock`))

  // Ports
  const clock = createNodeClock()
  const random = nodeRandom
  const power = await powerOf(config, random)
  if (power.losesUnsynced) log.warn('this process loses at its end what it has not synced: it is for drills')
  const identity: ProcessIdentity = {
    host: host.uuid,
    boot: power.boot,
    incarnation: random.uuid() as Incarnation,
  }
  const cluster = await HostCluster.open({
    config,
    clock,
    random,
    keepsMembers: false,
    log: (level, event, facts) => log[level](event, facts),
  })
  const { coordinator } = cluster
  const stores = new StoreFinder(join(stateDirectory, 'stores.json'), host.uuid, power.openDisk)
  await stores.reload().catch((error: unknown) => log.error(reasonOf(error)))
  const directory = new HostDirectory({ coordinator, clock, log: (event, facts) => log.warn(event, facts) })
  const transports = new PeerTransports({ directory, clock, timing, dialer: host => cluster.dialer(host) })

  // The node
  const isOurs = (volume: VolumeKey): boolean => datapathIndexOf(volume, config.datapaths) === index
  const node = new DatapathNode({
    identity,
    clock,
    random,
    coordinator,
    timing,
    isOurs,
    store: async sr => stores.store(sr),
    attachments: new AttachmentFile(join(stateDirectory, `attached-${index}.json`), power.kernelBoot, error =>
      log.error(error.message)
    ),
    transport: (other: HostId, volume: VolumeKey) => transports.to(other, volume),
    log: (event, facts) => log.info(event, facts),
  })

  // Sockets. Guests and peers have a server each: bytes that guests have under way to peers must not take the room
  // of what the peers send here, or two hosts could wait for each other.
  const onNbdEvent = (server: string) => (event: ServerEvent) => logNbdEvent(log, server, event)
  const peerExports = new PeerExports(node.replicas, isOurs)
  const peerNbd = new NbdServer({ exports: peerExports, clock, log: onNbdEvent('peers') })
  const guestNbd = new NbdServer({ exports: NO_EXPORTS, clock, log: onNbdEvent('guests') })
  const guests = new GuestSockets(guestNbd, join(runDirectory, 'nbd'))
  await guests.prepare(isOurs)
  const peers = new RpcServer({ log: logRpcEvent(log, 'peers'), inFlightMax: PEER_CALLS_MAX })
  servePeers(peers, node, isOurs)
  const control = new RpcServer({ log: logRpcEvent(log, 'control') })
  const reloadCluster = async (): Promise<void> => {
    if (await cluster.reload()) process.kill(process.pid, 'SIGTERM')
  }
  serveControl(control, { index, node, guests, stores, reloadCluster, isOurs })
  // What an earlier process left is known before anybody can attach more.
  await node.start((volume, device) => {
    guests.open(volume, device).catch((error: unknown) => log.error(reasonOf(error), { volume }))
  })
  await cluster.onEntered(async transport => {
    directory.doubt()
    const [nbdPort, controlPort] = [ports.nbd + index, ports.datapath + index]
    if (transport === null) {
      await peerNbd.listenTcp(host.address, nbdPort)
      await peers.listenTcp(host.address, controlPort)
    } else {
      await peerNbd.listenTls(host.address, nbdPort, transport)
      await peers.listenTls(host.address, controlPort, transport)
    }
    log.info('open to other hosts', { address: host.address, tls: transport !== null })
  })
  await control.listenUnix(datapathSocket(runDirectory, index))
  log.info('serving', { host: host.uuid, name: host.name, index, incarnation: identity.incarnation })

  shutDownOnSignal(log, async () => {
    // Nobody shall open what is being closed.
    void control.close()
    await node.stop(millis(STOP_MS))
    await cluster.close()
  })
}

/** Each guest's listener brings its own. */
const NO_EXPORTS = {
  open: async ({ name }: { readonly name: string }) =>
    Promise.reject(new XosanError('EXPORT_UNKNOWN', { name })),
  info: async (name: string) => Promise.reject(new XosanError('EXPORT_UNKNOWN', { name })),
  list: async () => Promise.resolve([]),
}

const logRpcEvent =
  (log: Log, server: string) =>
  ({ event, reason, method }: RpcServerEvent): void =>
    log.warn(event, { server, reason, method })

function logNbdEvent(log: Log, server: string, event: ServerEvent): void {
  const facts: LogFacts = { server }
  switch (event.kind) {
    case 'closed':
      log.info('NBD connection closed', {
        ...facts,
        connection: event.connection.id,
        listener: event.connection.listener,
        code: event.reason.code,
        reason: event.reason.detail,
      })
      return
    case 'request-failed':
      log.warn('NBD request failed', {
        ...facts,
        connection: event.connection.id,
        listener: event.connection.listener,
        reason: reasonOf(event.error),
      })
      return
    case 'accept-failed':
      log.error('no further NBD connections can be taken', {
        ...facts,
        listener: event.listener,
        reason: event.error.message,
      })
  }
}

const { values } = parseArgs({ options: { config: { type: 'string' }, index: { type: 'string' } } })
if (values.config === undefined || !/^[0-9]+$/.test(values.index ?? '')) {
  process.stderr.write('usage: xosan-datapath --config FILE --index NUMBER\n')
  process.exit(2)
}
try {
  const config = await readConfig(values.config)
  const log = createLog('xosan-datapath', config.logLevel)
  endThoughDisksHang()
  // A promise that nobody awaits may be a write that nobody followed: a new process knows how to begin anew.
  process.on('unhandledRejection', reason => leave(log, reason))
  process.on('uncaughtException', error => leave(log, error))
  await main(config, Number(values.index), log)
} catch (error) {
  process.stderr.write(`xosan-datapath: ${reasonOf(error)}\n`)
  process.exit(1)
}

function leave(log: Log, error: unknown): void {
  const stack = error instanceof Error ? error.stack : undefined
  log.error('an error that nobody handled; the process ends', { reason: reasonOf(error), stack })
  // The log is written through a stream; what is in it shall still get out.
  setImmediate(() => process.exit(1))
}
