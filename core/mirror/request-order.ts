/**
 * Overlapping requests run one after the other, in the order in which they came.
 *
 * Replicas apply what they receive at once and in no particular order, so two overlapping changes under way
 * together could end up in a different order on each. A read beside an overlapping change could return a value
 * that is on one replica only.
 *
 * A lock keeps changes away from a region while it is copied between replicas. It lets reads pass: a read of a
 * region that must first be reconciled waits for the very copy that the lock is for. For the same reason a
 * lock overtakes changes that still wait, which may be waiting for such a read.
 */

export type Access = 'read' | 'change' | 'lock'

/** A range of bytes and what is done to it. */
export interface OrderedRange {
  readonly offset: number
  readonly length: number
  readonly access: Access
}

/** Whether two accesses to the same bytes must not run together. */
const EXCLUDES: Readonly<Record<Access, Readonly<Record<Access, boolean>>>> = {
  read: { read: false, change: true, lock: false },
  change: { read: true, change: true, lock: true },
  lock: { read: false, change: true, lock: true },
}

const conflicts = (a: OrderedRange, b: OrderedRange): boolean =>
  EXCLUDES[a.access][b.access] && a.offset < b.offset + b.length && b.offset < a.offset + a.length

export class RequestOrder<Request extends OrderedRange> {
  readonly #running = new Set<Request>()
  /** In order of arrival, locks first; nobody overtakes an earlier one that it overlaps, so nobody starves. */
  #waiting: Request[] = []

  /** Takes a request. @returns true when it may run now; else it comes back from a later `finish` */
  submit(request: Request): boolean {
    if (request.access === 'lock') {
      const locks = this.#waiting.findIndex(waiting => waiting.access !== 'lock')
      const ahead = locks === -1 ? this.#waiting.length : locks
      if (this.#blocked(request, this.#waiting, ahead)) {
        this.#waiting.splice(ahead, 0, request)
        return false
      }
    } else if (this.#blocked(request, this.#waiting, this.#waiting.length)) {
      this.#waiting.push(request)
      return false
    }
    this.#running.add(request)
    return true
  }

  /** Ends a request. @returns those that may run now because of it, in order */
  finish(request: Request): Request[] {
    this.#running.delete(request)
    if (this.#waiting.length === 0) return []
    const free: Request[] = []
    const still: Request[] = []
    for (const next of this.#waiting) {
      if (this.#blocked(next, still, still.length)) {
        still.push(next)
      } else {
        this.#running.add(next)
        free.push(next)
      }
    }
    this.#waiting = still
    return free
  }

  /** Whether a change that touches this range is running or waiting. */
  changing(offset: number, length: number): boolean {
    const probe = { offset, length, access: 'read' } as const
    for (const running of this.#running) if (conflicts(probe, running)) return true
    return this.#waiting.some(waiting => conflicts(probe, waiting))
  }

  #blocked(request: Request, waiting: readonly Request[], ahead: number): boolean {
    for (const running of this.#running) if (conflicts(request, running)) return true
    for (let i = 0; i < ahead; i++) if (conflicts(request, waiting[i]!)) return true
    return false
  }
}
