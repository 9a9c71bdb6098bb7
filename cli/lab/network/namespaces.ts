/**
 * The network namespaces of a lab: one per host, and one for the switch between them. Their names begin with a hash of
 * the lab's directory, so that labs do not meet, and what a lab left behind is known as its own even when the
 * directory is gone.
 */
import { createHash } from 'node:crypto'
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { XosanError } from '../../../core/errors.ts'
import { type Lab, type LabHost } from '../layout.ts'
import { killAll } from '../orderly-stop.ts'
import { type ProcessHandle, handleOf } from '../../../daemon/supervision/process-handle.ts'
import { findProgram } from '../find-program.ts'
import { ip } from './iproute.ts'

/** Where `ip netns` keeps the names: see ip-netns(8). */
const NAMES = '/run/netns'

/** A lab whose hosts have a network of their own. */
export type NetnsLab = Lab & { readonly network: { readonly kind: 'netns' } }

/** @param directory of the lab, absolute */
export function networkName(directory: string): string {
  return `xosan-${createHash('sha256').update(directory).digest('hex').slice(0, 8)}`
}

/**
 * The first three bytes of the hosts' addresses. Two labs may get the same ones: their networks do not touch each
 * other, nor the machine's; different ones only make logs easier to read.
 */
export function networkSubnet(name: string): string {
  const hash = Number.parseInt(name.slice(-8), 16)
  return `10.78.${1 + (hash % 254)}`
}

export const hasNamespaces = (lab: Lab): lab is NetnsLab => lab.network.kind === 'netns'

/** @throws XosanError INVALID_ARGUMENT for a lab whose hosts share the machine's network */
export function requireNamespaces(lab: Lab, what: string): NetnsLab {
  if (hasNamespaces(lab)) return lab
  throw new XosanError('INVALID_ARGUMENT', {
    what,
    reason:
      "the hosts of this lab are addresses of the machine's loopback, without links between them; " +
      '`lab up --netns` makes a lab with links (as root)',
  })
}

export const switchNamespace = (lab: NetnsLab): string => `${lab.network.name}-sw`
export const hostNamespace = (lab: NetnsLab, host: LabHost): string => `${lab.network.name}-${host.name}`

/** A command, program first, changed so that it runs in the network of a host. Nothing else of it changes. */
export function commandInHost(lab: Lab, host: LabHost, command: readonly string[]): string[] {
  if (!hasNamespaces(lab)) return [...command]
  // Unlike `ip netns exec` this leaves the mounts alone, so the host's processes see the file system as we do.
  // It becomes the command, with the same pid.
  return [
    findProgram('nsenter') ?? 'nsenter',
    `--net=${join(NAMES, hostNamespace(lab, host))}`,
    '--',
    ...command,
  ]
}

/** Whether the name stands for a namespace, not for a file that an interrupted `ip netns add` left. */
async function isNamespace(name: string): Promise<boolean> {
  const [own, directory] = await Promise.all([
    stat(join(NAMES, name)).catch(() => null),
    stat(NAMES).catch(() => null),
  ])
  return own !== null && own.dev !== directory?.dev
}

const isFile = (name: string): Promise<boolean> =>
  stat(join(NAMES, name)).then(
    () => true,
    () => false
  )

/** Makes a namespace unless it is there. */
export async function ensureNamespace(name: string): Promise<void> {
  if (await isNamespace(name)) return
  if (await isFile(name)) await ip('netns', 'del', name)
  await ip('netns', 'add', name)
}

/** Everything that runs in the network of a host, whoever started it there, unless we run there, too. */
export async function processesInHost(lab: Lab, host: LabHost): Promise<ProcessHandle[]> {
  return hasNamespaces(lab) ? await processesIn(hostNamespace(lab, host)) : []
}

async function processesIn(namespace: string): Promise<ProcessHandle[]> {
  if (!(await isNamespace(namespace))) return []
  const [own, ours] = await Promise.all([stat(join(NAMES, namespace)), stat('/proc/self/ns/net')])
  const isOwn = (other: { dev: number; ino: number }): boolean =>
    other.dev === own.dev && other.ino === own.ino
  // Whatever the name says, a network that we are in ourselves is the machine's or a caller's, not ours to end.
  if (isOwn(ours)) return []
  const found: ProcessHandle[] = []
  for (const name of await readdir('/proc')) {
    const pid = Number(name)
    if (!Number.isSafeInteger(pid)) continue
    const handle = handleOf(pid)
    const network = await stat(`/proc/${name}/ns/net`).catch(() => null)
    if (handle !== null && network !== null && isOwn(network)) found.push(handle)
  }
  return found
}

/** Names of the namespaces that there are of a network, whether or not they are complete. */
export async function namespacesOf(network: string): Promise<string[]> {
  return (await readdir(NAMES).catch(() => [])).filter(name => name.startsWith(`${network}-`))
}

/** Ends whatever runs in a network and removes it. What is gone already is no error. */
export async function removeNetwork(network: string): Promise<void> {
  for (const name of await namespacesOf(network)) {
    for (let left = await processesIn(name); left.length > 0; left = await processesIn(name)) {
      await killAll(left)
    }
    await ip('netns', 'del', name)
  }
}
