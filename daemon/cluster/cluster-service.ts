/**
 * How a cluster comes to be and ends, on the side of each host (docs/decisions/cluster-forms-with-its-sr.md):
 *
 *   form    on the host that runs SR.create: authority, keys, the first member of etcd, the first records; then every
 *           other host of the pool joins, with a ticket that the pool carries to it
 *   join    keys by the ticket, then `cluster.json`; from there on the host speaks to the others
 *   leave   a note in `cluster.json`, and the programs end; what is left is removed at the next start
 *
 * `cluster.json` is the first thing to be written and the last to be removed. A host that is found forming or joining
 * when it starts was killed on the way, and leaves.
 */
import { randomUUID } from 'node:crypto'
import { HOSTS_PREFIX, memberKey, MEMBERS_PREFIX, srKey } from '../../cluster/keys.ts'
import { parseMemberRecord, parseSrRecord, serialiseMemberRecord } from '../../cluster/records.ts'
import { transactUntilKnown } from '../../cluster/update.ts'
import { hasCode, reasonOf, XosanError } from '../../core/errors.ts'
import { type Clock, pause } from '../../core/ports/clock.ts'
import { type Random } from '../../core/ports/random.ts'
import { type HostId, millis, type SrId } from '../../core/units.ts'
import { type ControlParams, type ControlResult } from '../../rpc/control-api.ts'
import { createAuthority, createHostKey } from '../../trust/authority.ts'
import { CertificateAuthority } from '../../trust/certificate-authority.ts'
import { fingerprintOf } from '../../trust/certificate.ts'
import { enrol } from '../../trust/enrol.ts'
import { type Member } from '../../trust/members.ts'
import { parseTicket } from '../../trust/ticket.ts'
import { TrustDirectory } from '../../trust/trust-directory.ts'
import { type ClusterFormation } from '../../volume/context.ts'
import { Deadline } from '../../volume/deadline.ts'
import { KeyedQueue } from '../../volume/keyed-queue.ts'
import { type Config } from '../config.ts'
import { type Log } from '../log.ts'
import {
  type ClusterEtcdMember,
  type ClusterFile,
  readClusterFile,
  trustPath,
  writeClusterFile,
} from './cluster-file.ts'
import { EnrolmentDesk } from './enrolment-desk.ts'
import { type HostCluster } from './host-cluster.ts'
import { type Pool, type PoolHost } from './pool.ts'
import { requireSameTime } from './same-time.ts'

/** This host's part in the coordinator; absent where the coordinator is a file. */
export interface CoordinatorMember {
  /** Starts the first member of a cluster that forms, and resolves when it serves. */
  startAlone(file: ClusterFile, deadlineMs: number): Promise<void>
  /** Resolves when there are as many members as there shall be. @throws XosanError DEADLINE_EXCEEDED */
  untilComplete(deadlineMs: number): Promise<void>
}

interface ClusterServiceOptions {
  readonly config: Config
  readonly version: string
  readonly cluster: HostCluster
  readonly pool: Pool
  readonly member: CoordinatorMember | null
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  /** Whether this host has replicas of an SR, or may have some. */
  readonly holdsData: (sr: SrId) => Promise<boolean>
  /** Makes the datapath processes look at the cluster's files again. */
  readonly reloadDatapaths: () => Promise<void>
  /** Ends this program, in order, once the call under way has been answered. */
  readonly exitSoon: () => void
}

/** What one host may take to join: keys, a few synced files, and its first words to the coordinator. */
const JOIN_MS = 30_000
const CHECK_MS = 5_000
/** So long a host may be silent before it counts as down. */
const RESTART_MS = 5_000
/** A host that leaves starts anew: seconds, on a busy machine. */
const LEAVE_MS = 15_000
const LEAVE_POLL_MS = millis(200)

const FIRST_GENERATION = 1

export class ClusterService implements ClusterFormation {
  readonly #options: ClusterServiceOptions
  /** Hosts that are being let in, or were and are not on this host's list of members yet. */
  readonly #joining = new Map<HostId, 'invited' | 'admitted'>()
  readonly #desk: EnrolmentDesk
  readonly #queue = new KeyedQueue<'cluster' | 'file'>()

