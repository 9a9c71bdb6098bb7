import { type z } from 'zod'
import { XosanError } from '../../core/errors.ts'
import { type Clock } from '../../core/ports/clock.ts'
import { type HostId } from '../../core/units.ts'
import { RpcClient } from '../../rpc/client.ts'
import { controlApi, type ControlParams, type ControlResult } from '../../rpc/control-api.ts'
import { type Config } from '../config.ts'

/** A host of the pool, in a cluster or not. */
export interface PoolHost {
  readonly uuid: HostId
  readonly name: string
  /** IP address at which the other hosts find it. */
  readonly address: string
}

/** What a host can be asked by whoever is root on it, before the hosts know each other, and about what they trust. */
export type PoolMethod =
  | 'cluster.check'
  | 'cluster.invite'
  | 'cluster.join'
  | 'cluster.leave'
  | 'cluster.trust'
  | 'cluster.request'
  | 'cluster.certify'

/** Who is in the pool, and a way to its hosts that does not need a cluster. */
export interface Pool {
  hosts(): Promise<readonly PoolHost[]>
  /** @throws XosanError the host's; PEER_UNREACHABLE, DEADLINE_EXCEEDED */
  call<M extends PoolMethod>(
    host: HostId,
    method: M,
    params: ControlParams<M>,
    deadlineMs: number
  ): Promise<ControlResult<M>>
}

/** The pool as the configuration tells it; without any, this host is alone. */
export function createPool(config: Config, clock: Clock): Pool {
  const { host, pool } = config
  return pool.kind === 'sockets' ? new SocketPool(pool.hosts, clock) : new SocketPool([host], clock)
}

interface SocketPoolHost extends PoolHost {
  readonly controlSocket?: string
}

/** Hosts of one machine, which may be called by whoever may use their control sockets. */
class SocketPool implements Pool {
  readonly #hosts: readonly SocketPoolHost[]
  readonly #clock: Clock

  constructor(hosts: readonly SocketPoolHost[], clock: Clock) {
    this.#hosts = hosts
    this.#clock = clock
  }

  async hosts(): Promise<readonly PoolHost[]> {
    return Promise.resolve(this.#hosts.map(({ uuid, name, address }) => ({ uuid, name, address })))
  }

  async call<M extends PoolMethod>(
    host: HostId,
    method: M,
    params: ControlParams<M>,
    deadlineMs: number
  ): Promise<ControlResult<M>> {
    const found = this.#hosts.find(({ uuid }) => uuid === host)
    const unreachable = (reason: string): XosanError =>
      new XosanError('PEER_UNREACHABLE', { host: found?.name ?? host, reason })
    if (found?.controlSocket === undefined) throw unreachable('the pool has no such host')
    const client = new RpcClient({ address: found.controlSocket, clock: this.#clock, unreachable })
    try {
      const schema: z.ZodType = controlApi[method].result
      // The schema is the one of this method; TypeScript does not follow the index type through.
      return (await client.call<unknown>(method, params, schema, { deadlineMs })) as ControlResult<M>
    } finally {
      client.close()
    }
  }
}
