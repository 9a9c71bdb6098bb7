/**
 * How much a process may have under way: whatever happens around it, memory and queues stay bounded. What is counted is
 * at its ports, because everything that waits inside of it waits for one of them, or was asked by a guest that has a
 * bounded number of requests.
 */
import { type Coordinator } from '../../core/ports/coordinator.ts'
import { type Port, type SimulatedProcess } from './world.ts'

/**
 * Twice what was seen in some hundred universes, with some ten requests of guests on each of two volumes of up to three
 * copies: sixteen regions are copied at once, in a few pieces each, and a hung disk admits only so many before it refuses.
 * A process that goes on after a stop of half a minute takes up at once what xosand had asked it all the while.
 */
const BOUNDS: Readonly<Record<Port, number>> = { calls: 60, requests: 150, disk: 150, coordinator: 48 }

/** @returns what is more than it may be; null when nothing is */
export const excess = (port: Port, underWay: number): string | null =>
  underWay > BOUNDS[port] ? `${underWay} ${port} under way` : null

/** A coordinator whose calls count as under way in the process that makes them. */
export function counted(coordinator: Coordinator, process: SimulatedProcess): Coordinator {
  const count = async <Result>(call: () => Promise<Result>): Promise<Result> =>
    call().finally(process.begin('coordinator'))
  return {
    read: async key => count(async () => coordinator.read(key)),
    list: async prefix => count(async () => coordinator.list(prefix)),
    transact: async (conditions, changes) => count(async () => coordinator.transact(conditions, changes)),
    watch: (...words) => coordinator.watch(...words),
    close: async () => coordinator.close(),
  }
}
