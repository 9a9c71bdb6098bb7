/**
 * xosand, the control plane of one host: answers xapi's calls and keeps the metadata. It never moves guest bytes, so
 * it may be ended and started at any time. Read from top to bottom: configuration, ports, catalogue, cluster,
 * datapath, control plane, sockets.
 */
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { type z } from 'zod'
import { openCatalogue } from '../catalogue/open.ts'
import { hostKey, REVOKED_KEY } from '../cluster/keys.ts'
import { serialiseHostRecord, type HostRecord } from '../cluster/records.ts'
import { update } from '../cluster/update.ts'
import { reasonOf, XosanError } from '../core/errors.ts'
import { type Clock } from '../core/ports/clock.ts'
import { type Coordinator } from '../core/ports/coordinator.ts'
import { millis, type HostId } from '../core/units.ts'
import packageJson from '../package.json' with { type: 'json' }
import { controlApi, type ControlMethod } from '../rpc/control-api.ts'
import { peerApi, type PeerMethod } from '../rpc/peer-api.ts'
import { RpcServer, type RpcServerEvent } from '../rpc/server.ts'
import { type Json } from '../rpc/wire.ts'
import { TrustDirectory } from '../trust/trust-directory.ts'
import { type Caller } from '../trust/caller.ts'
import { type HostAgent } from '../volume/context.ts'
import { Deadline } from '../volume/deadline.ts'
import { ReferenceFile } from '../volume/reference-file.ts'
import { ClusterService } from './cluster/cluster-service.ts'
import { CertificateRenewal } from './cluster/certificate-renewal.ts'
import { trustPath } from './cluster/cluster-file.ts'
import { EtcdPart } from './cluster/etcd-part.ts'
import { finishLeaving } from './cluster/finish-leaving.ts'
import { HostCluster } from './cluster/host-cluster.ts'
import { createPool } from './cluster/pool.ts'
import { Revocation } from './cluster/revocation.ts'
import { createSuccession } from './cluster/create-succession.ts'
import { resumeSuccession } from './cluster/host-removal.ts'
import { SuccessionResumption } from './cluster/succession-resumption.ts'
import { readConfig, type Config } from './config.ts'
import { ControlPlane } from './control-plane.ts'
import { datapathClients, Datapaths } from './datapaths.ts'
import { connectOverTcp, RemoteHosts } from './hosts.ts'
import { lockInstance } from './instance-lock.ts'
import { createLog, type Log } from './log.ts'
import { createNodeClock } from './ports/node-clock.ts'
import { nodeRandom } from './ports/node-random.ts'
import { controlMethods } from './rpc/control-methods.ts'
import { shutDownOnSignal } from './shutdown.ts'
import { Stores } from './stores.ts'

/**
 * How long a start waits until the coordinator knows this host: an SR that is created right after takes in all hosts
 * that it knows. Longer, and a host whose coordinator is away would not answer even what it knows itself.
 */
const REGISTER_MS = 10_000

/** A host that does not answer in this time is taken to be down, until the next look. */
const PING_MS = 2000
/** The answer to the call that ends this program shall still get out. */
const ANSWER_FIRST_MS = millis(200)

