import { hasCode, XosanError } from '../core/errors.ts'
import {
  type Change,
  type Condition,
  type Coordinator,
  type TransactResult,
  type Watch,
  type WatchListener,
} from '../core/ports/coordinator.ts'

/**
 * A coordinator that is opened when first called, and again at the next call when that failed: this host has much to
 * answer from its catalogue while the coordinator is away, also right after its own start.
 */
export class LazyCoordinator implements Coordinator {
  readonly #open: () => Promise<Coordinator>
  #opening: Promise<Coordinator> | null = null
  #opened: Coordinator | null = null
  #closed = false

  constructor(open: () => Promise<Coordinator>) {
    this.#open = open
  }

  async read(key: string): ReturnType<Coordinator['read']> {
    return (await this.#coordinator()).read(key)
  }

  async list(prefix: string): ReturnType<Coordinator['list']> {
    return (await this.#coordinator()).list(prefix)
  }

  async transact(conditions: readonly Condition[], changes: readonly Change[]): Promise<TransactResult> {
    return (await this.#coordinator()).transact(conditions, changes)
  }

  watch(prefix: string, afterRevision: number, listener: WatchListener): Watch {
    if (this.#opened !== null) return this.#opened.watch(prefix, afterRevision, listener)
    let watch: Watch | null = null
    let closed = false
    this.#coordinator().then(
      coordinator => {
        if (!closed) watch = coordinator.watch(prefix, afterRevision, listener)
      },
      (error: unknown) => {
        if (!closed) listener.failed(error instanceof Error ? error : new Error(String(error)))
      }
    )
    return {
      close() {
        closed = true
        watch?.close()
      },
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.#opened?.close()
  }

  async #coordinator(): Promise<Coordinator> {
    if (this.#closed) throw new XosanError('COORDINATOR_UNAVAILABLE', { reason: 'this client is closed' })
    this.#opening ??= this.#open()
    try {
      this.#opened = await this.#opening
      return this.#opened
    } catch (error) {
      this.#opening = null
      // Nothing was sent to it, so a lost outcome is not possible.
      if (hasCode(error, 'COORDINATOR_OUTCOME_UNKNOWN')) {
        throw new XosanError('COORDINATOR_UNAVAILABLE', { reason: error.message }, { cause: error })
      }
      throw error
    }
  }
}