  constructor(options: ClusterServiceOptions) {
    this.#options = options
    const { config, clock, log } = options
    this.#desk = new EnrolmentDesk({ config, clock, log, admit: async member => this.#admit(member) })
    const { members } = options.cluster
    members.onChange(() => {
      for (const [host, state] of this.#joining) {
        if (state === 'admitted' && members.get(host) !== undefined) this.#joining.delete(host)
      }
    })
  }

  /** Whether a host may have certificates although it is no member: it is about to be one. */
  isJoining(host: HostId): boolean {
    return this.#joining.has(host)
  }

  get entered(): boolean {
    return this.#options.cluster.entered
  }

  serves(sr: SrId): boolean {
    const { config, cluster } = this.#options
    return config.peers === 'loopback' || cluster.file?.sr === sr
  }

  async form(
    sr: SrId,
    deadline: Deadline
  ): Promise<{ undo(): Promise<void>; complete(): Promise<void> } | null> {
    if (this.#options.config.peers === 'loopback') return null
    return this.#queue.run('cluster', async () => this.#form(sr, deadline))
  }

  async dissolve(sr: SrId): Promise<void> {
    const { config, cluster } = this.#options
    if (config.peers === 'loopback' || cluster.file?.sr !== sr) return
    await this.#queue.run('cluster', async () => this.#dissolve(sr))
  }

  /** Whether this host could join a cluster now. */
  async check() {
    const { config, version } = this.#options
    const sr = (await this.#current())?.sr ?? null
    const holdsData = sr !== null && (await this.#options.holdsData(sr))
    return { version, sr, holdsData, timeOfDay: Date.now(), witness: config.datapaths === 0 }
  }

  /** Joins the cluster that a ticket is for. @throws XosanError HOST_IN_ANOTHER_SR, and as `enrol` */
  async join(params: ControlParams<'cluster.join'>): Promise<void> {
    await this.#queue.run('cluster', async () => this.#join(params))
  }

  /** Leaves a cluster. @throws XosanError HOST_IN_ANOTHER_SR when it is not the one that the host is in */
  async leave(sr: SrId): Promise<void> {
    const { config, exitSoon, reloadDatapaths, log } = this.#options
    const file = await this.#current()
    if (file === null) return
    if (file.sr !== sr) throw this.#inAnother(config.host.name, file.sr)
    // Not in turn with joining, which may be waiting for something that will not come any more.
    await this.#change(current => ({ ...current, phase: 'leaving' }))
    log.info('this host leaves its cluster', { sr })
    await reloadDatapaths().catch((error: unknown) =>
      log.warn('a datapath process was not told that the host leaves', { reason: reasonOf(error) })
    )
    exitSoon()
  }

  async #form(sr: SrId, deadline: Deadline) {
    const { config, pool, member, log } = this.#options
    const current = await this.#current()
    if (current !== null) {
      if (current.sr === sr && current.phase === 'joined') return null
      throw this.#inAnother(config.host.name, current.sr)
    }
    const others = (await pool.hosts()).filter(({ uuid }) => uuid !== config.host.uuid)
    // All are looked at before any is changed: one that holds another SR's data ends the attempt.
    const clusters = await Promise.all(others.map(async other => this.#examine(other, sr, deadline)))
    await Promise.all(others.map(async (other, i) => this.#free(other, clusters[i]!, deadline)))
    log.info('a cluster forms', { sr, hosts: others.length + 1 })
    const undo = async (): Promise<void> => {
      await Promise.all(
        others.map(async ({ uuid, name }) =>
          pool.call(uuid, 'cluster.leave', { sr }, LEAVE_MS).catch((error: unknown) => {
            log.warn('a host could not be told to leave again', { host: name, reason: reasonOf(error) })
          })
        )
      )
      await this.leave(sr)
    }
    try {
      await this.#begin(sr, deadline)
      await this.#inviteAll(others, deadline)
      await this.#enter()
      return { undo, complete: async () => member?.untilComplete(deadline.remainingMs()) }
    } catch (error) {
      await undo()
      throw error
    }
  }

  /** @returns the cluster that the host has to leave first, if any */
  async #examine({ uuid, name }: PoolHost, sr: SrId, deadline: Deadline): Promise<SrId | null> {
    const { version } = this.#options
    const found = await this.#check(uuid, deadline)
    if (found.version !== version) {
      throw new XosanError('VERSION_DIFFERENT', { host: name, version: found.version, own: version })
    }
    requireSameTime(name, found.timeOfDay)
    if (found.sr !== null && found.sr !== sr && found.holdsData) throw this.#inAnother(name, found.sr)
    return found.sr
  }

  /** A host that has just been told to leave starts anew, and is there again in a moment. */
  async #check(host: HostId, deadline: Deadline): Promise<ControlResult<'cluster.check'>> {
    const { pool, clock } = this.#options
    const givenUpAt = clock.now() + RESTART_MS
    for (;;) {
      try {
        return await pool.call(host, 'cluster.check', {}, deadline.remainingMs(CHECK_MS))
      } catch (error) {
        if (!hasCode(error, 'PEER_UNREACHABLE') || clock.now() > givenUpAt) throw error
      }
      await pause(clock, LEAVE_POLL_MS)
    }
  }

  /**
   * Takes a host out of a cluster that never came to be: it was away when that was taken back. It has no data of it,
   * and neither has any host that could be asked.
   */
  async #free({ uuid, name }: PoolHost, sr: SrId | null, deadline: Deadline): Promise<void> {
    if (sr === null) return
    const { pool, clock, log } = this.#options
    log.warn('a host is left over from a cluster that did not come to be; it leaves', { host: name, sr })
    await pool.call(uuid, 'cluster.leave', { sr }, deadline.remainingMs(LEAVE_MS))
    for (let left: SrId | null = sr; left !== null;) {
      await pause(clock, LEAVE_POLL_MS)
      const checkMs = deadline.remainingMs(CHECK_MS)
      // It starts anew, and does not answer meanwhile.
      left = await pool.call(uuid, 'cluster.check', {}, checkMs).then(
        found => found.sr,
        () => left
      )
    }
  }

  /** Makes what the first host has alone: the authority, its own keys, the coordinator, the first record. */
  async #begin(sr: SrId, deadline: Deadline): Promise<void> {
    const { config, cluster, member } = this.#options
    const { host, ports, stateDirectory } = config
    const scope = { sr, generation: FIRST_GENERATION }
    const file: ClusterFile = {
      version: 1,
      phase: 'forming',
      ...scope,
      coordinator:
        config.coordinator.kind === 'etcd'
          ? { kind: 'etcd', members: [{ host: host.uuid, address: host.address, port: ports.etcdClient }] }
          : config.coordinator,
    }
    await writeClusterFile(stateDirectory, file)
    const directory = await TrustDirectory.open(trustPath(stateDirectory))
    const now = new Date()
    const authority = await createAuthority(scope, now)
    const { keyPem, csrPem } = await createHostKey()
    const issuing = new CertificateAuthority(authority, directory)
    const request = { csrPem, host: host.uuid, addresses: [host.address], now }
    const certificatePem = await issuing.issue(request)
    const self: Member = {
      host: host.uuid,
      admission: randomUUID(),
      certificates: [fingerprintOf(certificatePem)],
    }
    await directory.saveMembers([self])
    await directory.saveCredentials({ keyPem, certificatePem, authoritiesPem: authority.certificatePem })
    await directory.saveAuthority(authority)
    await directory.saveRevocationList(await issuing.revocationList(now))
    await cluster.prepare(file)
    await member?.startAlone(file, deadline.remainingMs())
    await this.#recordAlone(self, deadline)
    await cluster.enter(file)
  }

  /** A coordinator that is a file may have served a cluster before; those hosts are nobody here. */
  async #recordAlone(self: Member, deadline: Deadline): Promise<void> {
    const { cluster, clock, random } = this.#options
    const { coordinator } = cluster
    const old = await Promise.all(
      [MEMBERS_PREFIX, HOSTS_PREFIX].map(async prefix => deadline.race(coordinator.list(prefix)))
    )
    const key = memberKey(self.host)
    const removals = old.flatMap(({ entries }) => entries).filter(entry => entry.key !== key)
    await transactUntilKnown(
      { coordinator, clock, random },
      [],
      [
        ...removals.map(entry => ({ key: entry.key, value: null })),
        { key, value: serialiseMemberRecord(key, { version: 1, ...self }) },
      ],
      deadline.at
    )
  }

  /** Lets hosts in, all at the same time. */
  async #inviteAll(hosts: readonly PoolHost[], deadline: Deadline): Promise<void> {
    const { pool, log } = this.#options
    try {
      await Promise.all(
        hosts.map(async ({ uuid, name, address }) => {
          const invitation = await this.invite(uuid, address)
          await pool.call(uuid, 'cluster.join', invitation, deadline.remainingMs(JOIN_MS))
          log.info('a host has joined', { host: name })
        })
      )
    } finally {
      await this.#desk.close()
      // What was issued and not used is revoked from here on.
      for (const { uuid } of hosts) if (this.#joining.get(uuid) === 'invited') this.#joining.delete(uuid)
    }
  }

  /**
   * Makes what another host needs to join.
   * @param address IP address of that host
   * @throws XosanError NOT_IN_CLUSTER, AUTHORITY_ELSEWHERE
   */
  async invite(host: HostId, address: string): Promise<ControlResult<'cluster.invite'>> {
    const { config, log } = this.#options
    const file = await this.#current()
    if (file === null) throw new XosanError('NOT_IN_CLUSTER', {})
    await this.#requireHolder(file.sr)
    const directory = await TrustDirectory.open(trustPath(config.stateDirectory))
    const ticket = await this.#desk.ticket(directory, host, address)
    this.#joining.set(host, 'invited')
    log.info('a host may join', { host, address })
    const { coordinator } = file
    return { ticket, etcdMembers: coordinator.kind === 'etcd' ? [...coordinator.members] : [] }
  }

  /**
   * One that was succeeded while it was away has its key still, and whoever it lets in is let in by nobody else. And while
   * the record says that hosts are being removed nobody is let in, be it one of these: whoever finishes removes it again,
   * with the replicas that it has got by then.
   */
  async #requireHolder(sr: SrId): Promise<void> {
    const { config, cluster, clock } = this.#options
    const deadline = new Deadline(clock, 'looking who holds the authority', CHECK_MS)
    const { entry } = await deadline.race(cluster.coordinator.read(srKey(sr)))
    // There is none yet while the cluster forms.
    if (entry === null) return
    const { createdBy, authority = createdBy, succession } = parseSrRecord(entry.key, entry.value)
    if (succession !== undefined) {
      throw new XosanError('SUCCESSION_WAITS', {
        host: config.host.name,
        reason: 'nobody joins until it is done',
      })
    }
    if (authority !== config.host.uuid)
      throw new XosanError('AUTHORITY_ELSEWHERE', { host: config.host.name })
  }

