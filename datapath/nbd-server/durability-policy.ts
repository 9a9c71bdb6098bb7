/**
 * - `until-client-asks`: for guests (see `DurabilityPolicy`);
 * - `always`: every change is durable before its reply, whatever the client says: sharable volumes;
 * - `as-asked`: exactly what each request says: for peers, which forward a decision made elsewhere.
 */
export type DurabilityMode = 'until-client-asks' | 'always' | 'as-asked'

/**
 * Whether a change must be durable before it is answered.
 *
 * NBD leaves un-flushed writes volatile, which is right for a client that flushes and a trap for one that cannot:
 * tapdisk has no FLUSH at all, yet its guest takes every completed barrier for durable. A server cannot ask, but it can
 * watch: a client that has sent FLUSH or FUA once has shown that it knows how to, and gets what it asks for
 * from then on. Until then each change is made durable, so a client that never asks loses nothing.
 *
 * The first flush also costs nothing in safety: what was answered before it is durable already. Each connection has
 * a policy of its own, so a client with several connections is trusted on those on which it has flushed.
 */
export class DurabilityPolicy {
  readonly #mode: DurabilityMode
  #clientAsks = false

  constructor(mode: DurabilityMode) {
    this.#mode = mode
  }

  /** The client has sent a FLUSH. */
  flushSeen(): void {
    this.#clientAsks = true
  }

  /** Whether this change must be durable before its reply. @param fua the request's own flag */
  mustBeDurable(fua: boolean): boolean {
    if (fua) this.#clientAsks = true
    if (this.#mode === 'always') return true
    return fua || (this.#mode === 'until-client-asks' && !this.#clientAsks)
  }
}
