import { volumeStateKey } from '../../cluster/keys.ts'
import { parseVolumeState, serialiseVolumeState } from '../../cluster/volume-state.ts'
import { hasCode, reasonOf } from '../../core/errors.ts'
import { type ReadAnswer, type SwapAnswer } from '../../core/mirror/steps.ts'
import { type VolumeState } from '../../core/mirror/volume-record.ts'
import { type Coordinator } from '../../core/ports/coordinator.ts'
import { type SrId, type VolumeKey } from '../../core/units.ts'

/** The record of one volume, with the coordinator's outcomes as the procedures of the mirror know them. */
export class RecordStore {
  readonly #coordinator: Coordinator
  readonly #key: string

  constructor(coordinator: Coordinator, sr: SrId, volume: VolumeKey) {
    this.#coordinator = coordinator
    this.#key = volumeStateKey(sr, volume)
  }

  /** @throws RECORD_INVALID when the record cannot be understood: then nothing may be decided from it */
  async read(): Promise<ReadAnswer> {
    try {
      const { entry } = await this.#coordinator.read(this.#key)
      if (entry === null) return { kind: 'missing' }
      return { kind: 'read', state: parseVolumeState(this.#key, entry.value), revision: entry.revision }
    } catch (error) {
      if (hasCode(error, 'RECORD_INVALID')) throw error
      return { kind: 'unavailable', reason: reasonOf(error) }
    }
  }

  /**
   * Replaces the record if it is still the one of a revision. One that cannot be understood is another: this call has done
   * nothing, and whoever goes on trying learns in the end what became of an earlier one.
   */
  async swap(revision: number, state: VolumeState): Promise<SwapAnswer> {
    const value = serialiseVolumeState(this.#key, state)
    try {
      const result = await this.#coordinator.transact(
        [{ key: this.#key, revision }],
        [{ key: this.#key, value }]
      )
      if (result.committed) return { kind: 'committed', revision: result.revision }
      const current = result.current[0]
      if (current === undefined) return { kind: 'missing' }
      return {
        kind: 'conflict',
        state: parseVolumeState(this.#key, current.value),
        revision: current.revision,
      }
    } catch (error) {
      // Anything that does not say that nothing happened is taken for the worse.
      const certain = hasCode(error, 'COORDINATOR_UNAVAILABLE') || hasCode(error, 'RECORD_INVALID')
      return { kind: certain ? 'unavailable' : 'unknown', reason: reasonOf(error) }
    }
  }
}
