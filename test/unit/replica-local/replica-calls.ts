/** What tests do to a replica on a simulated disk. */
import { byteLength, byteOffset } from '../../../core/units.ts'
import { systemError, type DiskCall } from '../../simulator/disk-call.ts'
import { ReplicaHost } from '../../support/replica-on-simulated-disk.ts'

export const MIB = 1024 * 1024
export const TIB = 1024 ** 4
export const BLOCK = 4096

export async function startedHost(size = 4 * MIB, seed = 1): Promise<ReplicaHost> {
  const host = new ReplicaHost(seed, size)
  await host.start()
  return host
}

export const bytes = (length: number, value: number): Uint8Array => new Uint8Array(length).fill(value)

export const write = (host: ReplicaHost, offset: number, data: Uint8Array, durable = false): Promise<void> =>
  host.replica.write({ offset: byteOffset(offset), data, durable })

export const trim = (host: ReplicaHost, offset: number, length: number): Promise<void> =>
  host.replica.trim({ offset: byteOffset(offset), length: byteLength(length), durable: false })

export async function read(host: ReplicaHost, offset: number, length: number): Promise<Uint8Array> {
  const into = bytes(length, 0xee)
  await host.replica.read(byteOffset(offset), into)
  return into
}

/** Counts disk calls by kind and the end of the file's name from here on. */
export function countCalls(host: ReplicaHost): Map<string, number> {
  const counts = new Map<string, number>()
  host.disk.fault = (call, name) => {
    const key = `${call} ${name.slice(name.lastIndexOf('.') + 1)}`
    counts.set(key, (counts.get(key) ?? 0) + 1)
  }
  return counts
}

/** Makes one kind of call on files whose name ends so fail, so many times. */
export function failCalls(
  host: ReplicaHost,
  call: DiskCall,
  suffix: string,
  code: string,
  times = Infinity
): void {
  let left = times
  host.disk.fault = (kind, name) => {
    if (kind !== call || !name.endsWith(suffix) || left === 0) return
    left -= 1
    throw systemError(code, call, name)
  }
}
