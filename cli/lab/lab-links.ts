/** What a drill does to the links between the hosts of a lab with namespaces. The lab is given by its directory. */
import { resolve } from 'node:path'
import { XosanError } from '../../core/errors.ts'
import { whileLabLocked } from './lab-lock.ts'
import { type LabHost, hostNamed, requireLab } from './layout.ts'
import { requireNetworkTools } from './network/iproute.ts'
import { type LinkStatus, cutHost, cutOneWay, joinHost, linkStatus, shapeHost } from './network/links.ts'
import { type NetnsLab, commandInHost, hasNamespaces, requireNamespaces } from './network/namespaces.ts'

/** Nothing passes between this host and the others any more. @returns all links */
export async function labCut(directory: string, host: string): Promise<LinkStatus[]> {
  return await changeLinks(directory, 'a cut', lab => cutHost(lab, hostNamed(lab, host)))
}

/** What host `from` sends to host `to` is lost; the other way it passes. @returns all links */
export async function labCutOneWay(directory: string, from: string, to: string): Promise<LinkStatus[]> {
  return await changeLinks(directory, 'a cut', async lab => {
    if (from === to) {
      throw new XosanError('INVALID_ARGUMENT', {
        what: `a cut from ${from} to ${to}`,
        reason: 'a host has no link to itself',
      })
    }
    await cutOneWay(lab, hostNamed(lab, from), hostNamed(lab, to))
  })
}

/** Heals all cuts of a host, or with null of every host. @returns all links */
export async function labJoin(directory: string, host: string | null): Promise<LinkStatus[]> {
  return await changeLinks(directory, 'a join', lab =>
    forEachHost(lab, host, chosen => joinHost(lab, chosen))
  )
}

/**
 * Limits the link of a host, or with null of every host, in both directions.
 *
 * @param bitsPerSecond null takes the limit away
 * @returns all links
 */
export async function labShape(
  directory: string,
  bitsPerSecond: number | null,
  host: string | null
): Promise<LinkStatus[]> {
  return await changeLinks(directory, 'shaping', lab =>
    forEachHost(lab, host, chosen => shapeHost(lab, chosen, bitsPerSecond))
  )
}

/** All links; none of a lab whose hosts share the machine's network. */
export async function labLinks(directory: string): Promise<LinkStatus[]> {
  const lab = await requireLab(resolve(directory))
  if (!hasNamespaces(lab)) return []
  requireNetworkTools('Looking at the network of a lab')
  return await linkStatus(lab)
}

/**
 * A command, program first, changed so that it runs in the network of a host.
 *
 * @throws XosanError INVALID_ARGUMENT when the lab has no namespaces, or no such host
 */
export async function labCommand(
  directory: string,
  host: string,
  command: readonly string[]
): Promise<string[]> {
  const lab = requireNamespaces(await requireLab(resolve(directory)), 'running a command in a host')
  requireNetworkTools('Running a command in a lab host')
  requireLinks(await linkStatus(lab))
  return commandInHost(lab, hostNamed(lab, host), command)
}

async function changeLinks(
  directory: string,
  what: string,
  change: (lab: NetnsLab) => Promise<void>
): Promise<LinkStatus[]> {
  const path = resolve(directory)
  // Before the lock, whose file would be the first trace in a directory that is no lab.
  await requireLab(path)
  return await whileLabLocked(path, async () => {
    const lab = requireNamespaces(await requireLab(path), what)
    requireNetworkTools('Changing the network of a lab')
    requireLinks(await linkStatus(lab))
    await change(lab)
    return await linkStatus(lab)
  })
}

async function forEachHost(
  lab: NetnsLab,
  name: string | null,
  action: (host: LabHost) => Promise<void>
): Promise<void> {
  const hosts = name === null ? lab.hosts : [hostNamed(lab, name)]
  for (const host of hosts) await action(host)
}

/** @throws XosanError LAB_NETWORK_BROKEN after a boot of the machine, or when somebody removed a namespace */
function requireLinks(links: readonly LinkStatus[]): void {
  const missing = links.filter(({ state }) => state === 'missing').map(({ host }) => host)
  if (missing.length > 0) {
    throw new XosanError('LAB_NETWORK_BROKEN', {
      reason: `${missing.join(', ')} ${missing.length === 1 ? 'has' : 'have'} no link, as after a boot of the machine`,
    })
  }
}
