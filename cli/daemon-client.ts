import { XosanError } from '../core/errors.ts'
import { createNodeClock } from '../daemon/ports/node-clock.ts'
import { RpcClient } from '../rpc/client.ts'
import { type ControlMethod, type ControlParams, type ControlResult, controlApi } from '../rpc/control-api.ts'
import { type z } from 'zod'

/** Where xosand listens on a host that nobody configured otherwise. */
export const DEFAULT_SOCKET = '/run/xosan/control.sock'
/** A host that is away is asked by xosand for some seconds before it is called down. */
const DEADLINE_MS = 15_000

/** The control socket of one xosand. */
export class DaemonClient {
  readonly #client: RpcClient

  constructor(socket: string) {
    this.#client = new RpcClient({
      address: socket,
      clock: createNodeClock(),
      unreachable: reason => new XosanError('DAEMON_UNREACHABLE', { path: socket, reason }),
    })
  }

  /** @throws XosanError the daemon's; DAEMON_UNREACHABLE; DEADLINE_EXCEEDED */
  call<M extends ControlMethod>(
    method: M,
    params: ControlParams<M>,
    deadlineMs = DEADLINE_MS
  ): Promise<ControlResult<M>> {
    // The table's entry and its result belong together by key, which the compiler cannot follow through a union.
    const schema = controlApi[method].result as unknown as z.ZodType<ControlResult<M>>
    return this.#client.call(method, params, schema, { deadlineMs })
  }

  close(): void {
    this.#client.close()
  }
}
