import { type HostId } from '../core/units.ts'

/** Who makes a call, as far as the connection proves it. */
export interface Caller {
  /**
   * The member of the SR that TLS has authenticated. Null for everybody else whom a listener lets in: on a unix socket
   * or, in clear, on the loopback a process of this host; at enrolment a host that has no certificate yet.
   */
  readonly host: HostId | null
}

/** Whoever came without a certificate: through a unix socket, or in clear over the loopback. */
export const UNNAMED_CALLER: Caller = { host: null }
