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

interface RemovalOptions {
  readonly self: HostId
  readonly coordinator: Coordinator
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly hosts: readonly HostRecord[]
  /** The host that holds the authority's key; null while this host does not know it. */
  readonly holder: () => HostAgent | null
}

const REMOVE_MS = 30_000
const REVOKE_MS = 10_000

/**
 * Ends the membership of a host: its certificates are worthless from then on, and its connections end.
 *
 * @param wanted name or UUID
 * @returns whether its certificates are revoked, too; else they will be when the host of the authority is back
 * @throws XosanError INVALID_ARGUMENT; as `transactUntilKnown`
 */
export async function removeHost(
  wanted: string,
  { self, coordinator, clock, random, log, hosts, holder }: RemovalOptions
): Promise<{ readonly host: HostId; readonly revoked: boolean }> {
  const found = hosts.find(({ host, name }) => host === wanted || name === wanted)
  if (found === undefined || found.host === self) {
    const reason =
      found === undefined
        ? `the hosts are ${hosts.map(({ name }) => name).join(', ')}`
        : 'a host is removed by another one'
    throw new XosanError('INVALID_ARGUMENT', { what: `host ${wanted}`, reason })
  }
  const { host, name } = found
  const deadline = new Deadline(clock, `removing ${name}`, REMOVE_MS)
  // First: what is revoked stays so, while a record can be written again by whoever still has a word with etcd.
  const revoked = await revoke(host, holder, deadline).catch((error: unknown) => {
    log.warn('the certificates of a removed host are not revoked yet', {
      host: name,
      reason: reasonOf(error),
    })
    return false
  })
  await transactUntilKnown(
    { coordinator, clock, random },
    [],
    [
      { key: memberKey(host), value: null },
      { key: hostKey(host), value: null },
    ],
    deadline.at
  )
  return { host, revoked }
}

async function revoke(host: HostId, holder: () => HostAgent | null, deadline: Deadline): Promise<boolean> {
  const agent = holder()
  if (agent === null) return false
  await agent.peer('trust.revoke', { host }, deadline.remainingMs(REVOKE_MS))
  return true
}
