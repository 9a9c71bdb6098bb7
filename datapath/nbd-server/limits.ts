import { millis, type Millis } from '../../core/units.ts'

/** What one server allows its clients to hold. */
export interface NbdLimits {
  readonly connectionsMax: number
  /** Requests of one connection whose replies the kernel has not taken yet. */
  readonly requestsInFlightMax: number
  /** Bytes of requests and replies of one connection under way. */
  readonly connectionBytesMax: number
  /** The same of all connections together; see `InFlightBudget` for who may go beyond. */
  readonly serverBytesMax: number
  /** From the connection to the choice of an export. */
  readonly handshakeMs: Millis
  /** How long a closing connection may take to read its last replies. */
  readonly lingerMs: Millis
}

const MIB = 1024 * 1024

export const DEFAULT_LIMITS: NbdLimits = {
  // A process serves some dozens of volumes with a few connections each; four times that is somebody's mistake.
  connectionsMax: 512,
  // tapdisk has 352 in flight at most, QEMU 16, libnbd 64 per connection: none of them shall notice.
  requestsInFlightMax: 1024,
  // Two of the largest requests: one on the disk while the next one arrives.
  connectionBytesMax: 64 * MIB,
  // dom0 has little memory; this keeps the disks busy at any latency below 100 ms and 1 GB/s.
  serverBytesMax: 128 * MIB,
  // A slow dom0 at boot needs seconds; a scanner that just holds the line deserves none.
  handshakeMs: millis(30_000),
  lingerMs: millis(2_000),
}
