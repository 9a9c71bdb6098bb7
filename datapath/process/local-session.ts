import { XosanError } from '../../core/errors.ts'
import { type Clock, type Timer } from '../../core/ports/clock.ts'
import { type ByteLength, type ByteOffset, millis, type Millis } from '../../core/units.ts'
import { type Extent, type TrimRequest, type WriteRequest, type ZeroRequest } from '../block-device.ts'
import { PassThroughDevice } from '../filters/pass-through.ts'
import { SILENCE } from '../mirror/replica-link.ts'
import { type ReplicaSession } from '../mirror/replica-peer.ts'

/** Looks at the oldest request within the time that a request may take. More would give up little earlier. */
const LOOKS = 16

/** A request that has not been answered. */
interface Pending {
  /** Number of the last look before it came. */
  readonly look: number
  readonly reject: (error: XosanError) => void
}

/**
 * A primary's session with the replica in its own process. As one over the network does, it ends when a request is not
 * answered in time, and what is under way is answered with an error when it ends: the disk below may hang for ever.
 * Buffers of such requests are left to the calls that have them.
 *
 * Time is counted in looks of one timer and not by the clock: a process that was stopped has not looked, and what its
 * disk did meanwhile says nothing. It also costs a request nothing.
 */
export class LocalSession extends PassThroughDevice implements ReplicaSession {
  readonly closed: Promise<string>
  readonly #session: ReplicaSession
  readonly #clock: Clock
  readonly #lookEveryMs: Millis
  /** Oldest first. */
  readonly #pending = new Set<Pending>()
  #looks = 0
  #timer: Timer | null = null

  /** @param requestTimeMs how long a request may take */
  constructor(session: ReplicaSession, clock: Clock, requestTimeMs: Millis) {
    super(session)
    this.#session = session
    this.#clock = clock
    this.#lookEveryMs = millis(requestTimeMs / LOOKS)
    this.closed = session.closed
    void session.closed.then(reason => this.#end(reason))
  }

  abort(reason: string): void {
    this.#session.abort(reason)
  }

  override read(offset: ByteOffset, into: Uint8Array): Promise<Uint8Array> {
    return this.#follow(this.next.read(offset, into))
  }

  override write(request: WriteRequest): Promise<void> {
    return this.#follow(this.next.write(request))
  }

  override zero(request: ZeroRequest): Promise<void> {
    return this.#follow(this.next.zero(request))
  }

  override trim(request: TrimRequest): Promise<void> {
    return this.#follow(this.next.trim(request))
  }

  override flush(): Promise<void> {
    return this.#follow(this.next.flush())
  }

  override allocation(offset: ByteOffset, length: ByteLength): Promise<Extent[]> {
    return this.#follow(this.next.allocation(offset, length))
  }

  #follow<Result>(answer: Promise<Result>): Promise<Result> {
    return new Promise((resolve, reject) => {
      const pending: Pending = { look: this.#looks, reject }
      this.#pending.add(pending)
      this.#timer ??= this.#lookLater()
      answer.then(
        result => {
          if (this.#pending.delete(pending)) resolve(result)
        },
        (error: unknown) => {
          // What the replica rejected with goes on as it is.
          // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors
          if (this.#pending.delete(pending)) reject(error)
        }
      )
    })
  }

  #lookLater(): Timer {
    return this.#clock.after(this.#lookEveryMs, () => {
      this.#looks++
      this.#timer = null
      for (const oldest of this.#pending) {
        if (this.#looks - oldest.look > LOOKS) this.abort(SILENCE)
        else this.#timer = this.#lookLater()
        return
      }
    })
  }

  #end(reason: string): void {
    this.#timer?.cancel()
    this.#timer = null
    const error = new XosanError('SESSION_STALE', { session: 'of before', current: reason })
    for (const { reject } of this.#pending) reject(error)
    this.#pending.clear()
  }
}
