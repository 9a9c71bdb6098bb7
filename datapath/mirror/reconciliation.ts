/**
 * After a takeover: which replica's bytes count, and when all in-sync replicas hold them.
 *
 * Where a write was in flight when the last primary died, in-sync replicas may differ. One of them is the source;
 * every region with a write intent on any of them is copied from it to the others and made durable, and only then
 * may it be read. So whatever a read returns stays what later reads return, whichever host dies next.
 */
import { reasonOf } from '../../core/errors.ts'
import { type RegionIndex, type ReplicaId } from '../../core/units.ts'
import { type MirrorContext } from './mirror-context.ts'
import { type ReplicaLink } from './replica-link.ts'

/** Stands for the copies that reads wait for, whoever their targets are. */
const RECONCILE = 'reconcile' as ReplicaId

export class Reconciliation {
  readonly #context: MirrorContext
  #source: ReplicaLink | null = null

  constructor(context: MirrorContext) {
    this.#context = context
  }

  /** The replica that others are copied from, while it is connected and in-sync. */
  get source(): ReplicaLink | null {
    const source = this.#source
    // One that was taken out is connected again when it comes back to be rebuilt.
    return source?.session == null || !this.#context.mayBeRead(source) ? null : source
  }

  get done(): boolean {
    return this.#context.state.serving && this.#context.unreconciled.isEmpty
  }

  /** Begins with what the in-sync replicas said when they were connected. */
  begin(): void {
    const { unreconciled, clearing, plan, state, carrier } = this.#context
    const relied = this.#context.relied()
    for (const link of relied) unreconciled.union(link.intents!)
    clearing.inherited(unreconciled)
    this.choose()
    if (!unreconciled.isEmpty) plan.add(RECONCILE, unreconciled.copy())
    for (const link of relied) {
      if (link !== this.#source) plan.add(link.record.replica, unreconciled.copy())
    }
    state.serve(unreconciled)
    carrier.drain()
  }

  /** Whether a replica holds everything that was acknowledged, as far as any does. */
  isWhole(link: ReplicaLink): boolean {
    return link.lostAt === null || this.done || link === this.#source
  }

  /** The source is connected no more, or one was connected while there was none. */
  update(link: ReplicaLink): void {
    if (this.source === null || this.#source === link) this.choose()
  }

  /** The source may be in-sync no more. */
  recordChanged(): void {
    if (this.#context.state.serving && this.source === null) this.choose()
  }

  forget(): void {
    this.#source = null
  }

  /**
   * Chooses the source: a replica that has lost nothing, else the one that lost power earliest; of equal ones the
   * local one.
   */
  choose(): void {
    const { links, unreconciled, plan } = this.#context
    let best: ReplicaLink | null = null
    for (const link of links.values()) {
      if (!this.#context.mayBeRead(link) || link.session === null) continue
      const ahead = best === null ? 1 : lossOf(best) - lossOf(link)
      if (ahead > 0 || (ahead === 0 && link.peer.local)) best = link
    }
    const before = this.#source
    if (!unreconciled.isEmpty) {
      // None that has lost more may stand in for one that is away for a moment.
      if (best === null || (before !== null && lossOf(best) > lossOf(before))) return
    }
    this.#source = best
    if (best !== null) plan.drop(best.record.replica)
    if (
      before !== null &&
      before !== best &&
      this.#context.mustAcknowledge(before) &&
      !unreconciled.isEmpty
    ) {
      // What counted until now is a copy like the others where nothing was copied yet.
      plan.add(before.record.replica, unreconciled.copy())
    }
  }

  /**
   * A region was copied to every in-sync replica that lacked it when the copy had its lock, and all of them have flushed.
   * Those that did not lack it had its bytes: every in-sync replica but the source lacks each region that is not
   * reconciled, and no longer does so only with a copy that ends here.
   */
  copied(region: RegionIndex): void {
    const { unreconciled, state, carrier } = this.#context
    if (!unreconciled.has(region)) return
    state.reconciled(region)
    if (unreconciled.isEmpty) this.#finished()
    carrier.drain()
  }

  #finished(): void {
    const { plan } = this.#context
    plan.drop(RECONCILE)
    for (const link of this.#context.relied()) {
      plan.drop(link.record.replica)
      const { session } = link
      link.tellReconciled().catch((error: unknown) => session?.abort(reasonOf(error)))
    }
    this.#context.log('reconciled')
  }
}

/** The epoch at which a replica lost writes, lower than all epochs when it lost none. */
const lossOf = (link: ReplicaLink): number => link.lostAt ?? -1
