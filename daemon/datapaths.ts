import { join } from 'node:path'
import { hasCode, XosanError } from '../core/errors.ts'
import { datapathIndexOf } from '../core/placement/datapath-index.ts'
import { type Clock, pause } from '../core/ports/clock.ts'
import { millis, type VolumeKey } from '../core/units.ts'
import { type RpcCaller, RpcClient } from '../rpc/client.ts'
import {
  datapathApi,
  type DatapathMethod,
  type DatapathParams,
  type DatapathResult,
} from '../rpc/datapath-api.ts'
import { type LocalDatapath, type ReplicaMethod, type VolumeMethod } from '../volume/context.ts'

/** Re-reading a small file; a process that takes longer is stopped, and reads it when it goes on or starts anew. */
const RELOAD_MS = 5000
const STATUS_MS = 3000
/** A process that died is back within a second or two; one that is not back by then is broken. */
const RESTART_MS = 10_000
const RESTART_POLL_MS = 100

/** Socket of a datapath process below the run directory; both sides take the name from here. */
export const datapathSocket = (runDirectory: string, index: number): string =>
  join(runDirectory, `datapath-${index}.sock`)

/** Clients of this host's datapath processes, over their unix sockets. */
export const datapathClients = (runDirectory: string, count: number, clock: Clock): RpcCaller[] =>
  Array.from({ length: count }, (_, index) => {
    const address = datapathSocket(runDirectory, index)
    return new RpcClient({
      address,
      clock,
      unreachable: reason => new XosanError('DATAPATH_UNREACHABLE', { index, reason }),
    })
  })

interface Answer {
  readonly index: number
  readonly status: DatapathResult<'datapath.status'> | null
}

/** The datapath processes of this host. */
export class Datapaths implements LocalDatapath {
  readonly #clients: readonly RpcCaller[]
  readonly #clock: Clock

  /** @param clients one for each process, in the order of their indexes */
  constructor(clients: readonly RpcCaller[], clock: Clock) {
    this.#clients = clients
    this.#clock = clock
  }

  /**
   * Calls the process that owns the volume. While it is being started again the call waits: xapi does not repeat
   * one that failed, and every method may be called twice.
   *
   * @throws XosanError the process's; DATAPATH_UNREACHABLE when it does not come back
   */
  async call<M extends VolumeMethod | ReplicaMethod>(
    method: M,
    params: DatapathParams<M>,
    deadlineMs: number
  ): Promise<DatapathResult<M>> {
    if (this.#clients.length === 0) {
      throw new XosanError('UNSUPPORTED', {
        what: 'Volumes on a witness',
        reason: 'it holds no data and runs no datapath process',
      })
    }
    // The keys in parameters are checked texts already; only their brand is lost in the schema's input type.
    const index = datapathIndexOf(params.volume as VolumeKey, this.#clients.length)
    const startedAt = this.#clock.now()
    for (;;) {
      const elapsedMs = this.#clock.now() - startedAt
      try {
        return await this.#callAt(index, method, params, Math.max(deadlineMs - elapsedMs, 1))
      } catch (error) {
        const over = elapsedMs + RESTART_POLL_MS >= Math.min(RESTART_MS, deadlineMs)
        if (!hasCode(error, 'DATAPATH_UNREACHABLE') || over) throw error
      }
      await pause(this.#clock, millis(RESTART_POLL_MS))
    }
  }

  /**
   * Makes all processes look at their files again: `stores.json`, or the cluster's.
   * @throws XosanError what one that is up answered
   */
  async reload(method: 'store.reload' | 'cluster.reload'): Promise<void> {
    await Promise.all(
      this.#clients.map(async (_, index) => {
        try {
          await this.#callAt(index, method, {}, RELOAD_MS)
        } catch (error) {
          if (!hasCode(error, 'DATAPATH_UNREACHABLE')) throw error
        }
      })
    )
  }

  /** What each process is doing; null for one that does not answer. */
  async status(): Promise<Answer[]> {
    return Promise.all(
      this.#clients.map(async (_, index) => ({
        index,
        status: await this.#callAt(index, 'datapath.status', {}, STATUS_MS).catch(() => null),
      }))
    )
  }

  close(): void {
    for (const client of this.#clients) client.close()
  }

  async #callAt<M extends DatapathMethod>(
    index: number,
    method: M,
    params: DatapathParams<M>,
    deadlineMs: number
  ): Promise<DatapathResult<M>> {
    const schema = datapathApi[method].result
    // The schema is the one of this method; TypeScript does not follow the index type through.
    return (await this.#clients[index]!.call<unknown>(method, params, schema, {
      deadlineMs,
    })) as DatapathResult<M>
  }
}