async function main(config: Config, log: Log): Promise<void> {
  const { host, runDirectory, stateDirectory, timing } = config
  await mkdir(runDirectory, { recursive: true, mode: 0o700 })
  await mkdir(stateDirectory, { recursive: true, mode: 0o700 })
  lockInstance(join(stateDirectory, 'xosand.lock'))

  // Ports
  const clock = createNodeClock()
  const random = nodeRandom
  const boot = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()

  // The cluster that this host is in, if any
  await finishLeaving(config, log)
  const cluster = await HostCluster.open({
    config,
    clock,
    random,
    keepsMembers: true,
    log: (level, event, facts) => log[level](event, facts),
  })
  const { coordinator } = cluster

  // Catalogue
  const { catalogue, damaged } = openCatalogue(join(stateDirectory, 'catalogue.db'))
  if (damaged !== null) log.error('the catalogue was damaged and is filled anew', { ...damaged })

  // Cluster and datapath
  const datapaths = new Datapaths(datapathClients(runDirectory, config.datapaths, clock), clock)
  const stores = new Stores({
    host: host.uuid,
    stateDirectory,
    defaultPath: config.defaultPath,
    reload: () => datapaths.reload('store.reload'),
  })
  const holder = (): HostId | null => {
    const sr = cluster.file === null ? null : plane.metadata.sr(cluster.file.sr)
    return sr === null ? null : (sr.authority ?? sr.createdBy)
  }
  const nameOf = (id: HostId): string => plane.metadata.hosts().find(each => each.host === id)?.name ?? id
  const reloadCluster = async (): Promise<void> => {
    await cluster.reload()
    await datapaths.reload('cluster.reload')
  }
  let revocation: Revocation | null = null
  const renewal = new CertificateRenewal({
    config,
    cluster,
    coordinator,
    clock,
    random,
    log,
    holder: () => {
      const id = holder()
      return id === null ? null : agent(id)
    },
    reload: reloadCluster,
  })
  const remoteHosts = new RemoteHosts({
    records: () => plane.metadata.hosts(),
    connect: connectOverTcp(clock, id => cluster.dialer(id)),
  })
  const agent = (id: HostId): HostAgent => plane.context.agent(id)
  const etcdPart =
    config.coordinator.kind === 'etcd'
      ? new EtcdPart({
          config,
          cluster,
          isUp: async id =>
            agent(id)
              .peer('host.ping', {}, PING_MS)
              .then(
                () => true,
                () => false
              ),
          membersChanged: members => clusterService.membersChanged(members),
          clock,
          random,
          log,
        })
      : null
  const pool = createPool(config, clock)
  const clusterService: ClusterService = new ClusterService({
    config,
    version: packageJson.version,
    cluster,
    pool,
    member: etcdPart,
    clock,
    random,
    log,
    holdsData: sr => stores.holdsData(sr),
    reloadDatapaths: () => datapaths.reload('cluster.reload'),
    exitSoon: () => clock.after(ANSWER_FIRST_MS, () => process.kill(process.pid, 'SIGTERM')),
  })
  const succession = createSuccession({
    config,
    version: packageJson.version,
    cluster,
    directory: async () => TrustDirectory.open(trustPath(stateDirectory)),
    pool,
    clock,
    random,
    log,
    revocation: () => revocation,
    reload: reloadCluster,
    renewal,
    etcdPart,
    nameOf,
  })
  const resumption = new SuccessionResumption({
    self: host.uuid,
    clock,
    log,
    nameOf,
    record: () => (cluster.file === null ? null : plane.metadata.sr(cluster.file.sr)),
    resume: async () => {
      const { file } = cluster
      if (file === null) return
      const options = { self: host.uuid, sr: file.sr, clock, ...succession }
      await succession.removals.run('host', async () => resumeSuccession(options))
    },
  })

  // Control plane
  const plane: ControlPlane = new ControlPlane({
    host: host.uuid,
    version: packageJson.version,
    defaultPath: config.defaultPath,
    coordinatorCallMs: timing.coordinatorCallMs,
    janitorIntervalMs: millis(timing.janitorIntervalMs),
    clock,
    random,
    log,
    coordinator,
    catalogue,
    datapaths,
    stores,
    references: new ReferenceFile(join(runDirectory, 'references.json'), boot),
    cluster: clusterService,
    trust: {
      'trust.renew': async (params, caller) => renewal.renew(params, caller),
      'trust.retire': async (params, caller) => renewal.retire(params, caller),
      'trust.revoke': async ({ host: removed }) => {
        if (revocation === null) throw new XosanError('NOT_IN_CLUSTER', {})
        await revocation.revoke(removed)
        return null
      },
    },
    otherHost: id => remoteHosts.agent(id),
  })
  const { context, follower, janitor, usage } = plane

  // Sockets
  const warnings = () => [
    ...(follower.trouble === null ? [] : [`The coordinator is not followed: ${follower.trouble.message}`]),
    ...catalogue.records
      .problems('')
      .map(({ key, reason }) => `The record ${key} cannot be read: ${reason}.`),
    ...janitor.warnings,
    ...renewal.warnings,
    ...resumption.warnings,
  ]
  const control = new RpcServer({ log: logEvent(log, 'control') })
  const handlers = controlMethods({
    context,
    self: host,
    cluster,
    service: clusterService,
    succession,
    log,
    datapaths,
    usage,
    warnings,
  })
  for (const method of Object.keys(controlApi) as ControlMethod[]) {
    serve(control, method, controlApi[method].params, handlers[method])
  }
  const peer = new RpcServer({ log: logEvent(log, 'peer') })
  for (const method of Object.keys(peerApi) as PeerMethod[]) {
    serve(peer, method, peerApi[method].params, plane.peerMethods[method])
  }
  const controlSocket = join(runDirectory, 'control.sock')
  // On the loopback, whoever finds a host up may make an SR of all that are registered. Elsewhere hosts join one by one,
  // and an administrator wants answers also while the coordinator is away.
  if (config.peers === 'tls') await control.listenUnix(controlSocket)
  await cluster.onEntered(async transport => {
    follower.start()
    if (transport !== null) {
      const list = (revocation = new Revocation({
        directory: await TrustDirectory.open(trustPath(stateDirectory)),
        host: host.uuid,
        members: cluster.members,
        isJoining: id => clusterService.isJoining(id),
        coordinator,
        clock,
        random,
        log,
        changed: () => {
          reloadCluster().catch((error: unknown) => log.warn(reasonOf(error)))
        },
      }))
      follower.subscribe(({ keys }) => {
        if (keys.includes(REVOKED_KEY)) list.look()
      })
      list.look()
    }
    await etcdPart?.begin()
    await register(config, coordinator, { clock, log })
    janitor.start()
    await renewal.begin()
    resumption.start()
    if (transport === null) await peer.listenTcp(host.address, config.ports.peer)
    else await peer.listenTls(host.address, config.ports.peer, transport)
    log.info('open to other hosts', { address: host.address, tls: transport !== null })
  })
  if (config.peers === 'loopback') await control.listenUnix(controlSocket)
  log.info('serving', { host: host.uuid, name: host.name, version: packageJson.version })

  shutDownOnSignal(log, async () => {
    await Promise.all([control.close(), peer.close()])
    await janitor.close()
    renewal.close()
    resumption.close()
    revocation?.close()
    await etcdPart?.close()
    await follower.close()
    remoteHosts.close()
    await cluster.close()
    datapaths.close()
    catalogue.close()
  })
}

