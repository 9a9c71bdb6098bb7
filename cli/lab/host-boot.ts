/**
 * What a reboot does to a real host and to no ordinary process: domains are gone, and so is `/run`. xosand and the
 * datapath processes find out by the kernel's boot id, which all hosts of a lab share with the machine.
 */
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import fse from 'fs-extra'
import { etcdPrograms } from './host-etcd.ts'
import { type HostPaths } from './layout.ts'
import { type PidFile, handlesIn } from './pid-file.ts'
import { conditionOf, processesWithArguments } from '../../daemon/supervision/process-handle.ts'

/** What the datapath processes keep of domains in the state directory. */
const ATTACHMENTS = /^attached-\d+\.json$/

/**
 * Whether a host has no living program, so that starting them is a boot; else a supervisor takes up what runs.
 *
 * @param noted who ran, as the pid file says; those that it does not know of are looked for
 */
export async function isDown(paths: HostPaths, noted: PidFile): Promise<boolean> {
  const programs = handlesIn(noted).filter(({ name }) => name !== 'supervisor')
  const found = await processesWithArguments('--config', paths.config)
  const handles = [...programs, ...(await etcdPrograms(paths))].map(({ handle }) => handle)
  return ![...handles, ...found].some(handle => conditionOf(handle) !== 'down')
}

/** Forgets what does not outlive a boot. To be called while no program of the host runs. */
export async function forgetDomains(paths: HostPaths): Promise<void> {
  await fse.emptyDir(paths.run)
  const names = (await readdir(paths.state)).filter(name => ATTACHMENTS.test(name))
  await Promise.all(names.map(async name => fse.remove(join(paths.state, name))))
}
