import { type PeerPulse } from '../../core/mirror/promise.ts'
import { type MirrorTiming } from '../../core/mirror/timing.ts'
import { type Clock } from '../../core/ports/clock.ts'
import { type Incarnation, type Millis } from '../../core/units.ts'
import { type ReplicaPeer } from '../mirror/replica-peer.ts'
import { LocalSession } from './local-session.ts'
import { type ReplicaHost } from './replica-host.ts'

interface LocalPeerOptions {
  readonly host: ReplicaHost
  readonly incarnation: Incarnation
  readonly clock: Clock
  readonly timing: MirrorTiming
}

/**
 * The replicas of this very process. It needs no promise from itself: it ends with them. Their disk may hang as another
 * host may be silent, so every call ends by itself as those over the network do.
 */
export function localPeer({ host, incarnation, clock, timing }: LocalPeerOptions): ReplicaPeer {
  const pulse: PeerPulse = { incarnation, renewedSentAt: Number.POSITIVE_INFINITY as Millis, takenAway: 0 }
  return {
    local: true,
    pulse,
    accept: async request => host.accept(request),
    confirm: async request => host.confirm(request),
    raise: async request => host.raise(request),
    intents: async name => host.intents(name),
    digests: async (name, region) => host.digests(name, region),
    clear: async request => host.clear(request),
    finish: async request => host.finish(request),
    create: async (address, blank, lost) => host.create(address, blank, { lost }),
    openSession: async name => new LocalSession(await host.openSession(name), clock, timing.requestTimeMs),
    onPulse: () => () => undefined,
  }
}
