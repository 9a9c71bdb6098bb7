/**
 * Another host takes the place of the one that holds the authority, because that one is removed
 * (docs/decisions/trust-succession.md). Every step can be done twice, here or on another host.
 */
import { hostKey, memberKey, MEMBERS_PREFIX, parseKey } from '../../cluster/keys.ts'
import { parseMemberRecord } from '../../cluster/records.ts'
import { hasCode, reasonOf, XosanError } from '../../core/errors.ts'
import { type Clock } from '../../core/ports/clock.ts'
import { type Coordinator } from '../../core/ports/coordinator.ts'
import { type HostId, type SrId } from '../../core/units.ts'
import { type ControlParams, type ControlResult } from '../../rpc/control-api.ts'
import { type Member } from '../../trust/members.ts'
import { createSuccessor } from '../../trust/successor.ts'
import { type TrustDirectory } from '../../trust/trust-directory.ts'
import { type Deadline } from '../../volume/deadline.ts'
import { type Log } from '../log.ts'
import { patiently } from './patiently.ts'
import { type Pool, type PoolMethod } from './pool.ts'
import { requireSameTime } from './same-time.ts'
import { type SuccessionRecord } from './succession-record.ts'
import { type SuccessionSteps } from './succession-steps.ts'

interface SuccessionOptions {
  readonly host: { readonly uuid: HostId; readonly address: string }
  readonly version: string
  readonly pool: Pick<Pool, 'call' | 'hosts'>
  readonly coordinator: Coordinator
  readonly clock: Clock
  readonly record: SuccessionRecord
  /** What each host does. */
  readonly steps: SuccessionSteps
  readonly directory: () => Promise<TrustDirectory>
  /** Adds a certificate to the record of a member. */
  readonly addCertificate: (host: HostId, certificatePem: string, inUse: string) => Promise<void>
  /** Publishes and saves the list of revoked certificates. @throws what keeps it from that */
  readonly revocationsPublished: () => Promise<void>
  /** Takes hosts from the list of members. */
  readonly removeMembers: (hosts: readonly HostId[], deadline: Deadline) => Promise<void>
  /** As an administrator knows it. */
  readonly nameOf: (host: HostId) => string
  readonly log: Log
}

const CALL_MS = 10_000
/** With etcd's restart. */
const TRUST_MS = 150_000
/** How often somebody may join meanwhile, before it is somebody's mistake. */
const ROUNDS_MAX = 5

export class Succession {
  readonly #options: SuccessionOptions

  constructor(options: SuccessionOptions) {
    this.#options = options
  }

  /**
   * Makes this host the one that holds the authority, and removes hosts from the members: the one that held it, and others
   * without which it could not be done.
   *
   * @param removed the one that holds it; once that was begun, any
   * @throws XosanError SUCCESSION_WAITS when somebody else does not answer; CLOCKS_DIFFER; SUCCESSION_ELSEWHERE and NOT_IN_CLUSTER as
   *   `SuccessionRecord.claim`. All of these before anything was changed, if nothing was begun. What a host says on the
   *   way: done again, it goes on
   */
  async carryOut(sr: SrId, removed: HostId, deadline: Deadline): Promise<void> {
    const { host, record, directory, revocationsPublished, removeMembers, log } = this.#options
    const leaving = await this.#begin(sr, removed, deadline)
    await removeMembers([...leaving], deadline)
    log.info('this host succeeds the one that held the authority', { removed: [...leaving].join(', ') })
    await revocationsPublished().catch((error: unknown) => {
      // Whoever was at this before and is lost may have left a list that this host cannot check yet, or one of the old
      // authority where the new one is trusted already. What this host has of its own counts then.
      if (!hasCode(error, 'INVALID_ARGUMENT')) throw error
      log.warn('the list of revoked certificates is not taken over', { reason: reasonOf(error) })
    })
    const authority = await createSuccessor(await directory(), new Date())
    // An earlier attempt may have certified them.
    for (const each of leaving) await authority.revoke(each, new Date())
    const done = new Set<HostId>()
    for (let round = 0; round < ROUNDS_MAX; round++) {
      const hosts = (await this.#members(leaving, deadline)).map(member => member.host)
      // This host first, and last: until it trusts the new authority it can issue nothing.
      const left = [host.uuid, ...hosts.filter(each => each !== host.uuid)].filter(each => !done.has(each))
      if (left.length === 0) {
        await this.#finish(sr, leaving, deadline)
        return
      }
      const trust = async (alone: boolean): Promise<void> => {
        await record.requireClaim(sr, host.uuid, deadline)
        // One after the other: each may have to restart its member of etcd.
        for (const each of alone ? [...left].reverse() : left) {
          const members = await this.#members(leaving, deadline)
          const params = { sr, by: host.uuid, authorityPem: authority.certificatePem, alone, members }
          if (each === host.uuid) await this.#options.steps.trust(params)
          else await this.#call(each, 'cluster.trust', params, deadline, TRUST_MS)
        }
      }
      await trust(false)
      await record.hold(sr, host.uuid, deadline)
      await this.#certify(sr, left, leaving, deadline)
      await revocationsPublished()
      await trust(true)
      for (const each of left) done.add(each)
    }
    throw this.#waits(host.uuid, 'other hosts go on joining')
  }

  /** @returns all that are removed, the given one among them */
  async #begin(sr: SrId, removed: HostId, deadline: Deadline): Promise<ReadonlySet<HostId>> {
    const { host, record, removeMembers } = this.#options
    const claim = async () => record.claim(sr, removed, host.uuid, deadline)
    if ((await record.read(sr, deadline)).succession === undefined) {
      await this.#check(sr, new Set([removed]), deadline)
      return claim()
    }
    // What was begun has to end, so this comes first: of two hosts that are lost each would have to wait for the other.
    const leaving = await claim()
    await removeMembers([...leaving], deadline)
    await this.#check(sr, leaving, deadline)
    return leaving
  }

