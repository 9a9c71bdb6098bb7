/** What happens to a host as a whole, or to its link. */
import { labCut, labCutOneWay } from '../../../cli/lab/lab-links.ts'
import { type PoolHost } from '../../../cli/lab/pool.ts'
import { type TestLab } from '../../support/test-lab.ts'
import { type Load } from '../load/load-client.ts'
import { WRITES_IN_FLIGHT_MIN } from '../matrix/round.ts'
import { allHosts } from './cluster-state.ts'

export interface HostFault {
  readonly name: string
  /** Whether it is one of links, which only a lab with networks has. */
  readonly ofLinks: boolean
  /** Whether the guest's process on that host dies with it; else it goes on, and its requests are held. */
  readonly endsGuest: boolean
  /** For how long it lasts at least, in milliseconds. */
  readonly lastsMs: number
  /** Begins it, at a moment when enough writes are in flight. @returns how many were */
  inflict(lab: TestLab, host: PoolHost, load: Load): Promise<number>
}

/** Replicas are missed after 2.5 s, promises end after 4 s; then there is some time without them. */
const LINK_FAULT_MS = 10_000

const signalled =
  (name: 'SIGKILL' | 'SIGSTOP') =>
  async (lab: TestLab, host: PoolHost, load: Load): Promise<number> =>
    load.signal(name, await (await lab.control(host)).processes(), WRITES_IN_FLIGHT_MIN)

/** Waits for the moment, and leaves what happens then to its caller. */
const momentOf = (load: Load): Promise<number> => load.signal('SIGSTOP', [], WRITES_IN_FLIGHT_MIN)

const others = (lab: TestLab, host: PoolHost): readonly PoolHost[] =>
  allHosts(lab).filter(({ name }) => name !== host.name)

/** The link between a host and another one is cut in both directions; both reach everybody else. */
export const linkCut = (name: string, otherEnd: (lab: TestLab, host: PoolHost) => PoolHost): HostFault => ({
  name,
  ofLinks: true,
  endsGuest: false,
  lastsMs: LINK_FAULT_MS,
  inflict: async (lab, host, load) => {
    const writes = await momentOf(load)
    const other = otherEnd(lab, host)
    await labCutOneWay(lab.labDirectory, host.name, other.name)
    await labCutOneWay(lab.labDirectory, other.name, host.name)
    return writes
  },
})

export const HOST_FAULTS: readonly HostFault[] = [
  { name: 'killed', ofLinks: false, endsGuest: true, lastsMs: 0, inflict: signalled('SIGKILL') },
  { name: 'paused 30 s', ofLinks: false, endsGuest: false, lastsMs: 30_000, inflict: signalled('SIGSTOP') },
  {
    name: 'cut',
    ofLinks: true,
    endsGuest: false,
    lastsMs: LINK_FAULT_MS,
    inflict: async (lab, host, load) => {
      const writes = await momentOf(load)
      await labCut(lab.labDirectory, host.name)
      return writes
    },
  },
  {
    // What it sends is lost.
    name: 'mute',
    ofLinks: true,
    endsGuest: false,
    lastsMs: LINK_FAULT_MS,
    inflict: async (lab, host, load) => {
      const writes = await momentOf(load)
      for (const other of others(lab, host)) await labCutOneWay(lab.labDirectory, host.name, other.name)
      return writes
    },
  },
  {
    // What is sent to it is lost.
    name: 'deaf',
    ofLinks: true,
    endsGuest: false,
    lastsMs: LINK_FAULT_MS,
    inflict: async (lab, host, load) => {
      const writes = await momentOf(load)
      for (const other of others(lab, host)) await labCutOneWay(lab.labDirectory, other.name, host.name)
      return writes
    },
  },
]
