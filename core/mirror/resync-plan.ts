import { type RegionIndex, type ReplicaId } from '../units.ts'
import { type RegionSet } from './region-set.ts'

/** One region to copy from the source to the targets that need it. */
export interface CopyTask {
  readonly region: RegionIndex
  readonly targets: readonly CopyTarget[]
}

export interface CopyTarget {
  readonly replica: ReplicaId
  /** The set that the region is taken from when it is done; another one after the target started again. */
  readonly needed: RegionSet
}

interface Need {
  readonly needed: RegionSet
  readonly total: number
  /** It takes no copies now. */
  held: boolean
}

/**
 * Which region is copied next, and to whom: the one engine of reconcile (in-sync replicas after a takeover, whose
 * blocks may differ where a write was in flight) and resync (a replica that was away). Regions that a read waits
 * for come first, then the rest in order, so that the disk sees a sweep.
 */
export class ResyncPlan {
  readonly #regions: number
  readonly #needs = new Map<ReplicaId, Need>()
  readonly #urgent: RegionIndex[] = []
  readonly #underWay = new Set<RegionIndex>()
  #sweep = 0 as RegionIndex

  /** @param regions number of regions of the volume */
  constructor(regions: number) {
    this.#regions = regions
  }

  /** Adds a target, or starts it again from the beginning. @param needed what it lacks; the plan keeps the set */
  add(target: ReplicaId, needed: RegionSet): void {
    this.#needs.set(target, { needed, total: needed.count, held: false })
  }

  /** Forgets a target. */
  drop(target: ReplicaId): void {
    this.#needs.delete(target)
  }

  /** Copies nothing to a target until `resume`; what it lacks is not forgotten. */
  hold(target: ReplicaId): void {
    const need = this.#needs.get(target)
    if (need !== undefined) need.held = true
  }

  /** Copies to a target again. */
  resume(target: ReplicaId): void {
    const need = this.#needs.get(target)
    if (need !== undefined) need.held = false
  }

  /** Whether a target still lacks something. */
  needs(target: ReplicaId): boolean {
    return this.#needs.get(target)?.needed.isEmpty === false
  }

  /** Whether a target is known to lack a region. */
  lacks(target: ReplicaId, region: RegionIndex): boolean {
    return this.#needs.get(target)?.needed.has(region) === true
  }

  /** Regions done and in total for a target; null for one that is not in the plan. */
  progress(target: ReplicaId): { readonly done: number; readonly total: number } | null {
    const entry = this.#needs.get(target)
    return entry === undefined ? null : { done: entry.total - entry.needed.count, total: entry.total }
  }

  /** Copies this region before the others. */
  hurry(region: RegionIndex): void {
    if (!this.#urgent.includes(region)) this.#urgent.push(region)
  }

  /** Who lacks a region and takes copies now. */
  targetsOf(region: RegionIndex): CopyTarget[] {
    const targets: CopyTarget[] = []
    for (const [replica, { needed, held }] of this.#needs) {
      if (!held && needed.has(region)) targets.push({ replica, needed })
    }
    return targets
  }

  /** The next task, which counts as under way until `done` or `failed`; null when there is none now. */
  next(): CopyTask | null {
    while (this.#urgent.length > 0) {
      const task = this.#task(this.#urgent.shift()!)
      if (task !== null) return task
    }
    // From where the sweep stands to the end, and once more from the beginning.
    for (let passes = 0; passes < 2; passes++) {
      let region = this.#nextNeeded(this.#sweep)
      while (region !== undefined) {
        this.#sweep = (region + 1) as RegionIndex
        const task = this.#task(region)
        if (task !== null) return task
        region = this.#nextNeeded(this.#sweep)
      }
      this.#sweep = 0 as RegionIndex
    }
    return null
  }

  /** Ends a task: its targets, if they are still in the plan, no longer lack the region. */
  done(task: CopyTask): void {
    this.#underWay.delete(task.region)
    for (const { needed } of task.targets) needed.delete(task.region)
  }

  /** Ends a task that did not succeed: the region stays needed. */
  failed(task: CopyTask): void {
    this.#underWay.delete(task.region)
  }

  #task(region: RegionIndex): CopyTask | null {
    if (this.#underWay.has(region)) return null
    const targets = this.targetsOf(region)
    if (targets.length === 0) return null
    this.#underWay.add(region)
    return { region, targets }
  }

  #nextNeeded(from: RegionIndex): RegionIndex | undefined {
    if (from >= this.#regions) return undefined
    let first: RegionIndex | undefined
    for (const { needed, held } of this.#needs.values()) {
      const region = held ? undefined : needed.firstAtOrAfter(from)
      if (region !== undefined && (first === undefined || region < first)) first = region
    }
    return first
  }
}
