/**
 * Where everything of a lab is. A lab is one directory:
 *
 *     lab.json            this file's schema: subnet, hosts, where the sockets are
 *     lab.lock            held while a command changes the lab
 *     coordinator/        the embedded coordinator's database, shared by all hosts (none with etcd)
 *     h1/ h2/ ... w1/     one host each; w1 is the witness
 *       config.json       what xosand and the datapath processes read
 *       pids.json         who runs, written by the host's supervisor
 *       state/ stores/ log/ plugins/
 *       disk.ext4         the file system that is mounted at stores/, if the host has one of its own
 *       run/              sockets (elsewhere when the path would be too long for a socket)
 */
import { mkdtemp, readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import { XosanError, reasonOf } from '../../core/errors.ts'

/** A unix socket's path has 108 bytes in sockaddr_un, the last one a NUL: see unix(7). */
const SOCKET_PATH_BYTES_MAX = 107
/** Room for the longest name below a run directory: a folder and a volume's UUID with a suffix. */
const SOCKET_NAME_BYTES = 62

const labHostSchema = z.strictObject({
  name: z.string().regex(/^(h[1-9]\d?|w1)$/),
  uuid: z.uuid(),
  address: z.ipv4(),
  /** It has no datapath processes and no stores; it may have a member of etcd. */
  witness: z.literal(true).optional(),
})

const networkSchema = z.discriminatedUnion('kind', [
  /** Hosts are addresses of the machine's loopback. */
  z.strictObject({ kind: z.literal('none') }),
  /** Every host has a network namespace; the names of all of them begin with `name`. */
  z.strictObject({ kind: z.literal('netns'), name: z.string().regex(/^xosan-[0-9a-f]{8}$/) }),
])

/** What has a default was added later: a lab that was made before goes on. */
const labSchema = z.strictObject({
  version: z.literal(1),
  network: networkSchema.default({ kind: 'none' }),
  coordinator: z.enum(['embedded', 'etcd']).default('embedded'),
  /** Whether the hosts speak to each other with certificates only, and so to nobody before there is an SR. */
  tls: z.boolean().default(false),
  /** First three bytes of every host's address. */
  subnet: z.string().regex(/^(127|10)\.\d{1,3}\.\d{1,3}$/),
  /** Directory of the programs that the hosts run. */
  programs: z.string(),
  /** Directory of the hosts' run directories when they cannot be inside of the lab; null when they are. */
  runDirectory: z.string().nullable(),
  /** Whether `lab up` made the lab's directory, so that `lab down` may remove it. */
  createdDirectory: z.boolean(),
  /** Datapath processes per host. */
  datapaths: z.number().int().min(1).max(16),
  /** Hosts whose datapath processes lose what they have not synced, and how much they may keep. */
  powerCuts: z
    .strictObject({ hosts: z.array(z.string()), unsyncedBytesMax: z.number().int().positive() })
    .nullable()
    .default(null),
  /** Size in bytes of the file system that each host has for its stores; null when they are in the lab's directory. */
  diskBytes: z.number().int().positive().nullable().default(null),
  hosts: z.array(labHostSchema).min(1).max(100),
})

export type LabHost = z.infer<typeof labHostSchema>
/** What lab.json says. */
export type Lab = z.infer<typeof labSchema>

/** Absolute paths of one lab host. */
export interface HostPaths {
  readonly directory: string
  readonly config: string
  readonly pids: string
  readonly supervisorLock: string
  readonly hostLock: string
  readonly state: string
  readonly stores: string
  /** What holds the file system at `stores`, if the host has one of its own. */
  readonly disk: string
  readonly log: string
  readonly pluginRoot: string
  readonly run: string
  readonly controlSocket: string
}

export const labFile = (directory: string): string => join(directory, 'lab.json')
export const labLock = (directory: string): string => join(directory, 'lab.lock')
export const coordinatorFile = (directory: string): string => join(directory, 'coordinator', 'coordinator.db')

/** @param directory the lab's, absolute */
export function hostPaths(directory: string, lab: Lab, host: string): HostPaths {
  const own = join(directory, host)
  const run = lab.runDirectory === null ? join(own, 'run') : join(lab.runDirectory, host)
  return {
    directory: own,
    config: join(own, 'config.json'),
    pids: join(own, 'pids.json'),
    supervisorLock: join(own, 'supervisor.lock'),
    hostLock: join(own, 'host.lock'),
    state: join(own, 'state'),
    stores: join(own, 'stores'),
    disk: join(own, 'disk.ext4'),
    log: join(own, 'log'),
    pluginRoot: join(own, 'plugins'),
    run,
    controlSocket: join(run, 'control.sock'),
  }
}

export const datapathSocket = (paths: HostPaths, index: number): string =>
  join(paths.run, `datapath-${index}.sock`)

/** How many datapath processes a host has. */
export const datapathsOf = (lab: Lab, host: LabHost): number => (host.witness === true ? 0 : lab.datapaths)

/** The programs that a host's supervisor starts, in this order. */
export const programNames = (lab: Lab, host: LabHost): string[] => [
  'xosand',
  ...Array.from({ length: datapathsOf(lab, host) }, (_, index) => `datapath-${index}`),
]

/**
 * Chooses where the sockets of a new lab go.
 *
 * @returns null when the lab's own directory is short enough, else a new private directory
 */
export async function chooseRunDirectory(directory: string, hosts: number): Promise<string | null> {
  const longest = join(directory, `h${hosts}`, 'run')
  if (Buffer.byteLength(longest) + SOCKET_NAME_BYTES <= SOCKET_PATH_BYTES_MAX) {
    return null
  }
  // The usual directory for temporary files may itself be deep, as in some continuous-integration systems.
  const parent = Buffer.byteLength(tmpdir()) <= 20 ? tmpdir() : '/tmp'
  return await mkdtemp(join(parent, 'xosan-lab-'))
}

/**
 * @returns null when the directory holds no lab
 * @throws XosanError INVALID_ARGUMENT when lab.json cannot be understood
 */
export async function readLab(directory: string): Promise<Lab | null> {
  let text: string
  try {
    text = await readFile(labFile(directory), 'utf8')
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) {
      return null
    }
    throw error
  }
  try {
    const lab = labSchema.parse(JSON.parse(text))
    // Labs with networks were there before TLS was, without programs; now they have both.
    return { ...lab, tls: lab.tls || lab.network.kind === 'netns' }
  } catch (error) {
    throw new XosanError('INVALID_ARGUMENT', { what: labFile(directory), reason: reasonOf(error) })
  }
}

/** @throws XosanError INVALID_ARGUMENT when the directory holds no lab, or one that cannot be understood */
export async function requireLab(directory: string): Promise<Lab> {
  const lab = await readLab(directory)
  if (lab === null) {
    throw new XosanError('INVALID_ARGUMENT', { what: directory, reason: 'there is no lab in this directory' })
  }
  return lab
}

/** The host of that name. @throws XosanError INVALID_ARGUMENT with the names that there are */
export function hostNamed(lab: Lab, name: string): LabHost {
  const host = lab.hosts.find(candidate => candidate.name === name)
  if (host === undefined) {
    const names = lab.hosts.map(candidate => candidate.name).join(', ')
    throw new XosanError('INVALID_ARGUMENT', { what: `host ${name}`, reason: `the lab has ${names}` })
  }
  return host
}
