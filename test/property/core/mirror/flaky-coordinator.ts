import { type ReadAnswer, type SwapAnswer } from '../../../../core/mirror/steps.ts'
import { type VolumeState } from '../../../../core/mirror/volume-record.ts'

/** What happens to one compare-and-swap: its effect may come with the answer, without it, later, or never. */
export type Fate = 'answered' | 'answer lost' | 'late' | 'lost' | 'unavailable'

export const FATES: readonly Fate[] = ['answered', 'answered', 'answer lost', 'late', 'lost', 'unavailable']

/**
 * A coordinator that keeps one record and is honest: every version follows from the one before by compare-and-swap.
 * But its answers get lost, and a change may happen long after its sender has given up on it.
 */
export class FlakyCoordinator {
  readonly versions: VolumeState[]
  #late: { revision: number; state: VolumeState }[] = []

  constructor(state: VolumeState) {
    this.versions = [state]
  }

  /** Number of the current version, from 1. */
  get revision(): number {
    return this.versions.length
  }

  get state(): VolumeState {
    return this.versions.at(-1)!
  }

  read(available: boolean): ReadAnswer {
    if (!available) return { kind: 'unavailable', reason: 'no leader' }
    return { kind: 'read', state: this.state, revision: this.revision }
  }

  swap(revision: number, state: VolumeState, fate: Fate): SwapAnswer {
    const unknown = { kind: 'unknown', reason: fate } as const
    if (fate === 'unavailable') return { kind: 'unavailable', reason: fate }
    if (fate === 'lost') return unknown
    if (fate === 'late') {
      this.#late.push({ revision, state })
      return unknown
    }
    const committed = this.#apply(revision, state)
    if (fate === 'answer lost') return unknown
    if (committed) return { kind: 'committed', revision: this.revision }
    return { kind: 'conflict', state: this.state, revision: this.revision }
  }

  /** A change of somebody else, if it applies. */
  change(next: VolumeState | null): void {
    if (next !== null) this.versions.push(next)
  }

  /** What was on its way for long arrives. */
  deliverLate(): void {
    for (const { revision, state } of this.#late) this.#apply(revision, state)
    this.#late = []
  }

  #apply(revision: number, state: VolumeState): boolean {
    if (revision !== this.revision) return false
    this.versions.push(state)
    return true
  }
}
