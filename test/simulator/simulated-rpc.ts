/**
 * Calls between processes as `rpc/` carries them: parameters, results and errors travel as JSON and are checked by the
 * schemas of the production code; who calls hears within its deadline, or that the connection was refused or lost.
 */
import { type z } from 'zod'
import { XosanError } from '../../core/errors.ts'
import { type Millis } from '../../core/units.ts'
import { type RpcCaller } from '../../rpc/client.ts'
import { errorOfResponse, errorResponse, issuesOf } from '../../rpc/wire.ts'
import { type NetworkHost, type SimulatedNetwork } from './network.ts'

/** A method as a process serves it. */
export interface ServedMethod {
  readonly params: z.ZodType
  readonly answer: (params: never) => Promise<unknown>
}

interface CallerOptions {
  readonly network: SimulatedNetwork
  readonly from: NetworkHost
  readonly to: NetworkHost
  /** What the process that runs there serves; asked when a call arrives. */
  readonly served: () => Readonly<Record<string, ServedMethod>>
  readonly unreachable: (reason: string) => XosanError
  /** Told of each call that is answered, at the moment at which the caller hears of it. */
  readonly answered?: () => void
}

const throughJson = (value: unknown): unknown => JSON.parse(JSON.stringify(value)) as unknown

export class SimulatedRpcCaller implements RpcCaller {
  readonly #options: CallerOptions

  constructor(options: CallerOptions) {
    this.#options = options
  }

  async call<R>(
    method: string,
    params: Readonly<Record<string, unknown>>,
    schema: z.ZodType<R>,
    { deadlineMs }: { readonly deadlineMs: number }
  ): Promise<R> {
    const { network, from, to, served, unreachable, answered } = this.#options
    const caller = from.process!
    const asked = throughJson(params)
    return new Promise<R>((resolve, reject) => {
      let isOver = false
      const timer = caller.clock.after(deadlineMs as Millis, () => {
        isOver = true
        reject(new XosanError('DEADLINE_EXCEEDED', { what: method, deadlineMs }))
      })
      const back = (settle: () => void): void => {
        network.send(to, from, () => {
          caller.deliver(() => {
            if (isOver) return
            isOver = true
            timer.cancel()
            settle()
            answered?.()
          })
        })
      }
      network.send(from, to, () => {
        const server = to.process
        if (server === null) {
          if (to.poweredOn) back(() => reject(unreachable('connection refused')))
          return
        }
        void server.ended.then(() => {
          // A machine without power says nothing.
          if (!isOver && to.poweredOn) back(() => reject(unreachable('it closed the connection')))
        })
        server.deliver(() => {
          answer(served()[method], method, asked).then(
            result => {
              if (server.alive) back(() => settleWith(result, method, schema, resolve, reject))
            },
            (error: unknown) => {
              const told = errorResponse(0, error).error
              if (server.alive) back(() => reject(errorOfResponse(told)))
            }
          )
        })
      })
    })
  }

  close(): void {
    // Nothing is kept between calls.
  }
}

async function answer(served: ServedMethod | undefined, method: string, asked: unknown): Promise<unknown> {
  if (served === undefined) throw new XosanError('UNSUPPORTED', { what: method, reason: 'it is not served' })
  const parsed = served.params.safeParse(asked)
  if (parsed.success) return throughJson(await served.answer(parsed.data as never))
  const reason = issuesOf(parsed.error)
  throw new XosanError('INVALID_ARGUMENT', { what: `A parameter of ${method}`, reason })
}

function settleWith<R>(
  result: unknown,
  method: string,
  schema: z.ZodType<R>,
  resolve: (result: R) => void,
  reject: (error: Error) => void
): void {
  const parsed = schema.safeParse(result)
  if (parsed.success) resolve(parsed.data)
  else {
    const reason = `the result of ${method}: ${issuesOf(parsed.error)}`
    reject(new XosanError('PROTOCOL_VIOLATION', { reason }))
  }
}
