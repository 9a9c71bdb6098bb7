import { readFile } from 'node:fs/promises'
import { isAbsolute } from 'node:path'
import { z } from 'zod'
import { reasonOf, XosanError } from '../core/errors.ts'
import { DEFAULT_TIMING, type MirrorTiming, PROMISE_SHARE_OF_PRIMARY } from '../core/mirror/timing.ts'
import { millis } from '../core/units.ts'
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

/** A duration of the mirror's protocol, with the shipped value as its default. */
const mirrorMs = (name: keyof MirrorTiming) => durationMs.transform(millis).prefault(DEFAULT_TIMING[name])

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
   * dom0's memory. None: a witness, which holds no data and may have a member of etcd.
   */
  datapaths: z.number().int().min(0).max(16).default(2),
  ports: closedObject({
    /** xosand, called by other hosts' xosand. */
    peer: port.default(7700),
    /** Control of datapath process `i` is on this port plus `i`. */
    datapath: port.default(7710),
    /** Replicas served by datapath process `i` are on this port plus `i`. */
    nbd: port.default(7730),
    /** Where hosts with a ticket join, on the host that holds the authority's key. */
    enrolment: port.default(7701),
    etcdClient: port.default(7750),
    etcdPeer: port.default(7751),
  }).prefault({}),
  /**
   * `loopback`: all hosts are addresses of one machine, speak in clear, and know each other by their coordinator.
   * `tls`: a host speaks to nobody until it is in a cluster, and then to its members only.
   */
  peers: z.enum(['loopback', 'tls']).default('tls'),
  coordinator: z.discriminatedUnion('kind', [
    closedObject({
      kind: z.literal('embedded'),
      /** The SQLite file that all hosts share. */
      path: absolutePath,
    }),
    closedObject({
      kind: z.literal('etcd'),
      /** The program that a member runs. */
      program: z.string().min(1).default('etcd'),
    }),
  ]),
  /** Who is in the pool, and how its hosts are called before they know each other. */
  pool: z
    .discriminatedUnion('kind', [
      closedObject({ kind: z.literal('none') }),
      /** Hosts of one machine, each called by its control socket, as xapi would call its plugin. */
      closedObject({
        kind: z.literal('sockets'),
        hosts: z.array(
          closedObject({
            uuid: hostId,
            name: z.string().min(1),
            address: ipAddress,
            controlSocket: absolutePath,
          })
        ),
      }),
    ])
    .prefault({ kind: 'none' }),
  timing: closedObject({
    // The mirror's; `core/mirror/timing.ts` tells what each of them bounds.
    heartbeatIntervalMs: mirrorMs('heartbeatIntervalMs'),
    promiseTimeMs: mirrorMs('promiseTimeMs'),
    replicaSilenceMs: mirrorMs('replicaSilenceMs'),
    requestTimeMs: mirrorMs('requestTimeMs'),
    reconnectGraceMs: mirrorMs('reconnectGraceMs'),
    callTimeoutMs: mirrorMs('callTimeoutMs'),
    preparationMs: mirrorMs('preparationMs'),
    retryDelayMs: mirrorMs('retryDelayMs'),
    clearIntervalMs: mirrorMs('clearIntervalMs'),
    rejoinIntervalMs: mirrorMs('rejoinIntervalMs'),
    /** A call to the coordinator ends after this time, with a result or without. */
    coordinatorCallMs: durationMs.default(5000),
    /** How often the janitor looks for half-done operations and tombstones. */
    janitorIntervalMs: durationMs.default(5000),
  })
    .refine(
      // Else the primary's own promise would lapse, and the guest wait, before a silent replica is taken out.
      ({ replicaSilenceMs, promiseTimeMs }) => replicaSilenceMs < PROMISE_SHARE_OF_PRIMARY * promiseTimeMs,
      `replicaSilenceMs must be less than ${PROMISE_SHARE_OF_PRIMARY} of promiseTimeMs`
    )
    .refine(
      ({ heartbeatIntervalMs, replicaSilenceMs }) => 2 * heartbeatIntervalMs <= replicaSilenceMs,
      'two heartbeats must fit into replicaSilenceMs, so that a lost one costs nothing'
    )
    .prefault({}),
  /** What only hosts of a lab may do (`xosan lab`). */
  lab: closedObject({
    /**
     * The datapath processes lose at their end what they had not synced, as if their host's power had been cut, and
     * keep at most so many bytes of it in memory: see `datapath/process/lab-power.ts`.
     */
    unsyncedBytesMax: z.number().int().min(65_536).max(1_073_741_824),
  }).optional(),
  logLevel: z.enum(['error', 'warn', 'info', 'debug']).default('info'),
})
  .refine(
    ({ peers, coordinator }) => peers === 'tls' || coordinator.kind === 'embedded',
    'peers: hosts on the loopback share the embedded coordinator; etcd needs tls'
  )
  .refine(
    ({ lab, peers, pool }) => lab === undefined || peers === 'loopback' || pool.kind === 'sockets',
    'lab: this is no host of a lab, and may not lose what is written to it'
  )

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
