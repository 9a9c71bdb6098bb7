/**
 * The member of etcd of a lab host. xosand starts it, so a host's supervisor knows nothing of it, and it outlives
 * xosand; it is found by the directory of its data, which is one of its arguments.
 */
import { etcdPath } from '../../daemon/cluster/cluster-file.ts'
import { type HostPaths } from './layout.ts'
import { type ProcessHandle, processesWithArguments } from '../../daemon/supervision/process-handle.ts'

/** Its name among the programs of a host. */
export const ETCD = 'etcd'

/** None on a host that has no member, or whose member is down. */
export const etcdOf = (paths: HostPaths): Promise<ProcessHandle[]> =>
  processesWithArguments('--data-dir', etcdPath(paths.state))
