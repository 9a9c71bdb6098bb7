import { type Millis, type ReplicaId } from '../units.ts'

/** Something that a replica said it cannot do, because its disk is full or fails. */
export interface Refusal<Request> {
  readonly request: Request
  readonly replica: ReplicaId
  /** When it first said so. */
  readonly since: Millis
}

interface Standing {
  readonly since: Millis
  /** The replica has been asked again and has not answered yet. */
  isAskedAgain: boolean
}

/**
 * What replicas have refused and are asked again. A disk may have space later, and a sector that cannot be read may be
 * readable after the disk was reset; so a refusal of a replica that cannot be done without is a wait, and only of the one
 * request: whatever else the guest asks goes on.
 */
export class Refusals<Request> {
  readonly #refusals = new Map<Request, Map<ReplicaId, Standing>>()
  readonly #aside = new Set<Request>()

  /** How many requests are refused by somebody. */
  get count(): number {
    return this.#refusals.size
  }

  add(request: Request, replica: ReplicaId, now: Millis): void {
    const replicas = this.#refusals.get(request) ?? new Map<ReplicaId, Standing>()
    this.#refusals.set(request, replicas)
    replicas.set(replica, { since: replicas.get(replica)?.since ?? now, isAskedAgain: false })
  }

  /** Notes that a replica is asked again. @returns false when it has been, and has not answered that yet */
  askAgain(request: Request, replica: ReplicaId): boolean {
    const standing = this.#refusals.get(request)?.get(replica)
    if (standing === undefined || standing.isAskedAgain) return false
    standing.isAskedAgain = true
    return true
  }

  /** The replica has done it after all. */
  delete(request: Request, replica: ReplicaId): void {
    const replicas = this.#refusals.get(request)
    if (replicas?.delete(replica) === true && replicas.size === 0) this.#refusals.delete(request)
  }

  /** The request has come to its end. */
  forget(request: Request): void {
    this.#refusals.delete(request)
    this.#aside.delete(request)
  }

  /** Nobody is asked for a request, until all that are put aside are taken up again. */
  putAside(request: Request): void {
    this.#aside.add(request)
  }

  /** Whether a request is put aside: nobody is asked for it now. */
  isAside(request: Request): boolean {
    return this.#aside.has(request)
  }

  /** @returns what was put aside, to be asked for again */
  takeAside(): Request[] {
    const requests = [...this.#aside]
    this.#aside.clear()
    return requests
  }

  /** What a replica refuses. */
  of(replica: ReplicaId): Refusal<Request>[] {
    return this.all().filter(refusal => refusal.replica === replica)
  }

  all(): Refusal<Request>[] {
    return [...this.#refusals].flatMap(([request, replicas]) =>
      [...replicas].map(([replica, { since }]) => ({ request, replica, since }))
    )
  }
}
