/** The directory of each lab host: what it holds before any of its programs runs. */
import { writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import fse from 'fs-extra'
import { installPlugins } from '../../plugins/smapiv3/install.ts'
import { ensureDisk } from './host-disk.ts'
import { etcdProgram } from './lab-options.ts'
import { type Lab, type LabHost, coordinatorFile, datapathsOf, hostPaths } from './layout.ts'

/** Nobody else's business: there are sockets and the volumes' content below. */
export const PRIVATE = { mode: 0o700 }
/** Every lab host has an address of its own, so all use the ports of a real host. */
export const PORTS = {
  peer: 7700,
  enrolment: 7701,
  datapath: 7710,
  nbd: 7730,
  etcdClient: 7750,
  etcdPeer: 7751,
}

/** Lays out the directories of all hosts; what is there stays, but for the entry scripts, which become today's. */
export async function prepareHosts(directory: string, lab: Lab): Promise<void> {
  if (lab.coordinator === 'embedded') await fse.ensureDir(dirname(coordinatorFile(directory)), PRIVATE)
  for (const host of lab.hosts) {
    const paths = hostPaths(directory, lab, host.name)
    for (const made of [paths.run, paths.state, paths.stores, paths.log, paths.pluginRoot]) {
      await fse.ensureDir(made, PRIVATE)
    }
    if (lab.diskBytes !== null && host.witness !== true) await ensureDisk(paths, lab.diskBytes)
    const config = JSON.stringify(configOf(directory, lab, host), null, 2)
    await writeFile(paths.config, `${config}\n`, { mode: 0o600 })
    await installPlugins(paths.pluginRoot, { controlSocket: paths.controlSocket })
  }
}

/** What a host's programs read; see `daemon/config.ts`. */
function configOf(directory: string, lab: Lab, host: LabHost): object {
  const paths = hostPaths(directory, lab, host.name)
  return {
    host: identityOf(host),
    runDirectory: paths.run,
    stateDirectory: paths.state,
    defaultPath: paths.stores,
    datapaths: datapathsOf(lab, host),
    ports: PORTS,
    coordinator:
      lab.coordinator === 'etcd'
        ? { kind: 'etcd', program: etcdProgram() }
        : { kind: 'embedded', path: coordinatorFile(directory) },
    ...(lab.powerCuts?.hosts.includes(host.name) === true
      ? { lab: { unsyncedBytesMax: lab.powerCuts.unsyncedBytesMax } }
      : {}),
    ...(lab.tls ? { peers: 'tls', pool: poolOf(directory, lab) } : { peers: 'loopback' }),
  }
}

/** Where every host of the pool is called, as xapi would call its plugin: a socket is a file, in no network. */
const poolOf = (directory: string, lab: Lab): object => ({
  kind: 'sockets',
  hosts: lab.hosts.map(host => ({
    ...identityOf(host),
    controlSocket: hostPaths(directory, lab, host.name).controlSocket,
  })),
})

const identityOf = ({ uuid, name, address }: LabHost): Omit<LabHost, 'witness'> => ({ uuid, name, address })
