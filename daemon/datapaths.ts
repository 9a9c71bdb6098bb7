import { join } from 'node:path'
import { hasCode, XosanError } from '../core/errors.ts'
import { datapathIndexOf } from '../core/placement/datapath-index.ts'
import { type Clock } from '../core/ports/clock.ts'
import { type VolumeKey } from '../core/units.ts'
import { RpcClient } from '../rpc/client.ts'
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

/** Socket of a datapath process below the run directory; both sides take the name from here. */
export const datapathSocket = (runDirectory: string, index: number): string =>
  join(runDirectory, `datapath-${index}.sock`)

interface Answer {
  readonly index: number
  readonly status: DatapathResult<'datapath.status'> | null
}

/** The datapath processes of this host, over their unix sockets. */
export class Datapaths implements LocalDatapath {
  readonly #clients: readonly RpcClient[]

  constructor({ runDirectory, count, clock }: { runDirectory: string; count: number; clock: Clock }) {
    this.#clients = Array.from({ length: count }, (_, index) => {
      const address = datapathSocket(runDirectory, index)
      return new RpcClient({
        address,
        clock,
        unreachable: reason => new XosanError('DATAPATH_UNREACHABLE', { index, reason }),
      })
    })
  }

  async call<M extends VolumeMethod | ReplicaMethod>(
    method: M,
    params: DatapathParams<M>,
    deadlineMs: number
  ): Promise<DatapathResult<M>> {
    // The keys in parameters are checked texts already; only their brand is lost in the schema's input type.
    const index = datapathIndexOf(params.volume as VolumeKey, this.#clients.length)
    return this.#callAt(index, method, params, deadlineMs)
  }

  /** Makes all processes read `stores.json` again. @throws XosanError what one that is up answered */
  async reload(): Promise<void> {
    await Promise.all(
      this.#clients.map(async (_, index) => {
        try {
          await this.#callAt(index, 'store.reload', {}, RELOAD_MS)
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
