import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { labCommand } from '../../../cli/lab/lab-links.ts'
import { type PoolHost } from '../../../cli/lab/pool.ts'
import { type TestLab } from '../../support/test-lab.ts'

const run = promisify(execFile)

/** What has passed a host's link so far, in bytes: everything, with TLS, TCP and Ethernet. */
export interface LinkBytes {
  readonly sent: number
  readonly received: number
}

/** Columns of a line of /proc/net/dev, after the name of the interface. */
const RECEIVED = 0
const SENT = 8

/** The kernel's own count, which no program of ours can get wrong. The host must have a network of its own. */
export async function linkBytes(lab: TestLab, host: PoolHost): Promise<LinkBytes> {
  const [program, ...words] = await labCommand(lab.labDirectory, host.name, ['cat', '/proc/net/dev'])
  const { stdout } = await run(program!, words)
  const links = stdout
    .split('\n')
    .map(line => /^\s*(\w+):\s*(.*)$/.exec(line))
    .filter(match => match !== null && match[1] !== 'lo')
    .map(match => match![2]!.trim().split(/\s+/).map(Number))
  const sum = (column: number): number => links.reduce((total, counts) => total + counts[column]!, 0)
  return { sent: sum(SENT), received: sum(RECEIVED) }
}

export const passedSince = (now: LinkBytes, before: LinkBytes): LinkBytes => ({
  sent: now.sent - before.sent,
  received: now.received - before.received,
})