  /** All is done: the records of those who were removed go once more, which they could have written until now. */
  async #finish(sr: SrId, leaving: ReadonlySet<HostId>, deadline: Deadline): Promise<void> {
    const { host, record, log } = this.#options
    const records = [...leaving].flatMap(each => [memberKey(each), hostKey(each)])
    await record.release(sr, host.uuid, records, deadline)
    log.info('this host holds the authority')
  }

  /** Whether this host is a member, and every other one answers and can do what it will be asked. */
  async #check(sr: SrId, leaving: ReadonlySet<HostId>, deadline: Deadline): Promise<void> {
    const { host, version } = this.#options
    const members = await this.#members(leaving, deadline)
    if (!members.some(member => member.host === host.uuid)) throw new XosanError('NOT_IN_CLUSTER', {})
    await Promise.all(
      members.map(async member => {
        if (member.host === host.uuid) return
        const found = await this.#call(member.host, 'cluster.check', {}, deadline, CALL_MS).catch(
          (error: unknown) => {
            throw hasCode(error, 'SUCCESSION_WAITS') ? error : this.#waits(member.host, reasonOf(error))
          }
        )
        if (found.sr !== sr) throw this.#waits(member.host, 'it is not in the cluster of this SR')
        if (found.version !== version) throw this.#waits(member.host, `it has version ${found.version}`)
        requireSameTime(this.#options.nameOf(member.host), found.timeOfDay)
      })
    )
  }

  /**
   * Gives every host a certificate of the new authority. By way of the pool: a call that comes with a certificate of the old
   * one may come from whoever has that key.
   */
  async #certify(
    sr: SrId,
    hosts: readonly HostId[],
    leaving: ReadonlySet<HostId>,
    deadline: Deadline
  ): Promise<void> {
    const { host, steps, directory, addCertificate, pool } = this.#options
    const authority = await (await directory()).authority()
    if (authority === null) throw new XosanError('AUTHORITY_ELSEWHERE', { host: host.uuid })
    const addresses = new Map((await deadline.race(pool.hosts())).map(({ uuid, address }) => [uuid, address]))
    const issued = new Map<HostId, string>()
    const before = new Map((await this.#members(leaving, deadline)).map(member => [member.host, member]))
    for (const each of hosts) {
      const own = each === host.uuid
      const listed = before.get(each)?.certificates ?? []
      const request: ControlResult<'cluster.request'> = own
        ? await steps.request(sr, listed)
        : await this.#call(each, 'cluster.request', { sr, listed }, deadline, CALL_MS)
      if (request === null) continue
      const address = own ? host.address : addresses.get(each)
      const certificatePem = await authority.issue({
        csrPem: request.csrPem,
        host: each,
        addresses: address === undefined ? [] : [address],
        now: new Date(),
      })
      await addCertificate(each, certificatePem, request.inUse)
      issued.set(each, certificatePem)
    }
    // All are listed before any is shown.
    const members = await this.#members(leaving, deadline)
    for (const [each, certificatePem] of issued) {
      const params = { sr, certificatePem, members }
      if (each === host.uuid) await steps.certify(params)
      else await this.#call(each, 'cluster.certify', params, deadline, CALL_MS)
    }
  }

  async #call<M extends PoolMethod>(
    host: HostId,
    method: M,
    params: ControlParams<M>,
    deadline: Deadline,
    withinMs: number
  ): Promise<ControlResult<M>> {
    const timeMs = deadline.remainingMs(withinMs)
    try {
      return await this.#options.pool.call(host, method, params, timeMs)
    } catch (error) {
      // Out of time says what took too long, and not where.
      if (hasCode(error, 'DEADLINE_EXCEEDED')) throw this.#waits(host, reasonOf(error))
      throw error
    }
  }

  async #members(
    leaving: ReadonlySet<HostId>,
    deadline: Deadline
  ): Promise<(Member & { certificates: string[] })[]> {
    const { coordinator, clock } = this.#options
    const { entries } = await patiently(clock, deadline, async () => coordinator.list(MEMBERS_PREFIX))
    return entries.flatMap(({ key, value }) => {
      const named = parseKey(key)
      // Nobody's, as every host takes it.
      if (named.kind !== 'member' || leaving.has(named.host)) return []
      const { host, admission, certificates } = this.#readable(named.host, key, value)
      return [{ host, admission, certificates: [...certificates] }]
    })
  }

  /** @throws XosanError SUCCESSION_WAITS, so that an administrator can remove the host by name or UUID, if it is none */
  #readable(host: HostId, key: string, value: string): Member {
    try {
      return parseMemberRecord(key, value)
    } catch (error) {
      throw this.#waits(host, reasonOf(error))
    }
  }

  #waits(host: HostId, reason: string): XosanError {
    return new XosanError('SUCCESSION_WAITS', { host: this.#options.nameOf(host), reason })
  }
}
