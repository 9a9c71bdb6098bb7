/**
 * What becomes of a request that a replica refuses, because its disk is full or fails in one place.
 *
 * Another in-sync replica that does it takes over: the one that refuses is taken out, and comes back when its disk lets
 * it. When no other one does, that one request waits and is asked again; everything else goes on. A read ends with an error
 * when nothing that is known could ever answer it.
 */
import { reasonOf } from '../../core/errors.ts'
import { type MirrorRequest } from '../../core/mirror/mirror-request.ts'
import { endRegion, firstRegion, type Millis, type RegionIndex, type ReplicaId } from '../../core/units.ts'
import { type MirrorContext } from './mirror-context.ts'
import { type Reconciliation } from './reconciliation.ts'
import { type ReplicaLink } from './replica-link.ts'
import { type ReplicaSession } from './replica-peer.ts'

export class DiskRefusals {
  readonly #context: MirrorContext
  readonly #reconciliation: Reconciliation
  /** Reads that are asked for the last time -> when they were refused first. */
  readonly #lastTries = new WeakMap<MirrorRequest, Millis>()

  constructor(context: MirrorContext, reconciliation: Reconciliation) {
    this.#context = context
    this.#reconciliation = reconciliation
  }

  /**
   * Gives up a replica that refuses something, if another one has done all of that and refuses nothing. Else it stays:
   * with every disk full, the one that has space first is the one to go on with.
   */
  weigh(): void {
    const { links, state } = this.#context
    for (const link of this.#context.relied()) {
      const refusals = state.refusals(link.record.replica)
      const { session } = link
      if (session === null || refusals.length === 0) continue
      const canStandIn = (other: ReplicaLink): boolean =>
        other !== link &&
        this.#canServeAlone(other) &&
        refusals.every(({ request }) => !request.pending.has(other.record.replica))
      if (![...links.values()].some(canStandIn)) continue
      for (const { request } of refusals) {
        if (request.access !== 'read') continue
        for (const region of regionsOf(request)) link.unreadable.add(region)
      }
      link.reject(session, link.refusal)
    }
  }

  /**
   * Asks again for what was refused, and gives up what no disk will ever read: what is refused once more after its time.
   * A process that was stopped finds that time over, while the disk may be well since long ago.
   */
  retry(): void {
    const { carrier, options, state } = this.#context
    if (state.refusedCount === 0) return
    this.weigh()
    const latest = options.clock.now() - options.timing.requestTimeMs
    for (const { request, replica, since } of state.refusals()) {
      if (!state.isAside(request) || since > latest || this.#isElsewhere(request, replica)) continue
      if (this.#lastTries.get(request) !== since) {
        this.#lastTries.set(request, since)
        continue
      }
      this.#context.log('unreadable', { offset: request.offset, length: request.length })
      state.failRead(request)
    }
    state.retryRefused()
    carrier.drain()
  }

  /**
   * The source of a copy cannot read a region. Another replica takes its place if there is one; else what lacks the region
   * goes on lacking it, until the disk can read it or the guest writes it.
   */
  ofSource(source: ReplicaLink, session: ReplicaSession, region: RegionIndex, error: unknown): void {
    const { links, state, troubles, plan, unreconciled } = this.#context
    const others = [...links.values()].filter(other => other !== source)
    if (others.some(other => this.#canServeAlone(other))) {
      source.unreadable.add(region)
      source.reject(session, error)
      return
    }
    for (const { record } of others) {
      if (!plan.lacks(record.replica, region)) continue
      troubles.set(record.replica, `region ${region} cannot be read from the source: ${reasonOf(error)}`)
    }
    // It is compared with nobody whom anybody relies on: reads need not wait for a copy that cannot be made.
    const isAlone = this.#context.relied().every(link => link === source)
    if (isAlone && state.serving && unreconciled.has(region)) this.#reconciliation.copied(region)
  }

  /** Whether a replica has everything that was acknowledged, is in contact, and does what it is asked. */
  #canServeAlone(link: ReplicaLink): boolean {
    const isSound = link.session !== null && this.#context.state.refusals(link.record.replica).length === 0
    return isSound && this.#context.mayBeRead(link) && this.#reconciliation.isWhole(link) && !link.hasLost
  }

  /**
   * Whether a replica may come to have what another one cannot read. One that is away may hold it: it is copied only what
   * it missed, and read when it is in-sync. One that is connected and lacks it waits for the very copy that cannot be made.
   */
  #isElsewhere(request: MirrorRequest, refusing: ReplicaId): boolean {
    const { links, plan } = this.#context
    const regions = regionsOf(request)
    return [...links.keys()].some(
      replica => replica !== refusing && !regions.some(region => plan.lacks(replica, region))
    )
  }
}

function regionsOf({ offset, length }: MirrorRequest): RegionIndex[] {
  const regions: RegionIndex[] = []
  const end = endRegion(offset, length)
  for (let region = firstRegion(offset); region < end; region = (region + 1) as RegionIndex) {
    regions.push(region)
  }
  return regions
}
