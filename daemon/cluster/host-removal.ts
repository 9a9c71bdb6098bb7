import { hostKey, memberKey } from '../../cluster/keys.ts'
import { type HostRecord } from '../../cluster/records.ts'
import { transactUntilKnown } from '../../cluster/update.ts'
import { reasonOf, XosanError } from '../../core/errors.ts'
import { type Clock } from '../../core/ports/clock.ts'
import { type Coordinator } from '../../core/ports/coordinator.ts'
import { type Random } from '../../core/ports/random.ts'
import { type HostId, type SrId } from '../../core/units.ts'
import { type HostAgent } from '../../volume/context.ts'
import { Deadline } from '../../volume/deadline.ts'
import { type Log } from '../log.ts'
import { type SuccessionRecord } from './succession-record.ts'
import { type Succession } from './succession.ts'

interface RemovalOptions {
  readonly self: HostId
  readonly sr: SrId
  readonly coordinator: Coordinator
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly hosts: readonly Pick<HostRecord, 'host' | 'name'>[]
  readonly agent: (host: HostId) => HostAgent
  readonly record: Pick<SuccessionRecord, 'read'>
  readonly succession: Pick<Succession, 'carryOut' | 'finish'>
}

const REMOVE_MS = 30_000
const REVOKE_MS = 10_000
/** With two restarts of each member of etcd. */
const SUCCEED_MS = 600_000

interface Removed {
  readonly host: HostId
  /** Nobody trusts its certificates any more; else etcd does, until the host of the authority is back. */
  readonly revoked: boolean
  /** Who holds the authority from now on, when the removed host did. */
  readonly successor: HostId | null
}

/**
 * Ends the membership of a host: its certificates are worthless from then on, and its connections end. When it holds the
 * authority, this host takes its place; so it does first when that was begun for another host and broken off.
 *
 * @param wanted name or UUID
 * @throws XosanError INVALID_ARGUMENT, SR_NOT_FOUND, SUCCESSION_WAITS; as `transactUntilKnown`; as `Succession.carryOut`,
 *   after which the same call goes on
 */
export async function removeHost(wanted: string, options: RemovalOptions): Promise<Removed> {
  const { self, sr, clock, log, hosts, record, succession } = options
  const looking = new Deadline(clock, 'looking who holds the authority', REMOVE_MS)
  // As the coordinator says now: to remove the holder in the ordinary way would leave nobody who can be succeeded.
  const { createdBy, authority = createdBy, succession: begun } = await record.read(sr, looking)
  const { host, name } = find(wanted, self, [
    ...hosts,
    // Their records may be gone already.
    ...[authority, begun?.removed].flatMap(id => (id === undefined ? [] : [{ host: id, name: id }])),
  ])
  let successor: HostId | null = null
  for (const removed of new Set([
    ...(begun === undefined ? [] : [begun.removed]),
    ...(authority === host ? [host] : []),
  ])) {
    const deadline = new Deadline(
      clock,
      `taking the place of ${removed}, which holds the authority`,
      SUCCEED_MS
    )
    await succession.carryOut(sr, removed, deadline, async () =>
      remove([memberKey(removed)], options, deadline)
    )
    await remove([memberKey(removed), hostKey(removed)], options, deadline)
    await succession.finish(sr, deadline)
    successor = self
    if (removed === host) return { host, revoked: true, successor }
  }
  const deadline = new Deadline(clock, `removing ${name}`, REMOVE_MS)
  // First: what is revoked stays so, while a record can be written again by whoever still has a word with etcd.
  const revoked = await revoke(host, successor ?? authority, options, deadline).catch((error: unknown) => {
    log.warn('the certificates of a removed host are not revoked yet', {
      host: name,
      reason: reasonOf(error),
    })
    return false
  })
  await remove([memberKey(host), hostKey(host)], options, deadline)
  return { host, revoked, successor }
}

function find(
  wanted: string,
  self: HostId,
  hosts: readonly Pick<HostRecord, 'host' | 'name'>[]
): Pick<HostRecord, 'host' | 'name'> {
  const found = hosts.find(({ host, name }) => host === wanted || name === wanted)
  if (found !== undefined && found.host !== self) return found
  const names = [...new Set(hosts.map(({ name }) => name))]
  const reason =
    found === undefined ? `the hosts are ${names.join(', ')}` : 'a host is removed by another one'
  throw new XosanError('INVALID_ARGUMENT', { what: `host ${wanted}`, reason })
}

async function remove(
  keys: readonly string[],
  { coordinator, clock, random }: RemovalOptions,
  deadline: Deadline
): Promise<void> {
  const changes = keys.map(key => ({ key, value: null }))
  await transactUntilKnown({ coordinator, clock, random }, [], changes, deadline.at)
}

async function revoke(
  host: HostId,
  holder: HostId,
  { agent }: RemovalOptions,
  deadline: Deadline
): Promise<boolean> {
  await agent(holder).peer('trust.revoke', { host }, deadline.remainingMs(REVOKE_MS))
  return true
}
