import { type ConnectionInfo } from './export.ts'

/** Why a connection ended, or was not taken. */
export type CloseCode =
  /** The client said goodbye. */
  | 'disconnected'
  /** The client closed its end between two messages. */
  | 'ended'
  /** The client closed its end in the middle of a message. */
  | 'truncated'
  /** A message that the protocol does not allow and after which nothing can be understood. */
  | 'malformed'
  /** The client wanted an export that it cannot have, by the convention that has no error reply. */
  | 'refused'
  | 'handshake-timeout'
  | 'too-many-connections'
  /** The device said that this session's right to exist is over. */
  | 'session-over'
  | 'socket-error'
  | 'server-closing'
  /** A bug of ours. */
  | 'internal'

export interface CloseReason {
  readonly code: CloseCode
  /** In words, for the log. */
  readonly detail: string
}

/**
 * What a server tells its log: each connection's end, the first request of a connection that a device failed, and
 * connections that the system could not give us (too many open files).
 */
export type ServerEvent =
  | { readonly kind: 'closed'; readonly connection: ConnectionInfo; readonly reason: CloseReason }
  | { readonly kind: 'request-failed'; readonly connection: ConnectionInfo; readonly error: unknown }
  | { readonly kind: 'accept-failed'; readonly listener: string; readonly error: Error }
