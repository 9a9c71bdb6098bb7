/**
 * The member of etcd of a lab host, and the gate before it. xosand starts them, so a host's supervisor knows nothing of
 * them, and they outlive xosand; they are found by the directory of the member's data, which is one of their arguments.
 */
import { etcdPath } from '../../daemon/cluster/cluster-file.ts'
import { gateMarkOf } from '../../daemon/etcd/gate-arguments.ts'
import { type ProcessHandle, processesWithArguments } from '../../daemon/supervision/process-handle.ts'
import { type HostPaths } from './layout.ts'

/** Their names among the programs of a host. */
const ETCD = 'etcd'
const GATE = 'etcd-gate'

export interface EtcdProgram {
  readonly name: string
  readonly handle: ProcessHandle
}

/** The member first. None on a host that has no member, or whose member is down. */
export async function etcdPrograms(paths: HostPaths): Promise<EtcdProgram[]> {
  const data = etcdPath(paths.state)
  const named = (name: string) => (handle: ProcessHandle) => ({ name, handle })
  return [
    ...(await processesWithArguments('--data-dir', data)).map(named(ETCD)),
    ...(await processesWithArguments(...gateMarkOf(data))).map(named(GATE)),
  ]
}

/** Whether a program is xosand's to look after, and not the supervisor's. */
export const isOfEtcd = (name: string): boolean => name === ETCD || name === GATE
