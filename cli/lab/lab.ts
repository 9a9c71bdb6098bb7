/**
 * A whole pool on one machine: every host is a set of ordinary processes with an address, a directory and sockets of
 * its own. The address is one of the machine's loopback, which needs no privilege, or is in a network namespace.
 */
import { randomInt, randomUUID } from 'node:crypto'
import { readdir, rename, rmdir, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { dirname, join, resolve } from 'node:path'
import fse from 'fs-extra'
import { XosanError } from '../../core/errors.ts'
import { HostControl, type HostStatus } from './host-control.ts'
import { releaseDisk } from './host-disk.ts'
import { PORTS, PRIVATE, prepareHosts } from './host-files.ts'
import { whileLabLocked } from './lab-lock.ts'
import {
  type LabUpOptions,
  NAMESPACED,
  choicesOf,
  powerCutsOf,
  requirePrograms,
  requireSameChoices,
} from './lab-options.ts'
import {
  type Lab,
  chooseRunDirectory,
  coordinatorFile,
  hostNamed,
  hostPaths,
  labFile,
  readLab,
  requireLab,
} from './layout.ts'
import { requireNetworkTools } from './network/iproute.ts'
import { ensureNetwork } from './network/make-network.ts'
import {
  hasNamespaces,
  namespacesOf,
  networkName,
  networkSubnet,
  removeNetwork,
} from './network/namespaces.ts'

/** Name of the host without data. */
const WITNESS = 'w1'

/** What an interrupted `labUp` may leave before there is a lab. */
const OWN_FILES = ['lab.lock', 'lab.json.new']

/** What a caller needs to use a lab: the JSON of `xosan lab up`. */
export interface LabReport {
  readonly hosts: readonly {
    readonly name: string
    readonly uuid: string
    readonly address: string
    /** It has no datapath processes, and so no volumes. */
    readonly witness?: true | undefined
    readonly pluginRoot: string
    readonly controlSocket: string
    /** By name of the program; `etcd` where a member of etcd runs. */
    readonly pids: Readonly<Record<string, number | null>>
  }[]
}

/** Called with what is going on, for people who wait. */
export type Progress = (text: string) => void

/**
 * Makes the lab when the directory holds none, starts what does not run, and resolves when all is up.
 *
 * @throws XosanError INVALID_ARGUMENT when the directory holds something else, or another lab; DAEMON_UNREACHABLE
 *   when a program does not come up; with `netns` or etcd also ROOT_REQUIRED, PROGRAM_MISSING, LAB_NETWORK_BROKEN
 */
export async function labUp(
  directory: string,
  options: LabUpOptions,
  progress: Progress
): Promise<LabReport> {
  const path = resolve(directory)
  requirePrograms(options)
  const createdDirectory = !(await fse.pathExists(path))
  await fse.ensureDir(path, PRIVATE)
  // Also before the lock, whose file would be the first trace in a directory that is not ours.
  await existingLab(path, options)
  const lab = await whileLabLocked(path, async () => {
    const there = (await existingLab(path, options)) ?? (await makeLab(path, options, createdDirectory))
    await prepareHosts(path, there)
    if (hasNamespaces(there)) await ensureNetwork(there)
    return there
  })
  await Promise.all(
    lab.hosts.map(async host => {
      if (options.bare !== true) await new HostControl(path, lab, host).start()
      progress(`${host.name} is up at ${host.address}`)
    })
  )
  return await reportOf(path, lab)
}

/**
 * Ends every process of the lab, then removes what `labUp` made unless it shall be kept. Namespaces are not kept: they
 * hold no data, and `labUp` makes them again. Those of a lab whose directory was removed under it are removed, too.
 */
export async function labDown(directory: string, keep: boolean, progress: Progress): Promise<void> {
  const path = resolve(directory)
  if ((await readLab(path)) === null && (await namespacesOf(networkName(path))).length > 0) {
    requireNetworkTools('Removing the network of a lab')
    await removeNetwork(networkName(path))
    progress('the lab is gone, but for its network, which is removed now')
    return
  }
  const lab = await requireLab(path)
  if (hasNamespaces(lab)) requireNetworkTools(NAMESPACED)
  await whileLabLocked(path, async () => {
    await Promise.all(
      lab.hosts.map(async host => {
        const control = new HostControl(path, lab, host)
        await control.kill()
        if (lab.diskBytes !== null) await releaseDisk(control.paths)
        progress(`${host.name} is down`)
      })
    )
    if (hasNamespaces(lab)) await removeNetwork(lab.network.name)
    if (!keep) {
      await removeLab(path, lab)
    }
  })
}

/** What can be done to one host of a lab. @throws XosanError INVALID_ARGUMENT when there is no such lab or host */
export async function labHost(directory: string, name: string): Promise<HostControl> {
  const path = resolve(directory)
  const lab = await requireLab(path)
  return new HostControl(path, lab, hostNamed(lab, name))
}

export async function labStatus(directory: string): Promise<HostStatus[]> {
  const path = resolve(directory)
  const lab = await requireLab(path)
  return await Promise.all(lab.hosts.map(host => new HostControl(path, lab, host).status()))
}

async function existingLab(path: string, options: LabUpOptions): Promise<Lab | null> {
  const lab = await readLab(path)
  if (lab === null) {
    const strangers = (await readdir(path)).filter(name => !OWN_FILES.includes(name))
    if (strangers.length > 0) {
      throw new XosanError('INVALID_ARGUMENT', {
        what: path,
        reason: `it is neither empty nor a lab (it holds ${strangers.slice(0, 3).join(', ')})`,
      })
    }
    return null
  }
  requireSameChoices(path, lab, options)
  return lab
}

async function makeLab(path: string, options: LabUpOptions, createdDirectory: boolean): Promise<Lab> {
  const { hosts, datapaths, netns, coordinator, tls, witness, diskBytes } = choicesOf(options)
  const names = Array.from({ length: hosts }, (_, index) => `h${index + 1}`)
  if (witness) names.push(WITNESS)
  const network: Lab['network'] = netns ? { kind: 'netns', name: networkName(path) } : { kind: 'none' }
  const subnet = network.kind === 'netns' ? networkSubnet(network.name) : await freeSubnet(names.length)
  const lab: Lab = {
    version: 1,
    network,
    coordinator,
    tls,
    subnet,
    programs: options.programs,
    runDirectory: await chooseRunDirectory(path, hosts),
    createdDirectory,
    datapaths,
    powerCuts: powerCutsOf(options),
    diskBytes,
    hosts: names.map((name, index) => ({
      name,
      uuid: randomUUID(),
      address: `${subnet}.${index + 1}`,
      ...(name === WITNESS ? { witness: true as const } : {}),
    })),
  }
  // First of all, so that a lab whose making was interrupted can be brought up again, or down.
  const temporary = `${labFile(path)}.new`
  await writeFile(temporary, `${JSON.stringify(lab, null, 2)}\n`, { mode: 0o600 })
  await rename(temporary, labFile(path))
  // Of a lab that was here before and whose directory was removed while it was up.
  if (network.kind === 'netns') await removeNetwork(network.name)
  return lab
}

/** A loopback subnet on which nobody listens, so that several labs can be up at once. */
async function freeSubnet(hosts: number): Promise<string> {
  for (let attempt = 0; attempt < 50; attempt++) {
    const subnet = `127.${randomInt(1, 255)}.${randomInt(0, 256)}`
    const addresses = Array.from({ length: hosts }, (_, index) => `${subnet}.${index + 1}`)
    if ((await Promise.all(addresses.map(isFree))).every(Boolean)) {
      return subnet
    }
  }
  throw new XosanError('INTERNAL', { reason: 'no free loopback subnet was found for the lab' })
}

async function isFree(address: string): Promise<boolean> {
  const server = createServer()
  return await new Promise(resolved => {
    server.once('error', () => resolved(false))
    server.listen(PORTS.peer, address, () => server.close(() => resolved(true)))
  })
}

async function reportOf(path: string, lab: Lab): Promise<LabReport> {
  return {
    hosts: await Promise.all(
      lab.hosts.map(async host => {
        const control = new HostControl(path, lab, host)
        const { processes } = await control.status()
        return {
          ...host,
          pluginRoot: control.paths.pluginRoot,
          controlSocket: control.paths.controlSocket,
          pids: Object.fromEntries(processes.map(({ name, pid }) => [name, pid])),
        }
      })
    ),
  }
}

/** Removes only what a lab consists of, by name: the directory may hold what somebody else put there. */
async function removeLab(path: string, lab: Lab): Promise<void> {
  for (const host of lab.hosts) {
    await fse.remove(hostPaths(path, lab, host.name).directory)
  }
  await fse.remove(dirname(coordinatorFile(path)))
  if (lab.runDirectory !== null) {
    await fse.remove(lab.runDirectory)
  }
  await fse.remove(labFile(path))
  for (const name of OWN_FILES) {
    await fse.remove(join(path, name))
  }
  if (lab.createdDirectory && (await readdir(path)).length === 0) {
    await rmdir(path)
  }
}
