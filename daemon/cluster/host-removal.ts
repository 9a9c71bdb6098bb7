import { hostKey, memberKey, MEMBERS_PREFIX, parseKey } from '../../cluster/keys.ts'
import { type HostRecord } from '../../cluster/records.ts'
import { reasonOf, XosanError } from '../../core/errors.ts'
import { type Clock } from '../../core/ports/clock.ts'
import { type Coordinator, type Entry } from '../../core/ports/coordinator.ts'
import { type HostId, type SrId } from '../../core/units.ts'
import { type HostAgent } from '../../volume/context.ts'
import { Deadline } from '../../volume/deadline.ts'
import { type Log } from '../log.ts'
import { patiently } from './patiently.ts'
import { type SuccessionRecord } from './succession-record.ts'
import { type Succession } from './succession.ts'

interface RemovalOptions {
  readonly self: HostId
  readonly sr: SrId
  readonly coordinator: Coordinator
  readonly clock: Clock
  readonly log: Log
  readonly hosts: readonly Pick<HostRecord, 'host' | 'name'>[]
  readonly agent: (host: HostId) => HostAgent
  readonly record: Pick<SuccessionRecord, 'read' | 'remove'>
  readonly succession: Pick<Succession, 'carryOut'>
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
 * @throws XosanError INVALID_ARGUMENT, SR_NOT_FOUND, SUCCESSION_ELSEWHERE; as `transactUntilKnown`; as `Succession.carryOut`,
 *   after which the same call goes on
 */
export async function removeHost(wanted: string, options: RemovalOptions): Promise<Removed> {
  const { self, sr, coordinator, clock, log, hosts, record } = options
  const looking = new Deadline(clock, 'looking who holds the authority', REMOVE_MS)
  // As the coordinator says now: to remove the holder in the ordinary way would leave nobody who can be succeeded.
  const { createdBy, authority = createdBy, succession: begun } = await record.read(sr, looking)
  const listed = await patiently(clock, looking, async () => coordinator.list(MEMBERS_PREFIX))
  const { host, name } = find(wanted, self, [
    ...hosts,
    // Their records as hosts may be gone already, or have never been made.
    ...[
      authority,
      ...(begun === undefined ? [] : [begun.by, ...begun.removed]),
      ...listed.entries.flatMap(hostOfMember),
    ].map(id => ({ host: id, name: id })),
  ])
  if (begun !== undefined || authority === host) {
    await succeed(host, options)
    return { host, revoked: true, successor: self }
  }
  const deadline = new Deadline(clock, `removing ${name}`, REMOVE_MS)
  // First: what is revoked stays so, while a record can be written again by whoever still has a word with etcd.
  const revoked = await revoke(host, authority, options, deadline).catch((error: unknown) => {
    log.warn('the certificates of a removed host are not revoked yet', {
      host: name,
      reason: reasonOf(error),
    })
    return false
  })
  await record.remove(sr, authority, [memberKey(host), hostKey(host)], deadline)
  return { host, revoked, successor: null }
}

/**
 * Goes on with a succession that this host has begun, if there is one.
 * @throws XosanError SR_NOT_FOUND; as `Succession.carryOut`
 */
export async function resumeSuccession({
  self,
  sr,
  clock,
  record,
  succession,
}: Pick<RemovalOptions, 'self' | 'sr' | 'clock' | 'record' | 'succession'>): Promise<void> {
  const looking = new Deadline(clock, 'looking who holds the authority', REMOVE_MS)
  const { succession: begun } = await record.read(sr, looking)
  if (begun?.by === self) await succeed(begun.removed[0]!, { sr, clock, succession })
}

async function succeed(
  host: HostId,
  { sr, clock, succession }: Pick<RemovalOptions, 'sr' | 'clock' | 'succession'>
): Promise<void> {
  const deadline = new Deadline(clock, 'taking the place of the host that held the authority', SUCCEED_MS)
  await succession.carryOut(sr, host, deadline)
}

/** By its key alone: a record that cannot be read is there to be removed, too. */
function hostOfMember({ key }: Entry): HostId[] {
  const parsed = parseKey(key)
  return parsed.kind === 'member' ? [parsed.host] : []
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

async function revoke(
  host: HostId,
  holder: HostId,
  { agent }: RemovalOptions,
  deadline: Deadline
): Promise<boolean> {
  await agent(holder).peer('trust.revoke', { host }, deadline.remainingMs(REVOKE_MS))
  return true
}
