/** What the attacker's process and the one that drives it say to each other: a line of JSON each way. */

/** What a port speaks once it has let somebody in. */
export type Protocol = 'rpc' | 'nbd' | 'etcd'

/** How somebody tries to get in. */
export type Way =
  | 'silent'
  | 'garbage'
  /** In clear, as the protocol would be spoken without TLS. */
  | 'json-rpc'
  | 'nbd'
  | 'http'
  /** As it should be: TLS at once, or after STARTTLS where NBD is spoken; then one question. */
  | 'tls'
  | 'tls-1.2'
  /** STARTTLS is asked, and no TLS follows. */
  | 'starttls-garbage'
  /** STARTTLS, and behind it in the same packet what must not be believed to have come through TLS. */
  | 'starttls-injected'

export interface Credentials {
  readonly keyPem: string
  readonly certificatePem: string
}

interface Target {
  readonly address: string
  readonly port: number
}

/** One connection. */
export interface Attempt extends Target {
  readonly kind: 'attempt'
  readonly protocol: Protocol
  readonly way: Way
  /** Own address, one of those of the attacker's interface. */
  readonly from: string
  /** Shown in TLS; null: none. */
  readonly credentials: Credentials | null
}

/** Connections that never finish their handshake, as many as asked for, until `release`. */
export interface Flood {
  readonly kind: 'flood'
  readonly targets: readonly Target[]
  readonly from: readonly string[]
  readonly connections: number
}

/** A connection of somebody who may, asking again and again until it is ended. */
export interface Linger extends Target {
  readonly kind: 'linger'
  readonly protocol: Protocol
  readonly credentials: Credentials
}

export type Order = (Attempt | Flood | Linger | { readonly kind: 'release' }) & { readonly id: number }

export interface AttemptOutcome {
  /** What a protocol behind the door has answered, if it has. */
  readonly answer: string | null
  /** When the other end closed, in milliseconds; null when it had not when the attacker gave up. */
  readonly closedAfterMs: number | null
}

export interface FloodOutcome {
  readonly opened: number
  /** Which the other end has closed. */
  readonly closed: number
  /** Which could not be opened. */
  readonly failed: number
}

export interface LingerOutcome {
  /** Milliseconds since 1970; null when it never was. */
  readonly lastAnsweredAt: number | null
}

export type Report =
  | { readonly id: number; readonly attempt: AttemptOutcome }
  | { readonly id: number; readonly flood: FloodOutcome }
  | { readonly id: number; readonly linger: LingerOutcome }
