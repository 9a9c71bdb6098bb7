import { etcdPrograms } from './host-etcd.ts'
import { type HostPaths } from './layout.ts'
import { type PidFile, handlesIn } from './pid-file.ts'
import { type ProcessHandle, signal, waitForCondition } from '../../daemon/supervision/process-handle.ts'

/** How long a program may take to close its volumes before it is killed, in milliseconds. */
const STOP_TIMEOUT_MS = 30_000
/** How long a killed process may take to be gone, in milliseconds. Far beyond anything but a stuck disk. */
const KILL_TIMEOUT_MS = 10_000

interface Program {
  readonly name: string
  readonly handle: ProcessHandle
}

/**
 * Ends the programs of a host with SIGTERM, as a host's shutdown does: the datapath processes first, while xosand still
 * answers, and its member of etcd last, which xosand would start again; and after that the gate through which it still hands its
 * office over. What does not end in time is killed.
 *
 * @returns names of the programs that had to be killed
 */
export async function stopPrograms(file: PidFile, paths: HostPaths): Promise<string[]> {
  const programs = handlesIn(file).filter(({ name }) => name !== 'supervisor')
  const killed = [
    ...(await stopAll(programs.filter(({ name }) => name !== 'xosand'))),
    ...(await stopAll(programs.filter(({ name }) => name === 'xosand'))),
  ]
  for (const program of await etcdPrograms(paths)) killed.push(...(await stopAll([program])))
  return killed
}

async function stopAll(programs: readonly Program[]): Promise<string[]> {
  const handles = programs.map(({ handle }) => handle)
  for (const handle of handles) {
    signal(handle, 'SIGCONT')
    signal(handle, 'SIGTERM')
  }
  const left = await waitForCondition(handles, 'down', STOP_TIMEOUT_MS)
  await killAll(left)
  return programs.filter(({ handle }) => left.includes(handle)).map(({ name }) => name)
}

/** SIGKILL, in the given order; resolves when all are gone. @throws Error when one does not go */
export async function killAll(handles: readonly ProcessHandle[]): Promise<void> {
  for (const handle of handles) {
    signal(handle, 'SIGKILL')
  }
  const left = await waitForCondition(handles, 'down', KILL_TIMEOUT_MS)
  if (left.length > 0) {
    throw new Error(`processes ${left.map(({ pid }) => pid).join(', ')} do not end after SIGKILL`)
  }
}
