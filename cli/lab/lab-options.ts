/** What a lab is made of, by choice of the caller: asked for at `lab up`, kept in lab.json. */
import { XosanError } from '../../core/errors.ts'
import { requireProgram } from './find-program.ts'
import { requireDiskTools } from './host-disk.ts'
import { type Lab } from './layout.ts'
import { requireNetworkTools } from './network/iproute.ts'
import { hasNamespaces } from './network/namespaces.ts'
import { checkPrograms } from './programs.ts'

/** What needs root and programs, for messages. */
export const NAMESPACED = 'A lab whose hosts have network namespaces'
const WITH_ETCD = 'A lab with etcd'

export interface LabUpOptions {
  /** How many, a witness not counted. */
  readonly hosts: number
  /** Datapath processes per host. */
  readonly datapaths: number
  /** Directory of the programs to run. */
  readonly programs: string
  /** Whether each host is a network namespace, which needs root and implies TLS. */
  readonly netns?: boolean
  /** Makes the hosts and their network, and starts nothing in them. */
  readonly bare?: boolean
  /** What decides: by default `embedded`, a file that all hosts open. etcd implies TLS. */
  readonly coordinator?: Lab['coordinator']
  /** Whether hosts need certificates to speak to each other. */
  readonly tls?: boolean
  /** Whether there is one more host, without data. */
  readonly witness?: boolean
  /** Names of hosts that lose at their end what they have not synced; `all` for all of them. */
  readonly powerCuts?: 'all' | readonly string[]
  /** How much of it they keep in memory, in bytes. */
  readonly unsyncedBytesMax?: number
  /** Gives each host a file system of this size in bytes, which needs root. */
  readonly diskBytes?: number
}

/** What a host keeps un-synced by default: several times what a guest has in flight. */
const UNSYNCED_BYTES_MAX = 64 * 1024 * 1024

/** What is chosen once, when a lab is made. */
interface LabChoices {
  readonly hosts: number
  readonly datapaths: number
  readonly netns: boolean
  readonly coordinator: Lab['coordinator']
  readonly tls: boolean
  readonly witness: boolean
  /** Names of hosts, in their order; empty for none. */
  readonly powerCuts: string
  readonly diskBytes: number | null
}

/** What was asked for, with what it implies. */
export function choicesOf(options: LabUpOptions): LabChoices {
  const { hosts, datapaths, netns = false, coordinator = 'embedded', tls = false, witness = false } = options
  return {
    hosts,
    datapaths,
    netns,
    coordinator,
    tls: tls || netns || coordinator === 'etcd',
    witness,
    powerCuts: (powerCutsOf(options)?.hosts ?? []).join(','),
    diskBytes: options.diskBytes ?? null,
  }
}

/** Which hosts lose what they have not synced. @throws XosanError INVALID_ARGUMENT when one of them will not be there */
export function powerCutsOf({ hosts, powerCuts = [], unsyncedBytesMax }: LabUpOptions): Lab['powerCuts'] {
  const names = Array.from({ length: hosts }, (_, index) => `h${index + 1}`)
  const missing = powerCuts === 'all' ? [] : powerCuts.filter(name => !names.includes(name))
  if (missing.length > 0) {
    throw new XosanError('INVALID_ARGUMENT', {
      what: `host ${missing.join(', ')}`,
      reason: `the hosts with data are ${names.join(', ')}`,
    })
  }
  const chosen = names.filter(name => powerCuts === 'all' || powerCuts.includes(name))
  return chosen.length === 0
    ? null
    : { hosts: chosen, unsyncedBytesMax: unsyncedBytesMax ?? UNSYNCED_BYTES_MAX }
}

function choicesIn(lab: Lab): LabChoices {
  const hosts = lab.hosts.filter(({ witness }) => witness !== true)
  return {
    hosts: hosts.length,
    datapaths: lab.datapaths,
    netns: hasNamespaces(lab),
    coordinator: lab.coordinator,
    tls: lab.tls,
    witness: hosts.length < lab.hosts.length,
    powerCuts: (lab.powerCuts?.hosts ?? []).join(','),
    diskBytes: lab.diskBytes,
  }
}

/** Sees whether a lab can be made here at all. @throws XosanError ROOT_REQUIRED, PROGRAM_MISSING, INVALID_ARGUMENT */
export function requirePrograms(options: LabUpOptions): void {
  const { netns, coordinator } = choicesOf(options)
  if (netns) requireNetworkTools(NAMESPACED)
  if (coordinator === 'etcd') etcdProgram()
  if (options.diskBytes !== undefined) requireDiskTools()
  checkPrograms(options.programs)
}

/** Absolute path of etcd. @throws XosanError PROGRAM_MISSING */
export const etcdProgram = (): string => requireProgram(WITH_ETCD, 'etcd', 'etcd-server')

/** @throws XosanError INVALID_ARGUMENT when a lab is another one than asked for, naming every difference */
export function requireSameChoices(directory: string, lab: Lab, options: LabUpOptions): void {
  const [there, wanted] = [choicesIn(lab), choicesOf(options)]
  const differences = (Object.keys(there) as (keyof LabChoices)[])
    .filter(name => there[name] !== wanted[name])
    .map(name => DESCRIBE[name](there))
  if (differences.length > 0) {
    throw new XosanError('INVALID_ARGUMENT', {
      what: directory,
      reason: `it holds a lab ${differences.join(', ')}`,
    })
  }
}

/** How a lab that is there is told from the one that was asked for. */
const DESCRIBE: { readonly [Name in keyof LabChoices]: (lab: LabChoices) => string } = {
  hosts: ({ hosts }) => `of ${hosts} hosts (--hosts)`,
  datapaths: ({ datapaths }) => `with ${datapaths} datapath processes on each host (--datapaths)`,
  netns: ({ netns }) => `${withOrWithout(netns)} network namespaces (--netns)`,
  coordinator: ({ coordinator }) => `with the coordinator ${coordinator} (--coordinator)`,
  tls: ({ tls }) => `${withOrWithout(tls)} TLS between its hosts (--tls)`,
  witness: ({ witness }) => `${withOrWithout(witness)} a witness (--witness)`,
  powerCuts: ({ powerCuts }) =>
    powerCuts === ''
      ? 'without hosts that lose what they have not synced (--power-cuts)'
      : `whose hosts ${powerCuts} lose what they have not synced (--power-cuts)`,
  diskBytes: ({ diskBytes }) =>
    diskBytes === null
      ? 'whose hosts have no file systems of their own (--disk-size)'
      : `whose hosts have file systems of ${diskBytes / 1024 / 1024} MiB (--disk-size)`,
}

const withOrWithout = (has: boolean): string => (has ? 'with' : 'without')
