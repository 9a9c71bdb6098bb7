import { hostKey, memberKey } from '../../cluster/keys.ts'
import { type HostRecord } from '../../cluster/records.ts'
import { transactUntilKnown } from '../../cluster/update.ts'
import { reasonOf, XosanError } from '../../core/errors.ts'
import { type Clock } from '../../core/ports/clock.ts'
import { type Coordinator } from '../../core/ports/coordinator.ts'
import { type Random } from '../../core/ports/random.ts'
import { type HostId } from '../../core/units.ts'
import { type HostAgent } from '../../volume/context.ts'
import { Deadline } from '../../volume/deadline.ts'
import { type Log } from '../log.ts'
import { type Succession } from './succession.ts'

interface RemovalOptions {
  readonly self: HostId
  readonly coordinator: Coordinator
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly hosts: readonly HostRecord[]
  /** The host that holds the authority's key; null while this host does not know it. */
  readonly holder: HostId | null
  readonly agent: (host: HostId) => HostAgent
  readonly succession: Pick<Succession, 'unfinished' | 'check' | 'carryOut'>
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
 * authority, this host takes its place.
 *
 * @param wanted name or UUID
 * @throws XosanError INVALID_ARGUMENT, SUCCESSION_WAITS; as `transactUntilKnown`; as `Succession.carryOut`, after which
 *   the same call goes on
 */
export async function removeHost(wanted: string, options: RemovalOptions): Promise<Removed> {
  const { self, clock, log, hosts, holder, succession } = options
  const found = hosts.find(({ host, name }) => host === wanted || name === wanted)
  if (found === undefined || found.host === self) {
    const reason =
      found === undefined
        ? `the hosts are ${hosts.map(({ name }) => name).join(', ')}`
        : 'a host is removed by another one'
    throw new XosanError('INVALID_ARGUMENT', { what: `host ${wanted}`, reason })
  }
  const { host, name } = found
  if (holder === host || succession.unfinished) {
    const deadline = new Deadline(clock, `removing ${name}, which holds the authority`, SUCCEED_MS)
    await succession.check(host, deadline)
    // Its place among the hosts stays until all is done: by that it is found again when this is broken off.
    await remove([memberKey(host)], options, deadline)
    await succession.carryOut(host, deadline)
    await remove([memberKey(host), hostKey(host)], options, deadline)
    return { host, revoked: true, successor: self }
  }
  const deadline = new Deadline(clock, `removing ${name}`, REMOVE_MS)
  // First: what is revoked stays so, while a record can be written again by whoever still has a word with etcd.
  const revoked = await revoke(host, options, deadline).catch((error: unknown) => {
    log.warn('the certificates of a removed host are not revoked yet', {
      host: name,
      reason: reasonOf(error),
    })
    return false
  })
  await remove([memberKey(host), hostKey(host)], options, deadline)
  return { host, revoked, successor: null }
}

async function remove(
  keys: readonly string[],
  { coordinator, clock, random }: RemovalOptions,
  deadline: Deadline
): Promise<void> {
  const changes = keys.map(key => ({ key, value: null }))
  await transactUntilKnown({ coordinator, clock, random }, [], changes, deadline.at)
}

async function revoke(host: HostId, { holder, agent }: RemovalOptions, deadline: Deadline): Promise<boolean> {
  if (holder === null) return false
  await agent(holder).peer('trust.revoke', { host }, deadline.remainingMs(REVOKE_MS))
  return true
}
