/** What a lab is made of, by choice of the caller: asked for at `lab up`, kept in lab.json. */
import { XosanError } from '../../core/errors.ts'
import { requireProgram } from './find-program.ts'
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
}

/** What is chosen once, when a lab is made. */
interface LabChoices {
  readonly hosts: number
  readonly datapaths: number
  readonly netns: boolean
  readonly coordinator: Lab['coordinator']
  readonly tls: boolean
  readonly witness: boolean
}

/** What was asked for, with what it implies. */
export function choicesOf(options: LabUpOptions): LabChoices {
  const { hosts, datapaths, netns = false, coordinator = 'embedded', tls = false, witness = false } = options
  return { hosts, datapaths, netns, coordinator, tls: tls || netns || coordinator === 'etcd', witness }
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
  }
}

/** Sees whether a lab can be made here at all. @throws XosanError ROOT_REQUIRED, PROGRAM_MISSING, INVALID_ARGUMENT */
export function requirePrograms(options: LabUpOptions): void {
  const { netns, coordinator } = choicesOf(options)
  if (netns) requireNetworkTools(NAMESPACED)
  if (coordinator === 'etcd') etcdProgram()
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
}

const withOrWithout = (has: boolean): string => (has ? 'with' : 'without')