/** A method's schema and handler belong together by the name that both were looked up by. */
function serve(
  server: RpcServer,
  name: string,
  schema: z.ZodType,
  handler: (params: never, caller: Caller) => Promise<unknown>
): void {
  server.register(name, schema, async (params, caller) => (await handler(params as never, caller)) as Json)
}

const logEvent =
  (log: Log, server: string) =>
  ({ event, reason, method }: RpcServerEvent): void =>
    log.warn(event, { server, reason, method })

/** Tells the other hosts where this one is; goes on trying in the background when that takes too long. */
async function register(
  config: Config,
  coordinator: Coordinator,
  { clock, log }: { clock: Clock; log: Log }
): Promise<void> {
  const { host, ports, datapaths } = config
  const indexes = Array.from({ length: datapaths }, (_, index) => index)
  const record: HostRecord = {
    version: 1,
    host: host.uuid,
    name: host.name,
    address: host.address,
    ports: {
      peer: ports.peer,
      datapath: indexes.map(index => ports.datapath + index),
      nbd: indexes.map(index => ports.nbd + index),
      ...(config.coordinator.kind === 'etcd'
        ? { etcd: { client: ports.etcdClient, peer: ports.etcdPeer } }
        : {}),
    },
    datapaths,
  }
  const key = hostKey(host.uuid)
  const value = serialiseHostRecord(key, record)
  const deadline = new Deadline(clock, 'registering this host', REGISTER_MS)
  try {
    await update(
      { coordinator, clock, random: nodeRandom },
      key,
      entry => (entry?.value === value ? 'unchanged' : { value }),
      deadline.at
    )
  } catch (error) {
    log.warn('this host is not known to the coordinator yet', { reason: reasonOf(error) })
    clock.after(millis(1000), () => void register(config, coordinator, { clock, log }))
  }
}

const { values } = parseArgs({ options: { config: { type: 'string' } } })
if (values.config === undefined) {
  process.stderr.write('usage: xosand --config FILE\n')
  process.exit(2)
}
try {
  const config = await readConfig(values.config)
  await main(config, createLog('xosand', config.logLevel))
} catch (error) {
  process.stderr.write(`xosand: ${reasonOf(error)}\n`)
  process.exit(1)
}
