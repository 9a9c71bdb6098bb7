/** What a load generator and the process that drives it say to each other, as JSON over Node's IPC channel. */
import { type ProcessHandle } from '../../../daemon/supervision/process-handle.ts'
import { type Mismatch } from './sector-model.ts'

export interface LoadOptions {
  /** Unix socket of the NBD server, and the name of its export. */
  readonly socket: string
  readonly exportName: string
  /** Journal of this volume; what it holds already is checked against the volume first. */
  readonly journal: string
  readonly seed: number
  /** Writes kept in flight. */
  readonly writes: number
  /** Reads kept in flight. */
  readonly reads: number
  /** A FLUSH after this many writes; 0: never, as tapdisk. */
  readonly flushEvery: number
  /** Only check the volume against the journal. */
  readonly checkOnly?: boolean
}

export type LoadCommand =
  /** Signal these as soon as enough writes are in flight. */
  | {
      readonly kind: 'signal'
      readonly name: 'SIGKILL' | 'SIGSTOP'
      readonly processes: readonly ProcessHandle[]
      readonly writesInFlightMin: number
    }
  /** Forget the longest waits so far. */
  | { readonly kind: 'mark' }
  | { readonly kind: 'report' }
  | { readonly kind: 'stop' }

export interface LoadReport {
  readonly writesIssued: number
  readonly writesAcknowledged: number
  /** Acknowledgements that are durable in the journal. */
  readonly acknowledgementsDurable: number
  /** Writes that overlapped another one in flight when they were sent. */
  readonly writesOverlapping: number
  readonly readsVerified: number
  readonly bytesVerified: number
  readonly writesInFlight: number
  /** Longest time that a request has waited for its answer since the last mark, also one that still waits. */
  readonly longestStallMs: number
  /** Longest time since the last mark in which nothing at all was answered. */
  readonly longestSilenceMs: number
  readonly connectionLost: boolean
  /** Writes that were in flight when the connection was lost. */
  readonly writesInFlightAtLoss: number
  /** Error answers, the first few. */
  readonly errors: readonly string[]
  /** Wrong content, the first few. */
  readonly mismatches: readonly Mismatch[]
  readonly mismatchCount: number
}

export type LoadMessage =
  /** The volume agrees with the journal (or not: see the report), and the load begins. */
  | { readonly kind: 'started'; readonly report: LoadReport }
  | { readonly kind: 'signalled'; readonly writesInFlight: number }
  | { readonly kind: 'report'; readonly report: LoadReport }
  /** The load has ended, by order or because the connection was lost. */
  | { readonly kind: 'ended'; readonly report: LoadReport }
