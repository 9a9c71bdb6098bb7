/** What the connections are worth that a host has when it is removed. */
import { type AttackLab } from './attack-lab.ts'
import { type LingerOutcome } from './attack-wire.ts'
import { Attacker } from './attacker-process.ts'
import { splitPem } from './intruders.ts'
import { PORT_KINDS, findListeners } from './listening.ts'
import { within } from '../cluster/bounded.ts'

/** Who follows the list of members ends them when it changes. */
const ENDED_MS_MAX = 5_000
const PATIENCE_MS = 60_000

export interface RemovalRow {
  readonly title: string
  readonly connections: number
  /** When the last one was answered last, in milliseconds after the removal. */
  readonly answeredMs: number
  readonly faults: readonly string[]
}

/** Removes a host that has a connection to every port of the others and uses it. */
export async function removeConnected(attacked: AttackLab): Promise<RemovalRow[]> {
  const { lab, removed } = attacked
  const { listeners } = await findListeners(attacked)
  const credentials = splitPem(await attacked.trustFile(removed, 'host.pem'))
  const user = await Attacker.start(lab.labDirectory, removed.name)
  try {
    // It starts slowly on a busy machine, and has to be let in as long as it is a member.
    const first = listeners[0]!
    await user.attempt({
      ...{ address: first.address, port: first.port, from: removed.address },
      ...{ protocol: 'rpc', way: 'tls', credentials },
    })
    const kinds = PORT_KINDS.map(kind => ({
      ...kind,
      lingering: listeners
        .filter(({ port }) => kind.ports.includes(port))
        .map(async ({ address, port }) =>
          user.linger({ address, port, protocol: kind.protocol, credentials })
        ),
    }))
    await new Promise(resolve => setTimeout(resolve, SETTLE_MS))
    await attacked.remove()
    const removedAt = Date.now()
    const rows: RemovalRow[] = []
    for (const { title, lingering } of kinds) {
      const ended = Promise.all(lingering)
      const outcomes = await within(`the end of the connections to ${title}`, PATIENCE_MS, ended).catch(
        () => null
      )
      rows.push(rowOf(title, lingering.length, outcomes, removedAt))
    }
    return rows
  } finally {
    await user.dispose()
  }
}

/** Until every connection has been answered some times. */
const SETTLE_MS = 2_000

function rowOf(
  title: string,
  connections: number,
  outcomes: readonly LingerOutcome[] | null,
  removedAt: number
): RemovalRow {
  const row = { title, connections, answeredMs: 0 }
  if (outcomes === null) return { ...row, faults: [`${title}: a connection does not end`] }
  if (outcomes.some(({ lastAnsweredAt }) => lastAnsweredAt === null)) {
    return { ...row, faults: [`${title}: a member was not answered before it was removed`] }
  }
  const answeredMs = Math.max(0, ...outcomes.map(({ lastAnsweredAt }) => lastAnsweredAt! - removedAt))
  const late = answeredMs > ENDED_MS_MAX
  return { ...row, answeredMs, faults: late ? [`${title}: answered ${answeredMs} ms after the removal`] : [] }
}
