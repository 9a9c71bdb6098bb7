import { type PeerPulse } from '../../core/mirror/promise.ts'
import { type Incarnation, type Millis } from '../../core/units.ts'
import { type ReplicaPeer } from '../mirror/replica-peer.ts'
import { type ReplicaHost } from './replica-host.ts'

/** The replicas of this very process. It needs no promise from itself: it ends with them. */
export function localPeer(host: ReplicaHost, incarnation: Incarnation): ReplicaPeer {
  const pulse: PeerPulse = { incarnation, renewedSentAt: Number.POSITIVE_INFINITY as Millis, takenAway: 0 }
  return {
    local: true,
    pulse,
    accept: async request => host.accept(request),
    confirm: async request => host.confirm(request),
    raise: async request => host.raise(request),
    intents: async name => host.intents(name),
    clear: async request => host.clear(request),
    finish: async request => host.finish(request),
    create: async (address, blank) => host.create(address, blank),
    openSession: async name => host.openSession(name),
    onPulse: () => () => undefined,
  }
}
