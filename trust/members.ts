import { type HostId } from '../core/units.ts'

/** A host of the SR, and the certificates by which it may be known. */
export interface Member {
  readonly host: HostId
  /** Random id of its admission: a host that was removed and joined again has another, and its old connections end. */
  readonly admission: string
  /** SHA-256 of each of its certificates in lower-case hexadecimal: two while one follows the other. */
  readonly certificates: readonly string[]
}

/** The hosts that may speak to each other, as this process knows them last. */
export class MemberList {
  #members: ReadonlyMap<HostId, Member>
  readonly #listeners = new Set<() => void>()

  constructor(members: readonly Member[]) {
    this.#members = byHost(members)
  }

  get(host: HostId): Member | undefined {
    return this.#members.get(host)
  }

  /** Takes the place of the whole list; connections of hosts that are no longer on it end before this returns. */
  replace(members: readonly Member[]): void {
    this.#members = byHost(members)
    for (const listener of this.#listeners) listener()
  }

  /** @returns what ends the subscription */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }
}

const byHost = (members: readonly Member[]): ReadonlyMap<HostId, Member> =>
  new Map(members.map(member => [member.host, member]))