  async joinExisting(sr: SrId, deadline: Deadline): Promise<void> {
    const { config, pool } = this.#options
    const { uuid, address } = config.host
    let reason: unknown = new XosanError('SR_NOT_FOUND', { sr })
    for (const host of await pool.hosts()) {
      if (host.uuid === uuid) continue
      try {
        const checked = await pool.call(host.uuid, 'cluster.check', {}, deadline.remainingMs(CHECK_MS))
        if (checked.sr !== sr) continue
        const asked = { host: uuid, address }
        const invitation = await pool.call(host.uuid, 'cluster.invite', asked, deadline.remainingMs(CHECK_MS))
        await this.join(invitation)
        return
      } catch (error) {
        reason = error
      }
    }
    throw reason
  }

  /** Puts a host on the list of members. @returns the list */
  async #admit(member: Member): Promise<readonly Member[]> {
    const { cluster, clock, random } = this.#options
    const deadline = new Deadline(clock, 'letting a host in', JOIN_MS)
    const { coordinator } = cluster
    const key = memberKey(member.host)
    const value = serialiseMemberRecord(key, { version: 1, ...member })
    await transactUntilKnown({ coordinator, clock, random }, [], [{ key, value }], deadline.at)
    if (cluster.members.get(member.host) === undefined) this.#joining.set(member.host, 'admitted')
    else this.#joining.delete(member.host)
    const { entries } = await deadline.race(coordinator.list(MEMBERS_PREFIX))
    return entries.map(entry => {
      const { host, admission, certificates } = parseMemberRecord(entry.key, entry.value)
      return { host, admission, certificates }
    })
  }

  async #join({ ticket: text, etcdMembers }: ControlParams<'cluster.join'>): Promise<void> {
    const { config, clock } = this.#options
    const ticket = parseTicket(text)
    const { sr, generation } = ticket
    const current = await this.#current()
    if (current !== null) {
      if (current.sr === sr && current.phase === 'joined') return
      throw this.#inAnother(config.host.name, current.sr)
    }
    if (ticket.host !== config.host.uuid) {
      throw new XosanError('INVALID_ARGUMENT', { what: 'the ticket', reason: 'it is for another host' })
    }
    const file: ClusterFile = {
      version: 1,
      phase: 'joining',
      sr,
      generation,
      coordinator: coordinatorToJoin(config, etcdMembers),
    }
    await writeClusterFile(config.stateDirectory, file)
    try {
      const { credentials, members } = await enrol(ticket, { clock, deadlineMs: JOIN_MS, now: new Date() })
      const directory = await TrustDirectory.open(trustPath(config.stateDirectory))
      await directory.saveMembers(members)
      await directory.saveCredentials(credentials)
      await this.#enter()
    } catch (error) {
      await this.leave(sr)
      throw error
    }
  }

  /** From here on this host is a member, also after a start. */
  async #enter(): Promise<void> {
    const { cluster, reloadDatapaths } = this.#options
    const file = await this.#change(current => {
      // Told to leave while it was joining: that is the later word.
      if (current.phase === 'leaving') throw new XosanError('NOT_IN_CLUSTER', {})
      return { ...current, phase: 'joined' }
    })
    if (file !== null) await cluster.enter(file)
    await reloadDatapaths()
  }

  /** Takes note of where the coordinator is now, for all programs of this host. */
  async membersChanged(members: readonly ClusterEtcdMember[]): Promise<void> {
    const { cluster, reloadDatapaths } = this.#options
    const file = await this.#change(current => ({
      ...current,
      coordinator: { kind: 'etcd', members: [...members] },
    }))
    if (file === null || file.phase === 'leaving') return
    await cluster.prepare(file)
    await reloadDatapaths()
  }

  /** @returns the file as it is then; null when there is none */
  async #change(change: (current: ClusterFile) => ClusterFile): Promise<ClusterFile | null> {
    return this.#queue.run('file', async () => {
      const current = await this.#current()
      if (current === null) return null
      const changed = change(current)
      await writeClusterFile(this.#options.config.stateDirectory, changed)
      return changed
    })
  }

  async #dissolve(sr: SrId): Promise<void> {
    const { config, pool, log } = this.#options
    const others = (await pool.hosts()).filter(({ uuid }) => uuid !== config.host.uuid)
    await Promise.all(
      others.map(async ({ uuid, name }) => {
        try {
          await pool.call(uuid, 'cluster.leave', { sr }, LEAVE_MS)
        } catch (error) {
          if (!hasCode(error, 'HOST_IN_ANOTHER_SR')) {
            log.warn('a host could not be told that its SR is no more', {
              host: name,
              reason: reasonOf(error),
            })
          }
        }
      })
    )
    await this.leave(sr)
  }

  async #current(): Promise<ClusterFile | null> {
    return readClusterFile(this.#options.config.stateDirectory)
  }

  #inAnother(host: string, sr: SrId): XosanError {
    return new XosanError('HOST_IN_ANOTHER_SR', { host, sr })
  }
}

function coordinatorToJoin(
  { coordinator }: Config,
  etcdMembers: ControlParams<'cluster.join'>['etcdMembers']
): ClusterFile['coordinator'] {
  if (coordinator.kind === 'embedded') return coordinator
  return {
    kind: 'etcd',
    members: etcdMembers.map(({ host, address, port }) => ({ host: host as HostId, address, port })),
  }
}
