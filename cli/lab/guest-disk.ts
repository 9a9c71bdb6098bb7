import { millis } from '../../core/units.ts'
import { createNodeClock } from '../../daemon/ports/node-clock.ts'
import { NbdClient } from '../../datapath/replica-remote/nbd-client.ts'

/** Where a guest connects. */
export interface NbdAddress {
  /** Path of a unix socket. */
  readonly socket: string
  readonly exportName: string
}

/** Trouble is a wait, not an error: a guest's patience, like ours, must exceed the longest takeover. */
const REQUEST_DEADLINE_MS = millis(120_000)
const CONNECT_DEADLINE_MS = millis(30_000)
const BYTES_IN_FLIGHT_MAX = 64 * 1024 * 1024

const clock = createNodeClock()

/** Connects to a volume as its guest does. @throws XosanError as `NbdClient.connect` */
export function connectDisk({ socket, exportName }: NbdAddress): Promise<NbdClient> {
  const options = {
    address: { path: socket },
    exportName,
    peer: socket,
    clock,
    requestDeadlineMs: REQUEST_DEADLINE_MS,
    bytesInFlightMax: BYTES_IN_FLIGHT_MAX,
    sequenced: false,
  }
  return NbdClient.connect(options, CONNECT_DEADLINE_MS)
}
