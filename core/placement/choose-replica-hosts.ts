import assert from 'node:assert'
import { XosanError } from '../errors.ts'
import { type ByteLength, type HostId } from '../units.ts'
import { type Headroom, type PlacementHost, domainOf, headroomBytes, roomOf } from './space.ts'

export interface PlacementRequest {
  /** How many replicas, each on a host of its own; at least 1. */
  readonly copies: number
  /**
   * Virtual size of the volume in bytes. It need not be free now, since volumes are thin and may promise more than there
   * is; but a host where it would fit goes before one where it would not.
   */
  readonly size: ByteLength
  readonly headroom: Headroom
  /** Hosts that may get a replica, each once. */
  readonly hosts: readonly PlacementHost[]
  /** The host that will probably use the volume: a replica there makes its reads local. */
  readonly prefer?: HostId
}

/**
 * Chooses the hosts of a new volume's replicas.
 *
 * Never two replicas on one host. Failure domains are a wish: replicas are spread over as many as there are, and share
 * one only when there are fewer domains than copies, for two copies in one rack are still better than a refusal. Among
 * equals the host with the most room is chosen, then the one whose id is lower, so that every host that asks with the
 * same facts comes to the same answer.
 * @returns the chosen hosts, the preferred one first if it was chosen
 * @throws TOO_FEW_HOSTS when there are fewer hosts than copies; NO_SPACE when there are enough, but full
 */
export function chooseReplicaHosts(request: PlacementRequest): PlacementHost[] {
  const { copies, hosts } = request
  assert(Number.isInteger(copies) && copies >= 1, 'a volume has at least one replica')
  assert(new Set(hosts.map(({ host }) => host)).size === hosts.length, 'each host is a candidate once')
  if (hosts.length < copies) {
    throw new XosanError('TOO_FEW_HOSTS', { copies, hosts: hosts.length })
  }
  const candidates = hosts.filter(host => roomOf(host, request.headroom) > 0)
  if (candidates.length < copies) {
    throw noSpace(request)
  }

  const chosen: PlacementHost[] = []
  const usedDomains = new Map<string, number>()
  const preferred = preferredOf(request, candidates)
  while (chosen.length < copies) {
    const next =
      chosen.length === 0 && preferred !== null ? preferred : best(candidates, chosen, usedDomains, request)
    chosen.push(next)
    usedDomains.set(domainOf(next), (usedDomains.get(domainOf(next)) ?? 0) + 1)
  }
  return chosen
}

/** The preferred host, unless the volume would fit elsewhere but not there: local reads are not worth a full disk. */
function preferredOf(
  { prefer, size, headroom }: PlacementRequest,
  candidates: readonly PlacementHost[]
): PlacementHost | null {
  const preferred = candidates.find(({ host }) => host === prefer)
  if (preferred === undefined) {
    return null
  }
  const fits = (host: PlacementHost): boolean => roomOf(host, headroom) >= size
  return fits(preferred) || !candidates.some(fits) ? preferred : null
}

function best(
  candidates: readonly PlacementHost[],
  chosen: readonly PlacementHost[],
  usedDomains: ReadonlyMap<string, number>,
  { headroom }: PlacementRequest
): PlacementHost {
  const replicasInDomain = (host: PlacementHost): number => usedDomains.get(domainOf(host)) ?? 0
  const [first] = candidates
    .filter(candidate => !chosen.includes(candidate))
    .sort(
      (a, b) =>
        replicasInDomain(a) - replicasInDomain(b) ||
        roomOf(b, headroom) - roomOf(a, headroom) ||
        (a.host < b.host ? -1 : 1)
    )
  assert(first !== undefined, 'there are at least as many candidates as copies')
  return first
}

/** Names the store that is nearest to taking a replica, for that is where the operator gains most. */
function noSpace({ hosts, headroom }: PlacementRequest): XosanError {
  const full = hosts.filter(host => roomOf(host, headroom) <= 0)
  const [nearest] = full.sort(
    (a, b) => roomOf(b, headroom) - roomOf(a, headroom) || (a.host < b.host ? -1 : 1)
  )
  assert(nearest !== undefined, 'some host has no room')
  return new XosanError('NO_SPACE', {
    needed: headroomBytes(nearest, headroom) + 1,
    free: nearest.free,
    host: nearest.host,
  })
}
