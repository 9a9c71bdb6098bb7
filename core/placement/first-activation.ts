/**
 * A volume is created before anybody knows where its VM will run. When it is first activated on a host without a
 * replica, it holds only zeros, so one of its replicas can be moved to that host by changing the record: no byte is
 * copied, and from then on reads are local.
 */
import { type ReplicaRecord, type VolumeState, isPristine } from '../mirror/volume-record.ts'
import { type HostId } from '../units.ts'
import { type Headroom, type PlacementHost, domainOf, roomOf } from './space.ts'

export interface FirstActivationMove {
  /** The replica that is given up. */
  readonly replace: ReplicaRecord
  /** Where the new, empty replica goes. */
  readonly to: PlacementHost
}

/**
 * Plans the move of a pristine volume's replica to the host that activates it.
 *
 * The replica on the fullest host is given up, but never one whose loss would leave the replicas in fewer failure
 * domains than before.
 * @param hosts hosts with a store that can be reached; a replica on any other counts as on the fullest host
 * @returns null when nothing should move: the volume may hold data, the host has a replica or no room, the volume is
 * striped (its reads come from several hosts anyway) or in the middle of an operation
 */
export function planFirstActivationMove(
  state: VolumeState,
  host: HostId,
  hosts: readonly PlacementHost[],
  headroom: Headroom
): FirstActivationMove | null {
  const [mirror] = state.mirrors
  const to = hosts.find(candidate => candidate.host === host)
  if (
    mirror === undefined ||
    state.mirrors.length > 1 ||
    to === undefined ||
    state.operation !== undefined ||
    !isPristine(state) ||
    mirror.some(replica => replica.host === host)
  ) {
    return null
  }
  const byHost = new Map(hosts.map(candidate => [candidate.host, candidate]))
  const roomAt = (id: HostId): number => {
    const known = byHost.get(id)
    return known === undefined ? Number.NEGATIVE_INFINITY : roomOf(known, headroom)
  }
  const domainAt = (id: HostId): string => {
    const known = byHost.get(id)
    return known === undefined ? `host ${id}` : domainOf(known)
  }
  const domains = (ids: readonly HostId[]): number => new Set(ids.map(domainAt)).size
  const before = mirror.map(replica => replica.host)

  const [replace] = mirror
    .filter(({ host: left }) => domains([...before.filter(id => id !== left), host]) >= domains(before))
    .sort((a, b) => roomAt(a.host) - roomAt(b.host) || (a.host < b.host ? -1 : 1))
  if (replace === undefined) {
    return null
  }
  const room = roomOf(to, headroom)
  const hasRoom = room > 0 && (room >= state.size || room >= roomAt(replace.host))
  return hasRoom ? { replace, to } : null
}
