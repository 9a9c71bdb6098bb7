import { readFile } from 'node:fs/promises'
import { isAbsolute } from 'node:path'
import { z } from 'zod'
import { reasonOf, XosanError } from '../core/errors.ts'
import { hostId } from '../rpc/identifiers.ts'
import { issuesOf } from '../rpc/wire.ts'

/** An object that refuses keys it does not know and says which ones it does: a misspelt key must not be ignored. */
const closedObject = <S extends z.core.$ZodLooseShape>(shape: S) =>
  z.strictObject(shape, {
    error: issue =>
      issue.code === 'unrecognized_keys'
        ? `unknown key ${issue.keys.join(', ')}; known are ${Object.keys(shape).join(', ')}`
        : undefined,
  })

const absolutePath = z.string().refine(isAbsolute, 'must be an absolute path')
const port = z.number().int().min(1).max(65_535)
/** An address, not a name: looking a name up could hang, or differ between hosts. */
const ipAddress = z.union([z.ipv4(), z.ipv6()], { error: 'must be an IPv4 or IPv6 address' })
const durationMs = z.number().int().min(1).max(600_000)

const configSchema = closedObject({
  host: closedObject({ uuid: hostId, name: z.string().min(1), address: ipAddress }),
  /** Sockets and locks; gone after a reboot. */
  runDirectory: absolutePath,
  /** The catalogue, `stores.json`; must survive reboots. */
  stateDirectory: absolutePath,
  /** Where an SR keeps its stores when its device-config names no `path`. */
  defaultPath: absolutePath,
  /**
   * Datapath processes of this host. Two keep one busy volume from delaying all others; each further one costs
   * dom0's memory.
   */
  datapaths: z.number().int().min(1).max(16).default(2),
  ports: closedObject({
    /** xosand, called by other hosts' xosand. */
    peer: port.default(7700),
    /** Control of datapath process `i` is on this port plus `i`. */
    datapath: port.default(7710),
    /** Replicas served by datapath process `i` are on this port plus `i`. */
    nbd: port.default(7730),
  }).prefault({}),
  coordinator: closedObject({
    kind: z.literal('embedded'),
    /** The SQLite file that all hosts share. */
    path: absolutePath,
  }),
  timing: closedObject({
    /** Several heartbeats must fit into the promise time, so that a lost one costs nothing. */
    heartbeatIntervalMs: durationMs.default(500),
    /**
     * How long a replica keeps others out for a primary that it hears nothing from. Longer delays the failover,
     * which must be done in 10 s; shorter makes a stall of a busy dom0 look like a death.
     */
    promiseTimeMs: durationMs.default(4000),
    /** A replica that owes an answer for this long is recorded as not in-sync, so that the guest goes on. */
    replicaTimeoutMs: durationMs.default(3000),
    /** A call to the coordinator ends after this time, with a result or without. */
    coordinatorCallMs: durationMs.default(5000),
    /** How often the janitor looks for half-done operations and tombstones. */
    janitorIntervalMs: durationMs.default(5000),
  }).prefault({}),
  logLevel: z.enum(['error', 'warn', 'info', 'debug']).default('info'),
})

/** What a host's programs need to know to start; the file is JSON. */
export type Config = z.infer<typeof configSchema>

/**
 * Checks a configuration and fills in what it leaves out.
 *
 * @param value as parsed from JSON
 * @throws XosanError INVALID_ARGUMENT naming every key that is wrong
 */
export function parseConfig(value: unknown, what = 'The configuration'): Config {
  const parsed = configSchema.safeParse(value)
  if (parsed.success) return parsed.data
  throw new XosanError('INVALID_ARGUMENT', { what, reason: issuesOf(parsed.error) })
}

/** Reads a configuration file. @throws XosanError INVALID_ARGUMENT when it cannot be read or is wrong */
export async function readConfig(file: string): Promise<Config> {
  const what = `The configuration file ${file}`
  let value: unknown
  try {
    value = JSON.parse(await readFile(file, 'utf8'))
  } catch (error) {
    throw new XosanError('INVALID_ARGUMENT', { what, reason: reasonOf(error) }, { cause: error })
  }
  return parseConfig(value, what)
}
